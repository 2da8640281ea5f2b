"""Fidelity rows as sections: the sets below each other over all images, then one line a subset for each set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from chexray.outputs import output_of
from chexray.report.care import RANDOM_WEIGHTS
from chexray.report.cells import (
    Errors,
    errors_of,
    floor_cell,
    marks,
    n_text,
    n_words,
    ordered_by_rank,
    paper_cell,
    value_cell,
)
from chexray.report.document import EMPTY, Cell, Column, Grid, Line, Note, Part, Section
from chexray.report.fidelity import remarks
from chexray.report.groups import Column as SetColumn
from chexray.report.groups import Group, Key
from chexray.report.reasons import reasons
from chexray.results.published import is_random
from chexray.results.rows import Row

FLOOR, PAPER = "other real images", "paper's best"
LABEL_WIDTH = 18
"""Holds "Cardiomediastinum"; longer names of subsets fold."""


def sections(groups: list[Group]) -> Iterator[Section]:
    """One section for each real set and encoder, then how to read their marks."""
    for place, group in enumerate(groups):
        parts: list[Part] = [Note(RANDOM_WEIGHTS, "alarm")] if is_random(vars(group)) else []
        whole = [row for rows in group.overall.values() for row in rows.values()]
        if whole:
            parts += [_overall(group), *map(Note, remarks.overall(group))]
        parts += _subsets(group)
        title = " · ".join(part for part in (group.title(), n_words(whole)) if part)
        yield Section(title, tuple(parts), id=f"fidelity-{place + 1}")
    if groups:
        yield Section("", tuple(map(Note, remarks.legend(groups))), id="fidelity-legend")


def _overall(group: Group) -> Grid:
    """One line a set and one column a metric, then what other real images get, and the paper's best."""
    keys = ordered_by_rank(group.overall, group.row_of)
    lines = {key: group.overall[key] for key in keys}
    whole = [row for rows in lines.values() for row in rows.values()]
    with_n = not n_words(whole)
    head = [Column("synthetic set"), *([Column("n real / synth.")] if with_n else [])]
    columns = (*head, *(Column(group.metric_label(key), alike=True) for key in keys))
    errors = {key: errors_of(rows.values()) for key, rows in lines.items()}
    shown = []
    for column in group.columns:
        own = {key: rows[column] for key, rows in lines.items() if column in rows}
        marked = {key: marks(row, column in group.winners(key)) for key, row in own.items()}
        cells = [value_cell(own.get(key), errors[key], marked=marked.get(key, "")) for key in keys]
        size = [Cell(n_text(list(own.values())) if own else "")] if with_n else []
        shown.append(Line((Cell(group.label(column)), *size, *cells), kind="sets"))
    for name, below in (*_floors(group, lines, errors), *_paper(lines)):
        shown.append(Line((Cell(name), *([EMPTY] if with_n else []), *below), kind="beside"))
    return Grid(columns, tuple(shown))


def _floors(
    group: Group, lines: Mapping[Key, Mapping[SetColumn, Row]], errors: Mapping[Key, Errors]
) -> Iterator[tuple[str, list[Cell]]]:
    """The real floors: one line where the sets share them, else one for each size of set."""
    found: dict[tuple[tuple[str, ...], ...], tuple[list[Cell], list[str]]] = {}
    for column in group.columns:
        cells = [floor_cell(rows[column], errors[key]) if column in rows else EMPTY for key, rows in lines.items()]
        if any(cell.text for cell in cells):
            found.setdefault(tuple(cell.parts for cell in cells), (cells, []))[1].append(group.label(column))
    for cells, names in found.values():
        yield FLOOR if len(found) == 1 else f"{FLOOR}, n of {', '.join(names)}", cells


def _paper(lines: Mapping[Key, Mapping[SetColumn, Row]]) -> Iterator[tuple[str, list[Cell]]]:
    cells = [next((cell for row in rows.values() if (cell := paper_cell(row)).text), EMPTY) for rows in lines.values()]
    if any(cell.text for cell in cells):
        yield PAPER, cells


def _subsets(group: Group) -> Iterable[Section]:
    """A section for each synthetic set that has subsets besides "all"."""
    for column in group.columns:
        lines = _lines(group, column)
        if not lines:
            continue
        keys = ordered_by_rank(dict.fromkeys(key for cells in lines.values() for key in cells), group.row_of)
        rows = [row for cells in lines.values() for row in cells.values()]
        said = [
            *reasons([row for row in rows if row["value"] is None]),
            *remarks.paper_doubts(rows),
            *remarks.no_floor(rows),
            *remarks.not_told_apart(rows),
            *remarks.standings(group, lines, keys, column),
        ]
        grid = _by_subset(group, column, lines, keys)
        yield Section(f"by subset: {group.label(column)}", (grid, *map(Note, said)))


def _lines(group: Group, column: SetColumn) -> dict[str, dict[Key, Row]]:
    """Subset -> the set's rows, by kind (finding, sex ...) and within it the largest first."""
    found = {
        subset: {key: rows[column] for key, rows in lines.items() if column in rows}
        for subset, lines in group.subsets.items()
        if subset != "all"
    }
    kinds = list(dict.fromkeys(_kind(subset) for subset in found))
    order = sorted(found, key=lambda subset: (kinds.index(_kind(subset)), -_size(found[subset])))
    return {subset: found[subset] for subset in order if found[subset]}


def _by_subset(group: Group, column: SetColumn, lines: Mapping[str, Mapping[Key, Row]], keys: list[Key]) -> Grid:
    columns = [Column("subset", width=LABEL_WIDTH), Column("synth.", over="n real /", align="right")]
    paper = {key: any(paper_cell(cells[key]).text for cells in lines.values() if key in cells) for key in keys}
    for rank, key in enumerate(keys):
        floor = " (floor)" if _floored(group.row_of(key)) else ""
        columns.append(Column(f"{group.metric_label(key)}{floor}", align="right", rank=rank))
        if paper[key]:
            columns.append(Column(group.metric_name(key), over=PAPER, rank=rank))
    shown = []
    for subset, cells in lines.items():
        line = [Cell(subset.removeprefix("finding:")), Cell(n_text([next(iter(cells.values()))]))]
        for key in keys:
            row = cells.get(key)
            line.append(EMPTY if row is None else _short(group, key, column, subset, row))
            line += [EMPTY if row is None else paper_cell(row)] if paper[key] else []
        shown.append(Line(tuple(line), kind=_kind(subset)))
    return Grid(tuple(columns), tuple(shown), one_line=True)


def _short(group: Group, key: Key, column: SetColumn, subset: str, row: Row) -> Cell:
    """`0.0231* ± 0.0021 (0.0010)`: value, error, and the floor of those that mean little without."""
    won = column in group.winners(key, subset)
    errors = errors_of(group.subsets[subset].get(key, {}).values())
    cell = value_cell(row, errors, marked=marks(row, won), short=True)
    floor = floor_cell(row, errors).text if _floored(row) and row["value"] is not None else ""
    return replace(cell, aside=f"({floor})" if floor else "")


def _floored(row: Row) -> bool:
    """Whether the value means little without its floor, which differs tenfold between findings, or is the aim."""
    output = output_of(row)
    return output.needs_floor or output.nearest_to_floor


def _kind(subset: str) -> str:
    return subset.partition(":")[0]


def _size(cells: Mapping[Key, Row]) -> int:
    """What limits a subset: its smaller side."""
    return max((min(row["n_real"], row["n_synthetic"]) for row in cells.values()), default=0)
