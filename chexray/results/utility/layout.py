"""One line a finding or group, one column a training: as much of each number as the width holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from chexray.results.layout import fits, house_table
from chexray.results.utility.groups import Cells, Row, Study, Training
from chexray.results.wording import Wording

LABEL_WIDTH = 18
"""Holds "Cardiomediastinum"; longer names fold."""


@dataclass(frozen=True)
class Line:
    """label: of a finding or group. count: the images it rests on. cells: its numbers by training.

    marked: trainings whose number gets a star. kind: lines of different kinds are set apart.
    """

    label: str
    count: str
    cells: Cells
    marked: frozenset[Training] = frozenset()
    kind: str = ""


Cell = Callable[[Row], str]
Block = tuple[str, list[Training]]
"""Trainings that share a table, and what is written above it."""


@dataclass(frozen=True)
class Matrix:
    """Lines by trainings. head, count_head: over the labels and counts."""

    study: Study
    head: str
    count_head: str
    lines: Sequence[Line]
    wording: Wording

    def fit(self, console: Console, width: int) -> tuple[list[RenderableType], list[str]]:
        """(what to print, what to say of its numbers if they are without intervals).

        All trainings side by side where that fits, else a table a generator; intervals as long as either way does.
        """
        tables: list[tuple[str, Table]] = []
        cell = self._value
        for cell, blocks in self._choices():
            tables = [(heading, self._table(trainings, cell, not heading)) for heading, trainings in blocks]
            if all(fits(table, console, width) for _, table in tables):
                break
        parts: list[RenderableType] = []
        for heading, table in tables:
            parts += [*([Text(("\n" if parts else "") + heading)] if heading else []), table]
        without = ["intervals: see results.csv"] if cell != self._interval else []
        with_error = [self.wording.own("±  standard error")] if cell == self._error else []
        return parts, with_error + without

    @property
    def _trainings(self) -> list[Training]:
        return [training for training in self.study.trainings if any(training in line.cells for line in self.lines)]

    def _choices(self) -> Iterator[tuple[Cell, list[Block]]]:
        trainings = self._trainings
        alone = [training for training in trainings if not training.synthetic_set]
        by_generator = [
            (self.study.generator(column, self.wording), own)
            for column in self.study.generators
            if (own := [training for training in trainings if training.column == column])
        ]
        for cell in (self._interval, self._error, self._value):
            yield cell, [("", trainings)]
            if len(by_generator) > 1:
                yield cell, [(heading, [*alone, *own]) for heading, own in by_generator]
        blocks: list[Block] = [*([("without synthetic images", alone)] if alone else []), *by_generator]
        for count in range(max((len(own) for _, own in blocks), default=1), 0, -1):
            pieces = [(heading, own[at : at + count]) for heading, own in blocks for at in range(0, len(own), count)]
            yield self._value, pieces

    def _interval(self, row: Row) -> str:
        return f"{self.wording.value(row)} {self.wording.interval(row)}".rstrip()

    def _error(self, row: Row) -> str:
        return self.wording.value_and_error(row)

    def _value(self, row: Row) -> str:
        return self.wording.value(row)

    def _table(self, trainings: Sequence[Training], cell: Cell, with_generator: bool) -> Table:
        study, wording = self.study, self.wording
        table = house_table(wording)
        table.add_column(Text(self.head), overflow="fold", max_width=LABEL_WIDTH)
        table.add_column(Text(self.count_head), justify="right", overflow="fold")
        for training in trainings:
            name = study.name(training, wording).replace("pretrain-", "pretrain-\n")
            if with_generator and training.synthetic_set and len(study.generators) > 1:
                name = f"{study.generator(training.column, wording)}\n{name}"
            table.add_column(Text(name), overflow="fold")
        kind: Any = None
        for line in self.lines:
            if kind is not None and kind != line.kind:
                table.add_section()
            kind = line.kind
            cells = [self._text(line, training, cell) for training in trainings]
            table.add_row(Text(line.label), Text(line.count), *cells)
        return table

    def _text(self, line: Line, training: Training, cell: Cell) -> Text:
        row = line.cells.get(training)
        star = "*" if training in line.marked else ""
        return Text("" if row is None else f"{cell(row)}{star}", style="bold" if star else "")
