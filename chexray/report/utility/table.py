"""Utility rows as sections: trainings compared on the real test set, then by finding, by group, and labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from chexray.grouping import grouped
from chexray.report.care import RANDOM_WEIGHTS
from chexray.report.cells import value_cell
from chexray.report.document import EMPTY, Cell, Column, Grid, Line, Note, Part, Section
from chexray.report.reasons import FINDING as PREFIX
from chexray.report.utility.groups import Cells, Row, TrainingColumn, UtilityTables
from chexray.report.utility.remarks import STAR_OF_FINDINGS, UNCORRECTED, elsewhere, group_means, why
from chexray.report.utility.roles import CLASSIFICATION, FAITHFULNESS, FINDING, FINDING_DIFFERENCE, GAP, MACRO
from chexray.report.utility.trainings_table import comparison, shown
from chexray.report.wording import arrow, some
from chexray.results.numbers import error_of, number
from chexray.results.published import is_random
from chexray.results.rows import params_of
from chexray.results.trainings import beyond_chance, differing, excludes_zero, not_shown

LABEL_WIDTH = 18
"""Holds "Cardiomediastinum"; longer names fold."""


def section(tables: UtilityTables, place: int) -> Section:
    """The tables of one test set and model."""
    parts: list[Part] = [Note(RANDOM_WEIGHTS, "alarm")] if is_random(vars(tables)) else []
    parts += comparison(tables)
    for made in (_findings, _groups, _faithfulness):
        parts += made(tables)
    own = ((FINDING, False), (FINDING_DIFFERENCE, False), (MACRO, False), (GAP, False))
    known = shown(tables) | {(CLASSIFICATION, role, tables.headline, whole) for role, whole in own}
    known |= {(FAITHFULNESS, role, tables.headline, whole) for role, whole in ((FINDING, False), (MACRO, True))}
    parts += map(Note, elsewhere(tables, known))
    return Section(tables.title, tuple(parts), id=f"utility-{place}")


def _matrix(
    tables: UtilityTables,
    head: str,
    counted: tuple[str, str],
    lines: Sequence[tuple[str, str, Cells, str]],
    starred: Mapping[tuple[str, TrainingColumn], str],
) -> Grid:
    """One line a finding or group, one column a training, those without synthetic images in every block.

    counted: the head over the counts, in two lines. lines: (label, count, cells, kind). starred: {(label, training):
    mark}.
    """
    trainings = [each for each in tables.trainings if any(each in cells for _, _, cells, _ in lines)]
    several = len(tables.generators) > 1
    columns = [Column(head, width=LABEL_WIDTH), Column(counted[1], over=counted[0], align="right")]
    for training in trainings:
        over = tables.generator(training.column) if several and training.synthetic_set else ""
        columns.append(Column(tables.name(training), over=over, alike=bool(training.synthetic_set)))
    made = []
    for label, count, cells, kind in lines:
        marked = [starred.get((label, each), "") for each in trainings]
        values = [value_cell(cells.get(each), marked=mark) for each, mark in zip(trainings, marked, strict=True)]
        made.append(Line((Cell(label), Cell(count), *values), kind))
    return Grid(tuple(columns), tuple(made))


def _findings(tables: UtilityTables) -> Iterator[Section]:
    """The headline's measure by finding, the commonest first; findings without any value are named below."""
    found = {subset: tables.get(FINDING, subset=subset) for subset in tables.subsets(FINDING)}
    if not found:
        return
    role = FINDING_DIFFERENCE
    by_training = grouped(item for subset in tables.subsets(role) for item in tables.get(role, subset=subset).items())
    starred = {training: differing(rows) for training, rows in by_training.items()}
    lines, stars, tests = [], {}, set()
    for subset, cells in sorted(found.items(), key=lambda item: -_positives(item[1])):
        tests |= {row["n_real"] for row in cells.values()}
        label, positives = subset.removeprefix(PREFIX), _positives(cells)
        stars |= {(label, training): "*" for training, differ in starred.items() if subset in differ}
        if any(row["value"] is not None for row in cells.values()):
            lines.append((label, f"{positives:,}" if positives >= 0 else "?", cells, ""))
    counted = ("positive", f"of {tests.pop():,}") if len(tests) == 1 else ("", "positive")
    parts: list[Part] = [_matrix(tables, FINDING, counted, lines, stars)] if lines else []
    notes = why([row for cells in found.values() for row in cells.values()])
    if stars:
        rows = tables.rows(role)
        corrected = all("p_value" in params_of(row) for row in rows if excludes_zero(row))
        notes.append(f"*  {STAR_OF_FINDINGS if corrected else UNCORRECTED}")
    yield Section(f"{tables.headline} by finding", (*parts, *map(Note, notes)))


