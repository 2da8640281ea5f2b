"""The results on a terminal: intervals beside values, floors beside biased numbers, and doubts said aloud.

Layout happens when rich prints, so one object reads well on any width, and in ASCII where the stream is not UTF-8.
Numbers are rounded here and nowhere before.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from chexray.results import notes
from chexray.results.grouping import Column, Group, group_rows
from chexray.results.layout import (
    Errors,
    dim,
    errors_of,
    fits,
    floor_text,
    floors_text,
    house_table,
    marks,
    n_text,
    paper_cell,
)
from chexray.results.privacy import table as privacy_table
from chexray.results.privacy.groups import audits_of
from chexray.results.published import is_random
from chexray.results.rows import suite_of, to_records
from chexray.results.subset_table import subset_tables
from chexray.results.utility import table as utility_table
from chexray.results.utility.groups import studies_of
from chexray.results.wording import Wording

if TYPE_CHECKING:
    import pandas as pd

Row = Mapping[str, Any]


def render(
    rows: pd.DataFrame | Iterable[Row], *, width: int | None = None, console: Console | None = None
) -> list[RenderableType]:
    """The results as rich renderables, to be printed in turn; `summary_lines` belongs after them.

    One for each real set and encoder: a table over all images, synthetic sets side by side where they fit and below
    each other where they do not, then one line a subset. A value is bold, with a star, only when its interval overlaps
    that of no other set. The next one says how to read the marks. Then one for the privacy rows of each real set, laid
    out by `chexray.results.privacy.table`, and one for the utility rows of each test set and model, by
    `chexray.results.utility.table`. width, console: what to lay out for, when it is not the console that prints.
    """
    records = to_records(rows)
    groups = group_rows(row for row in records if suite_of(row) not in ("privacy", "utility"))
    views: list[RenderableType] = [View(group, _show, width, console) for group in groups]
    if groups:
        views.append(View(groups, _legend, width, console))
    audits = audits_of(row for row in records if suite_of(row) == "privacy")
    views += [View(audit, privacy_table.show, width, console) for audit in audits]
    studies = studies_of(row for row in records if suite_of(row) == "utility")
    return [*views, *(View(study, utility_table.show, width, console) for study in studies)]


def summary_lines(rows: pd.DataFrame | Iterable[Row], *, ascii_only: bool | None = None) -> list[str]:
    """What must not be overlooked, one plain line each: copies found, random weights, biased FID, rejects ...

    ascii_only: by default, when standard output is not UTF-8.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    wording = Wording.for_encoding(encoding) if ascii_only is None else Wording(unicode=not ascii_only)
    return notes.summary(to_records(rows), wording)


@dataclass(frozen=True)
class View:
    """Shows `what` by `how(what, wording, console, width)`, once rich knows the console's width and encoding."""

    what: Any
    how: Callable[[Any, Wording, Console, int], Iterable[RenderableType]]
    width: int | None = None
    console: Console | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        target = self.console or console
        width = self.width or (target.width if self.console else options.max_width)
        yield from self.how(self.what, Wording.for_encoding(target.encoding), target, width)


def _show(group: Group, wording: Wording, console: Console, width: int) -> Iterable[RenderableType]:
    yield Text(wording.own(" · ").join(group.title(wording)), style="bold")
    if is_random(vars(group)):
        yield Text(notes.RANDOM_WEIGHTS, style="bold red")
    if group.overall:
        yield _fit(group, wording, console, width)
        yield from dim(notes.overall(group, wording))
    for heading, table, remarks in subset_tables(group, wording, console, width):
        yield Text(f"\n{heading}", style="bold")
        yield table
        yield from dim(remarks)
    yield Text("")


def _legend(groups: list[Group], wording: Wording, _console: Console, _width: int) -> Iterable[RenderableType]:
    return dim(notes.legend(groups, wording))


