"""A test of the filter: what it finds of planted copies, what it flags by mistake, and which part does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from chexray.outputs import output_of
from chexray.report.cells import scaled, value_cell
from chexray.report.document import Cell, Column, Grid, Line, Note, Section
from chexray.report.privacy.verdicts import NOT_FOUND
from chexray.report.terminal import View
from chexray.results.identity import set_name
from chexray.results.numbers import MISSING
from chexray.results.rows import Row, params_of, to_records

if TYPE_CHECKING:
    import pandas as pd


UNSEEN, SAME = "unseen patients", "same verdict"
SECTIONS = {
    "one change": "planted copies, flagged",
    "all changes": "planted copies, flagged",
    UNSEEN: "unseen patients, not flagged",
    SAME: "altered, same verdict",
}
"""Role -> the heading over its lines."""
UNITS = {UNSEEN: ("n_patients", "patients"), SAME: ("n_prompts", "prompts")}


def render(rows: pd.DataFrame | Iterable[Row], *, width: int | None = None) -> View:
    """The rows of audit.parquet as a rich renderable."""
    records = to_records(rows)
    return View([section(records)] if records else [], width)


def section(rows: Sequence[Row]) -> Section:
    """One line a score: its share with interval, and beside it what each part of the filter flags by itself."""
    first = rows[0]
    searched = f"{set_name(first['real_set'])}: {first['n_real']:,} training images"
    title = " · ".join(["test of the privacy filter", searched, f"protocol {first['protocol']}"])
    return Section(title, (_grid(rows), *map(Note, _legend(rows))))


def _grid(rows: Sequence[Row]) -> Grid:
    parts = list(dict.fromkeys(part for row in rows for part in params_of(row).get("n_flagged_by", {})))
    columns = [Column("score"), Column("share, %", under="[95% interval]", alike=True)]
    columns += [Column("n", align="right", alike=True)]
    columns += [Column(part, over="by", align="right", alike=True) for part in parts]
    lines = []
    for row in rows:
        by = params_of(row).get("n_flagged_by", {})
        flagged = (Cell(_percent(by.get(part), row["n_synthetic"])) for part in parts)
        labels = (Cell(_label(row)), _share(row), Cell(f"{row['n_synthetic']:,}"))
        lines.append(Line((*labels, *flagged), above=SECTIONS[output_of(row).role]))
    return Grid(tuple(columns), tuple(lines))


def _share(row: Row) -> Cell:
    """`98.3 [91.0, 100.0]`, rounded by the interval: all or none flagged has no other error."""
    return Cell(MISSING) if row["value"] is None else value_cell({**scaled(row, 100), "std_error": None})


def _label(row: Row) -> str:
    output = output_of(row)
    if output.role not in UNITS:
        return output.label
    key, noun = UNITS[output.role]
    units = params_of(row).get(key)
    return "each an image" if units is None else f"of {units:,} {noun}"


def _percent(count: int | None, n: int) -> str:
    return "" if count is None or not n else f"{100 * count / n:.1f}"


def _legend(rows: Sequence[Row]) -> Iterator[str]:
    for row in rows:
        if row["value"] is None:
            yield f"{row['metric']}: {row['reason']}"
        elif output_of(row).role == SAME:
            flagged = params_of(row).get("n_flagged", 0)
            yield f"of {row['n_synthetic']:,} altered images, {flagged:,} or their originals were flagged at all"
    yield "an image is flagged when any part flags it; by ...: what each part flags by itself, %"
    yield f'"{NOT_FOUND}" means no more than this test shows: copies that the filter misses go unnoticed'
