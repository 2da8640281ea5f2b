"""Privacy rows put in order for their tables: by real set, then by family, then by encoder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from chexray.grouping import grouped
from chexray.outputs import Output, output_of
from chexray.report.cells import Errors, errors_of, floor_cell, n_text, n_words, value_cell
from chexray.report.document import EMPTY, Cell, Column, Grid, Line, Tone
from chexray.report.groups import Column as SetColumn
from chexray.report.groups import Group, Key, column_label, group_rows
from chexray.report.wording import arrow
from chexray.results.identity import set_name
from chexray.results.numbers import MISSING, count_text
from chexray.results.rows import Row, params_of
from chexray.results.verdicts import SetVerdict, encoder_names, encoder_of, set_verdicts

COUNTED = {"images": "n_synthetic", "prompts": "n_prompts"}
"""Unit of a count -> the field or param that holds how many there are in all."""


@dataclass(frozen=True)
class SetLine:
    """One number of one encoder over the synthetic sets."""

    group: Group
    key: Key
    rows: dict[SetColumn, Row]

    @property
    def first(self) -> Row:
        return next(iter(self.rows.values()))

    @property
    def output(self) -> Output:
        return output_of(self.first)

    @property
    def label(self) -> str:
        """`mean score (k=3) ↓`"""
        return f"{self.group.metric_name(self.key)}{arrow(self.output.better)}"


@dataclass(frozen=True)
class PrivacyTables:
    """The privacy rows of one real set under one protocol. columns: its synthetic sets. groups: one an encoder."""

    real_set: str
    protocol: str
    columns: list[SetColumn]
    groups: list[Group]

    @property
    def title(self) -> str:
        parts = ["privacy", f"training: {set_name(self.real_set)}"]
        parts += [f"synthetic: {self.label(self.columns[0])}"] if len(self.columns) == 1 else []
        return " · ".join([*parts, f"protocol: {self.protocol}", *([self.n] if self.n else [])])

    @property
    def rows(self) -> list[Row]:
        """Those over all images."""
        return [row for line in self.lines() for row in line.rows.values()]

    @cached_property
    def verdicts(self) -> list[SetVerdict]:
        """What each synthetic set was found to be."""
        return set_verdicts(self.rows)

    @cached_property
    def n(self) -> str:
        """The size that all numbers about a synthetic set share; empty where they differ."""
        return n_words([row for row in self.rows if not output_of(row).of_encoder])

    def label(self, column: SetColumn) -> str:
        """The synthetic set as people call it."""
        return column_label(column, self.columns)

    def encoder(self, group: Group) -> str:
        """The encoder's name, with weights that are random or that tell it from another one."""
        return self._encoders[encoder_of(next(group.rows))]

    @cached_property
    def _encoders(self) -> Mapping[tuple[str, ...], str]:
        return encoder_names(next(group.rows) for group in self.groups)

    def lines(self, *families: str, roles: Iterable[str] = (), group: Group | None = None) -> list[SetLine]:
        """The lines of these families and roles, or all, encoder by encoder; roles in the order asked for."""
        order = list(roles)
        found = []
        for each in self.groups if group is None else [group]:
            lines = [SetLine(each, key, rows) for key, rows in each.overall.items()]
            kept = [line for line in lines if not families or line.output.family in families]
            if order:
                kept = [line for line in kept if line.output.role in order]
                kept.sort(key=lambda line: order.index(line.output.role))
            found += kept
        return found

    def grid(
        self,
        lines: Sequence[SetLine],
        head: str,
        *,
        encoders: bool = False,
        beside: Sequence[Beside] = (),
        name: Callable[[SetLine], str] | None = None,
        tone: Tone = "",
    ) -> Grid:
        """One line a number, one column a synthetic set. encoders: in a column of their own. beside: further columns,
        left out where they have nothing to say. name: what a line is called, by default its label."""
        having = {column for line in lines for column in line.rows}
        sets = [column for column in self.columns if column in having]
        extras = [each for each in beside if any(each.cell(list(line.rows.values())).text for line in lines)]
        columns = [*([Column("encoder", once=True)] if encoders else []), Column(head)]
        for column in sets:
            size = "" if self.n else f"n = {n_text([line.rows[column] for line in lines if column in line.rows])}"
            columns.append(Column(self.label(column), under=size, alike=True))
        columns += [Column(each.head, align="right") for each in extras]
        shown = []
        for line in lines:
            cells = [Cell(self.encoder(line.group))] if encoders else []
            cells.append(Cell(name(line) if name else line.label))
            cells += [number_cell(line.rows.get(column)) for column in sets]
            cells += [each.cell(list(line.rows.values())) for each in extras]
            shown.append(Line(tuple(cells)))
        return Grid(tuple(columns), tuple(shown), tone)


@dataclass(frozen=True)
class Beside:
    """A column beside the numbers of a line."""

    head: str
    text: Callable[[Row, Errors], str]

    def cell(self, rows: Sequence[Row]) -> Cell:
        """What holds for the rows of a line: one text where the sets share it, `0.025 / 0.031` where they do not."""
        errors = errors_of(rows)
        texts = dict.fromkeys(text for row in rows if (text := self.text(row, errors)))
        return Cell(" / ".join(texts))


def floor_text(row: Row, errors: Errors) -> str:
    """`0.0252`; of a count `4.0`."""
    if row["real_floor"] is None:
        return ""
    return count_text(row["real_floor"]) if output_of(row).unit in COUNTED else floor_cell(row, errors).text


def number_cell(row: Row | None) -> Cell:
    """`0.539 [0.52, 0.56]`; of a count `434 of 2,000 [398, 471]`."""
    if row is None:
        return EMPTY
    unit = output_of(row).unit
    if unit not in COUNTED:
        return value_cell(row)
    if row["value"] is None:
        return Cell(MISSING)
    total = row.get(COUNTED[unit], params_of(row).get(COUNTED[unit]))
    text = f"{round(row['value']):,}" + ("" if total is None else f" of {total:,}")
    low, high = row["ci_low"], row["ci_high"]
    interval = "" if low is None or high is None else f"[{max(0, round(low)):,}, {round(high):,}]"
    return Cell(text, interval=interval, number=row["value"])


def tables_of(rows: Iterable[Row]) -> Iterator[PrivacyTables]:
    """In the order in which rows first mention their real set and protocol."""
    for (real_set, protocol), members in grouped(((row["real_set"], row["protocol"]), row) for row in rows).items():
        of_sets = [row for row in members if not output_of(row).of_encoder] or members
        columns = list(dict.fromkeys((row["synthetic_set"], row["run_id"]) for row in of_sets))
        yield PrivacyTables(real_set, protocol, columns, group_rows(members))
