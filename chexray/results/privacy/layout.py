"""The table of the privacy sections: one line a metric, the synthetic sets beside each other where they fit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.style import Style
from rich.table import Table
from rich.text import Text

from chexray.results.layout import errors_of, fits, floor_text, house_table, paper_cell
from chexray.results.privacy.groups import Audit, Line, n_text
from chexray.results.wording import Wording

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Extra:
    """A column beside the numbers. Left out where it has nothing to say."""

    header: str
    cell: Callable[[Row], str]
    field: str = ""
    """What the cell is made from: rows that have the same there share one text, the most precise."""
    is_floor: bool = False
    """Whether the cell is the plain floor, which is rounded alike in all rows of a line."""

    def among(self, row: Row, rows: Iterable[Row]) -> str:
        """The cell of one of the rows of a line."""
        return floor_text(row, errors_of(rows)) if self.is_floor else self.cell(row)

    def beside(self, rows: Iterable[Row]) -> str:
        """What stands beside several numbers of a line."""
        texts: dict[Any, str] = {}
        rows = list(rows)
        for row in rows:
            text = self.among(row, rows)
            what = row[self.field] if self.field else text
            if text and len(text) > len(texts.get(what, "")):
                texts[what] = text
        return " / ".join(dict.fromkeys(texts.values()))


def real_floor(wording: Wording) -> Extra:
    """What real images score in place of the synthetic ones."""
    return Extra("real\nfloor", floor_text, "real_floor", is_floor=True)


def papers_best(wording: Wording) -> Extra:
    """The paper's best, beside like only."""
    return Extra("paper's\nbest", lambda row: paper_cell(row, wording))


@dataclass(frozen=True)
class Matrix:
    """Lines under labels, and how their numbers are put. labels: one a line, as long as `lines`.

    encoders: one a line, a column of its own where it fits and headings where not; () for none. compact: a shorter
    cell, for sets beside each other that do not fit otherwise.
    """

    audit: Audit
    head: str
    lines: Sequence[Line]
    labels: Sequence[str]
    cell: Callable[[Row], str]
    extras: Sequence[Extra]
    wording: Wording
    style: str = ""
    encoders: Sequence[str] = ()
    compact: Callable[[Row], str] | None = None

    def fit(self, console: Console, width: int) -> Table:
        """Sets side by side when that fits `width`, below each other when not."""
        return self.choose(console, width)[0]

    def choose(self, console: Console, width: int) -> tuple[Table, bool]:
        """The table of `fit`, and whether its cells are the compact ones."""
        for cell in (self.cell, self.compact):
            for with_column in (True, False) if self.encoders else (False,):
                wide = None if cell is None else self._side_by_side(cell, with_column)
                if wide is not None and fits(wide, console, width):
                    return wide, cell is not self.cell
        return (self._side_by_side(self.cell, False) if len(self._columns) == 1 else self._stacked()), False

    @property
    def _columns(self) -> list[Any]:
        having = {column for line in self.lines for column in line.rows}
        return [column for column in self.audit.columns if column in having]

    @property
    def _extras(self) -> list[Extra]:
        return [
            extra for extra in self.extras if any(extra.cell(row) for line in self.lines for row in line.rows.values())
        ]

    def _table(self) -> Table:
        table = house_table(self.wording)
        table.style = Style.parse(self.style) if self.style else ""
        return table

    def _side_by_side(self, cell: Callable[[Row], str], with_column: bool) -> Table:
        """One row a metric. with_column: encoders in a column of their own."""
        table = self._table()
        # Where all numbers are of one n, the title has it.
        end = "" if self.audit.n else "\n"
        if with_column:
            table.add_column(Text(f"encoder{end}"), overflow="fold")
        table.add_column(Text(f"{self.head}{end}"), overflow="fold")
        for column in self._columns:
            rows = [line.rows[column] for line in self.lines if column in line.rows]
            size = f"{end}n = {n_text(rows)}" if end else ""
            table.add_column(Text(f"{self.audit.label(column, self.wording)}{size}"), overflow="fold")
        for extra in self._extras:
            table.add_column(Text(extra.header if end else extra.header.replace("\n", " ")), justify="right")
        for line, label, encoder in self._labelled():
            if encoder and not with_column:
                table.add_row(Text(encoder))
            cells = [cell(line.rows[column]) if column in line.rows else "" for column in self._columns]
            beside = [extra.beside(line.rows.values()) for extra in self._extras]
            table.add_row(*map(Text, (*([encoder] if with_column else []), label, *cells, *beside)))
        return table

    def _labelled(self) -> Iterable[tuple[Line, str, str]]:
        """(line, label, encoder), the encoder only where another one's lines begin."""
        before = ""
        for line, label, encoder in zip(self.lines, self.labels, self.encoders or [""] * len(self.lines), strict=True):
            yield line, label, "" if encoder == before else encoder
            before = encoder

    def _stacked(self) -> Table:
        """One row a metric and set, each with its own floor; n goes below, so that no value is broken."""
        table = self._table()
        if not self.audit.n:
            table.caption, table.caption_justify, table.caption_style = self._sizes(), "left", "dim"
        table.add_column(self.head, overflow="fold")
        table.add_column("synthetic set", overflow="fold")
        table.add_column("value", no_wrap=True)
        for extra in self._extras:
            table.add_column(Text(extra.header), justify="right")
        for line, label, encoder in self._labelled():
            if encoder:
                table.add_row(Text(encoder))
            for position, column in enumerate(column for column in self._columns if column in line.rows):
                row = line.rows[column]
                name = self.audit.label(column, self.wording)
                beside = [extra.among(row, line.rows.values()) for extra in self._extras]
                table.add_row(*map(Text, ("" if position else label, name, self.cell(row), *beside)))
        return table

    def _sizes(self) -> Text:
        """` n = 400 / 400 real / synthetic images`, set by set where they differ."""
        sizes: dict[str, list[str]] = {}
        for column in self._columns:
            rows = [line.rows[column] for line in self.lines if column in line.rows]
            sizes.setdefault(n_text(rows), []).append(self.audit.label(column, self.wording))
        parts = [f"{size} ({', '.join(names)})" if len(sizes) > 1 else size for size, names in sizes.items()]
        return Text(f" n real / synthetic = {', '.join(parts)}")


def value_and_interval(row: Row, wording: Wording) -> str:
    """`0.5390 [0.52, 0.56]`."""
    return " ".join(part for part in (wording.value(row), wording.interval(row)) if part)


def whole_interval(row: Row) -> str:
    """`[398, 471]`, the interval of a count."""
    if row["ci_low"] is None or row["ci_high"] is None:
        return ""
    return f"[{max(0, round(row['ci_low'])):,}, {round(row['ci_high']):,}]"


def scaled(row: Row, factor: float) -> dict[str, Any]:
    """The row in other units."""
    names = ("value", "std_error", "ci_low", "ci_high")
    return {**row, **{name: None if row[name] is None else factor * row[name] for name in names}}
