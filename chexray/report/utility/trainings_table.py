"""The trainings below each other: what each was trained on, its numbers on the real test set, and how far from real."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from chexray.report.cells import value_cell
from chexray.report.document import EMPTY, Cell, Column, Grid, Line, Note, Part
from chexray.report.utility.groups import Cells, Number, Row, TrainingColumn, UtilityTables, baseline, sizes_of
from chexray.report.utility.names import TUNED, setting_legend
from chexray.report.utility.remarks import STAR, choices, intervals, why
from chexray.report.utility.roles import CLASSIFICATION, DIFFERENCE, FINDING_DIFFERENCE, MACRO, MACRO_OF_14
from chexray.report.wording import arrow
from chexray.results.numbers import MISSING, error_of, number, value_text
from chexray.results.rows import params_of
from chexray.results.trainings import excludes_zero, shows_difference, single_trainings

PROTOCOL, PUBLISHED_THRESHOLD = "chexgenbench", "0.5"
"""What CheXGenBench prints beside the headline is at this threshold and over all 14 findings."""
NAME_WIDTH = 18
"""Holds "pretrain-finetune"; longer names fold."""


def comparison(tables: UtilityTables) -> Iterator[Part]:
    """The table of all trainings and its footnotes."""
    plain = _plain(tables)
    of_label = [cells for label, threshold in plain for cells in _values(tables, label, threshold)]
    headline = [tables.get(MACRO), tables.differences]
    rows = [row for cells in (*headline, *of_label) for row in cells.values()]
    if not rows:
        return
    yield _grid(tables)
    lines = [*why(rows), *_star(tables), *_published(tables)]
    settings = list(dict.fromkeys(training.setting for training in tables.trainings))
    lines.append("; ".join(["trained on: real + synthetic images", *setting_legend(settings)]))
    tuned = [row for row in rows if tables.protocol != PROTOCOL or params_of(row).get("threshold") != TUNED]
    yield from map(Note, [*lines, *choices(tuned), *intervals(rows)])


def shown(tables: UtilityTables) -> set[tuple[str, str, str, bool]]:
    """(family, role, label, over all images) of what the table shows."""
    found = {(CLASSIFICATION, role, tables.headline, True) for role in (MACRO, DIFFERENCE)}
    for label, _ in _plain(tables):
        found |= {(CLASSIFICATION, role, label, True) for role in (MACRO, MACRO_OF_14)}
    return found | {(CLASSIFICATION, number.role, number.label, True) for number in _against_chance(tables)}


def _plain(tables: UtilityTables) -> list[tuple[str, str]]:
    """(label, threshold) of the columns without intervals: under the benchmark's protocol those that it publishes."""
    published = [output.label for output in tables.outputs(MACRO_OF_14)] if tables.protocol == PROTOCOL else []
    ranked = [output.label for output in tables.outputs(MACRO) if output.rank > 1]
    return [(label, _threshold(tables, label)) for label in dict.fromkeys(published or ranked)]


def _threshold(tables: UtilityTables, label: str) -> str:
    """Tuned where anything was, else what there is; under the benchmark's protocol, what it publishes."""
    found = [each.threshold for each in tables.cells if (each.role, each.label, each.subset) == (MACRO, label, "all")]
    if tables.protocol == PROTOCOL and PUBLISHED_THRESHOLD in found:
        return PUBLISHED_THRESHOLD
    return TUNED if TUNED in found else next(iter(found), "")


def _values(tables: UtilityTables, label: str, threshold: str) -> tuple[Cells, Cells]:
    """(the cells of a measure, those to put beside them in brackets): over 14 findings where some are absent."""
    cells, of_14 = (tables.get(role, label, threshold=threshold) for role in (MACRO, MACRO_OF_14))
    return (of_14, cells) if any(params_of(row).get("counted_as_zero") for row in of_14.values()) else (cells, {})


def _grid(tables: UtilityTables) -> Grid:
    several = len(tables.generators) > 1
    columns = [*([Column("generator", width=NAME_WIDTH, once=True)] if several else [])]
    columns += [Column("setting", width=NAME_WIDTH), Column("on", over="trained")]
    numbers = list(_columns(tables))
    columns += [column for column, _ in numbers]
    crowded = len(tables.trainings) > len(tables.generators) + 1
    lines = []
    for training in tables.trainings:
        name = tables.generator(training.column) if training.synthetic_set else MISSING
        labels = [*([name] if several else []), tables.name(training), _trained_on(tables, training)]
        cells = (cells.get(training, EMPTY) for _, cells in numbers)
        lines.append(Line((*map(Cell, labels), *cells), kind=name if crowded else ""))
    return Grid(tuple(columns), tuple(lines))