def _fit(group: Group, wording: Wording, console: Console, width: int) -> Table:
    """Sets side by side when that fits `width`, below each other when not; the errors of floors where they fit."""
    layouts = [_side_by_side, _stacked] if len(group.columns) > 1 else [_stacked]
    has_errors = any(row.get("real_floor_std_error") for rows in group.overall.values() for row in rows.values())
    for layout in layouts:
        for floor_errors in (True, False) if has_errors else (False,):
            table = layout(group, wording, floor_errors)
            if table is not None and fits(table, console, width):
                return table
    return _stacked(group, wording, False)


def _side_by_side(group: Group, wording: Wording, floor_errors: bool) -> Table | None:
    """One row a metric, one column a set; None when a set's n varies between metrics and so fits no header."""
    sizes = {}
    for column in group.columns:
        counts = {n_text(rows[column]) for rows in group.overall.values() if column in rows}
        if len(counts) != 1:
            return None
        sizes[column] = counts.pop()
    table = house_table(wording)
    table.add_column(Text("metric\n"))
    for column in group.columns:
        header = Text(f"{group.label(column, wording)}\nn = {sizes[column]}")
        table.add_column(header, overflow="fold")
    table.add_column(Text("real floor\n"), justify="right")
    paper = _paper_cells(group, wording)
    if any(paper.values()):
        table.add_column(Text("paper's best\n"), overflow="fold")
    for key, rows in group.overall.items():
        errors, won = errors_of(rows.values()), group.winners(key)
        cells = [_value_and_interval(rows.get(column), column in won, errors, wording) for column in group.columns]
        floors = floors_text(rows.values(), errors, wording, with_error=floor_errors)
        line = [_metric(group, key, wording), *cells, Text(floors)]
        table.add_row(*line, *([Text(paper[key])] if any(paper.values()) else []))
    return table


def _stacked(group: Group, wording: Wording, floor_errors: bool) -> Table:
    """One row a metric and set: readable at 80 columns whatever the number of sets."""
    several = len(group.columns) > 1
    paper = _paper_cells(group, wording)
    table = house_table(wording)
    table.add_column("metric", no_wrap=True)
    if several:
        table.add_column("synthetic set", overflow="fold")
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("95% interval", no_wrap=True)
    table.add_column(Text("real\nfloor"), justify="right", no_wrap=True)
    table.add_column(Text("n real /\nsynth."), justify="right", no_wrap=True)
    if any(paper.values()):
        table.add_column("paper's best", overflow="fold")
    for key, rows in group.overall.items():
        errors, winners = errors_of(rows.values()), group.winners(key)
        for position, (column, row) in enumerate((c, rows[c]) for c in group.columns if c in rows):
            won = column in winners
            line = [_metric(group, key, wording) if position == 0 else Text("")]
            line += [Text(group.label(column, wording))] if several else []
            error = errors.get(row["value"])
            value = Text(f"{marks(row, won)}{wording.value(row, error)}", style="bold" if won else "")
            floor = wording.own(floor_text(row, errors, with_error=floor_errors))
            line += [value, Text(wording.interval(row, error)), Text(floor), Text(n_text(row))]
            line += [Text(paper[key] if position == 0 else "")] if any(paper.values()) else []
            table.add_row(*line)
    return table


def _metric(group: Group, key: Any, wording: Wording) -> Text:
    return Text(group.metric_label(key, wording))


def _value_and_interval(row: Row | None, won: bool, errors: Errors, wording: Wording) -> Text:
    if row is None:
        return Text("")
    error = errors.get(row["value"])
    value = Text(wording.value(row, error), style="bold" if won else "")
    rest = " ".join(part for part in (wording.interval(row, error), marks(row, won)) if part)
    return Text.assemble(value, f" {rest}" if rest else "")


def _paper_cells(group: Group, wording: Wording) -> dict[Any, str]:
    return {key: _first(rows, lambda row: paper_cell(row, wording)) for key, rows in group.overall.items()}


def _first(rows: Mapping[Column, Row], cell: Callable[[Row], str]) -> str:
    return next((text for row in rows.values() if (text := cell(row))), "")