def _positives(cells: Cells) -> int:
    """Test images with the finding; -1 where no row tells."""
    return max((int(params_of(row).get("n_positive", -1)) for row in cells.values()), default=-1)


def _groups(tables: UtilityTables) -> Iterator[Section]:
    """The headline by group, each column of the manifest closed by the gap between its best and worst group."""
    groups = tables.subsets(MACRO)
    lines, large = [], {}
    for column in dict.fromkeys([group.partition(":")[0] for group in groups] + tables.subsets(GAP)):
        for group in groups:
            if group.partition(":")[0] == column:
                cells = tables.get(MACRO, subset=group)
                lines.append((group, f"{max(row['n_real'] for row in cells.values()):,}", cells, column))
        if gap := tables.get(GAP, subset=column):
            label = f"{column}: gap{arrow(next(iter(gap.values()))['better'])}"
            large |= {(label, training): "*" for training, row in gap.items() if beyond_chance(row)}
            lines.append((label, "", gap, column))
    if not lines:
        return
    grid = _matrix(tables, "group", ("test", "images"), lines, large)
    gaps = tables.rows(GAP)
    notes = why(row for _, _, cells, _ in lines for row in cells.values())
    means = (row for group in groups for row in tables.get(MACRO, subset=group).values())
    notes += group_means(means, gap=bool(gaps))
    if gaps:
        notes.append(
            "gap: best less worst group, over the findings that all its groups can be judged by; its interval keeps to "
            "these two"
        )
        notes += _too_small(gaps)
    if large:
        notes.append("*  larger than 95 % of the gaps between groups that are served equally well")
    yield Section(f"{tables.headline} {MACRO} by group", (grid, *map(Note, notes)))


def _too_small(rows: Iterable[Row]) -> list[str]:
    """The groups that no gap holds, by why: a line each. Rows of before 0.2 name groups without a reason."""
    found: dict[str, dict[str, None]] = {}
    for params in map(params_of, rows):
        reason = str(params.get("left_out_why") or "too small to judge")
        found.setdefault(reason, {}).update(dict.fromkeys(map(str, params.get("left_out") or ())))
    return [f"not in the gap: {some(list(names))} ({reason})" for reason, names in found.items() if names]


def _faithfulness(tables: UtilityTables) -> Iterator[Section]:
    """What the classifier of real images sees of the findings that the synthetic ones were asked to show."""
    found = {number.subset: cells for number, cells in tables.cells.items() if number.family == FAITHFULNESS}
    found = dict(sorted(found.items(), key=lambda item: item[0] == "all"))
    if not found:
        return
    trainings = list(dict.fromkeys(training for cells in found.values() for training in cells))
    columns = [Column("finding", width=LABEL_WIDTH)]
    for training in trainings:
        sizes = {cells[training]["n_synthetic"] for cells in found.values() if training in cells}
        under = f"n = {sizes.pop():,}" if len(sizes) == 1 else ""
        columns.append(Column(tables.generator(training.column), under=under, alike=True))
    columns.append(Column("images", over="real test", align="right"))
    lines = []
    for subset, cells in found.items():
        if any(row["value"] is not None for row in cells.values()):
            floors = [
                number(row["real_floor"], error_of(row)) for row in cells.values() if row["real_floor"] is not None
            ]
            label = MACRO if subset == "all" else subset.removeprefix(PREFIX)
            values = (_faithful(cells.get(training)) for training in trainings)
            lines.append(Line((Cell(label), *values, Cell(floors[0] if floors else ""))))
    rows = [row for cells in found.values() for row in cells.values()]
    notes = why(rows)
    if any(not_shown(row) for row in rows):
        notes.append("!  not shown: down to chance, where the same classifier sees the finding in real images")
    if lines:
        notes.append(
            "by the classifier of setting real; low where images do not show what was asked for, or look so unlike "
            "real ones that it cannot read them"
        )
    parts = [Grid(tuple(columns), tuple(lines))] if lines else []
    title = f"label faithfulness: {tables.headline} of the findings asked for, on synthetic images"
    yield Section(title, (*parts, *map(Note, notes)))


def _faithful(row: Row | None) -> Cell:
    if row is None:
        return EMPTY
    bad = not_shown(row)
    return value_cell(row, marked="!" if bad else "", tone="alarm" if bad else "")
