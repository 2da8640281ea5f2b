"""Privacy rows as sections: what was flagged beside what chance flags, and what each number cannot see.

Sections appear only when they have rows. The search for copies comes first; numbers for comparison with other tools
decide nothing and are set back.
"""

from __future__ import annotations

from collections.abc import Iterator

from chexray.outputs import output_of
from chexray.report.care import RANDOM_WEIGHTS
from chexray.report.document import Cell, Column, Grid, Line, Note, Part, Section
from chexray.report.privacy.groups import Beside, PrivacyTables, Row, floor_text
from chexray.report.privacy.pairs_table import FLOOR, distances, line_rows, reidentification, without_pairs
from chexray.report.privacy.remarks import blind_spots, said_of, without_error
from chexray.report.privacy.search_table import memorisation
from chexray.report.reasons import reasons
from chexray.results.published import is_random
from chexray.results.rows import params_of
from chexray.spelling import plural

SEARCH, PLANTED, OTHER_TOOLS, DUPLICATES = "memorisation", "planted copies", "other tools", "duplicates"
SECTIONS = ("flagged images", SEARCH, PLANTED, OTHER_TOOLS, DUPLICATES, "re-identification", "pair distances")
"""Families with a place of their own; the number of flagged images is said in words."""
FLOOR_ELSEWHERE = (SEARCH, DUPLICATES)
"""Families whose floor is shown under another name."""
CHANCE = Beside("real images", floor_text)


def section(tables: PrivacyTables, place: int) -> Section:
    """The tables of one real set."""
    parts: list[Part] = []
    random = {tables.encoder(group) for group in tables.groups if is_random(vars(group))}
    if random:
        parts.append(Note(f"{RANDOM_WEIGHTS} ({', '.join(sorted(random))})", "alarm"))
    if search := tuple(memorisation(tables)):
        parts.append(Section(SEARCH, search))
    for made in (_planted, _other_tools, _duplicates, reidentification, distances, _others):
        parts += made(tables)
    parts += map(Note, [*without_pairs(tables), *without_error(tables.rows)])
    if any(row["real_floor"] is not None and output_of(row).family not in FLOOR_ELSEWHERE for row in tables.rows):
        parts.append(Note("real floor: what other real images score in place of the synthetic ones"))
    subsets = {row["subset"] for group in tables.groups for row in group.rows} - {"all"}
    if subsets:
        parts.append(Note(f"{plural(len(subsets), 'subset')} besides all images: see results.csv"))
    return Section(tables.title, tuple(parts), id=f"privacy-{place}")


def _planted(tables: PrivacyTables) -> Iterator[Section]:
    """One line an alteration, one column a space and one for all of them together."""
    found: dict[str, dict[str, Row]] = {}
    for line in tables.lines(PLANTED):
        if line.first["value"] is not None:
            found.setdefault(line.output.label or line.key[0], {})[line.first["encoder"]] = line.first
    if not found:
        return
    encoders = sorted(dict.fromkeys(name for rows in found.values() for name in rows), key=lambda name: name == "")
    columns = [Column("training images, altered"), *(Column(each or "any", alike=bool(each)) for each in encoders)]
    lines = [
        Line((Cell(name), *(_found(rows[each]) if each in rows else Cell() for each in encoders)))
        for name, rows in found.items()
    ]
    notes = ["copies that this run made of training images, and how many of them it flags; intervals: see results.csv"]
    untried = sorted({line.first["encoder"] for line in tables.lines(SEARCH)} - set(encoders))
    notes += [f"not tried: {', '.join(untried)}; chexray audit tries them"] if untried else []
    yield Section(PLANTED, (Grid(tuple(columns), tuple(lines)), *map(Note, notes)))


def _found(row: Row) -> Cell:
    params = params_of(row)
    return Cell(f"{params['n_found']:,} of {params['n']:,}", number=row["value"])


def _other_tools(tables: PrivacyTables) -> Iterator[Section]:
    lines = tables.lines(OTHER_TOOLS)
    if not lines:
        return
    encoders = list(dict.fromkeys(tables.encoder(line.group) for line in lines))
    grid = tables.grid(lines, "metric", encoders=len(encoders) > 1, beside=[FLOOR], tone="quiet")
    aside = "" if len(encoders) > 1 else f" ({encoders[0]})"
    rows = line_rows(lines)
    notes = [*blind_spots(rows), *reasons(rows, said=said_of)]
    yield Section(f"for comparison with other tools{aside}", (grid, *map(Note, notes)), tone="quiet")


def _duplicates(tables: PrivacyTables) -> Iterator[Section]:
    lines = tables.lines(DUPLICATES)
    if not lines:
        return
    grid = tables.grid(
        lines, "synthetic images that are", beside=[CHANCE], name=lambda line: line.group.metric_name(line.key)
    )
    rows = line_rows(lines)
    notes = [*blind_spots(rows, by_role=True), *reasons(rows, name=lambda row: "", said=said_of)]
    yield Section(DUPLICATES, (grid, *map(Note, notes)))


def _others(tables: PrivacyTables) -> Iterator[Section]:
    """What no section knows, so that nothing that was measured goes unseen."""
    lines = [line for line in tables.lines() if line.output.family not in SECTIONS]
    if not lines:
        return
    grid = tables.grid(lines, "metric", beside=[FLOOR], name=lambda line: f"{tables.encoder(line.group)}: {line.label}")
    yield Section("further numbers", (grid, *map(Note, reasons(line_rows(lines), said=said_of))))