def _columns(tables: UtilityTables) -> Iterator[tuple[Column, dict[TrainingColumn, Cell]]]:
    """The numbers that anything has: the headline and its difference with intervals, then others without."""
    head, differences = tables.get(MACRO), tables.differences
    if head:
        column = Column(f"{tables.headline}{_arrow(head)}", under=MACRO)
        yield column, {training: value_cell(row) for training, row in head.items()}
    if differences:
        cells = {one: value_cell(row, marked="*" * shows_difference(row)) for one, row in differences.items()}
        yield Column(f"to {baseline(differences)}", over="difference"), cells
    for rank, (label, threshold) in enumerate(_plain(tables), 1):
        cells, beside = _values(tables, label, threshold)
        over = "macro of 14" if beside else f"macro ({threshold})" if threshold not in ("", TUNED) else MACRO
        if cells:
            column = Column(f"{label}{_arrow(cells)}", under=over, rank=rank)
            yield column, {one: _plain_cell(row, beside.get(one)) for one, row in cells.items()}
    for place in _against_chance(tables):
        cells = {one: _accuracy(row) for one, row in tables.cells[place].items()}
        yield Column(place.label, under="(all-negative)", rank=9), cells


def _plain_cell(row: Row, beside: Row | None) -> Cell:
    """`0.461 (0.470)`, what stands beside it in brackets; intervals are in results.csv."""
    aside = f"({value_text(beside)})" if beside else ""
    return replace(value_cell(row), interval="", aside=aside)


def _against_chance(tables: UtilityTables) -> list[Number]:
    """Numbers that come with what a predictor gets that always says no: one, at the threshold that others are at."""
    found = [
        each for each, cells in tables.cells.items()
        if each.subset == "all" and any("all_negative" in params_of(row) for row in cells.values())
    ]  # fmt: skip
    return sorted(found, key=lambda each: each.threshold != TUNED)[:1]


def _accuracy(row: Row) -> Cell:
    """`0.881 (0.872)`, the all-negative predictor's beside it."""
    negative = params_of(row).get("all_negative")
    return Cell(value_text(row), aside="" if negative is None else f"({number(negative, error_of(row))})")


def _arrow(cells: Cells) -> str:
    return arrow(next((row["better"] for row in cells.values() if row["better"]), ""))


def _trained_on(tables: UtilityTables, training: TrainingColumn) -> str:
    """`200 + 200`, real and synthetic images; empty where nothing was trained."""
    for cells in tables.cells.values():
        if training in cells and (sizes := sizes_of(params_of(cells[training]))):
            return "{:,} + {:,}".format(*sizes)
    return ""


def _star(tables: UtilityTables) -> list[str]:
    """What a star means, or why there is none."""
    rows = [row for row in tables.differences.values() if row["ci_low"] is not None]
    single = (*rows, *tables.rows(FINDING_DIFFERENCE))
    lines = []
    if any(shows_difference(row) for row in rows):
        lines.append(f"*  differs from {baseline(tables.differences)}: {STAR}")
    elif rows and not any(excludes_zero(row) for row in rows):
        lines.append(f"no training is shown to differ from {baseline(tables.differences)}: all intervals include 0")
    if any(excludes_zero(row) and single_trainings(row) for row in single):
        lines.append("no star between single trainings: those that differ in their seed alone are often as far apart")
    return lines


def _published(tables: UtilityTables) -> Iterator[str]:
    """Under the benchmark's protocol: at which threshold its numbers are, and what they count as 0."""
    if tables.protocol != PROTOCOL:
        return
    labels = [label for label, threshold in _plain(tables) if threshold == PUBLISHED_THRESHOLD]
    if labels:
        at = f"at threshold {PUBLISHED_THRESHOLD}, as CheXGenBench computes them; at tuned thresholds: see results.csv"
        yield f"{', '.join(labels)}: {at}"
    found = (
        params_of(row).get("counted_as_zero") or ()
        for label, threshold in _plain(tables)
        for row in tables.get(MACRO_OF_14, label, threshold=threshold).values()
    )
    absent = list(dict.fromkeys(str(name) for names in found for name in names))
    if absent:
        yield (
            f"of 14: findings without a positive test image count as 0, as in CheXGenBench ({', '.join(absent)}); in "
            "brackets without them"
        )
