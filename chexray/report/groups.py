"""Rows put in order for a table: what shares a table, what is a column in it, and what a line is called."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from chexray.grouping import grouped
from chexray.outputs import output_of
from chexray.report.wording import arrow
from chexray.results.decisions import Verdict, decide, method_params
from chexray.results.identity import fingerprint, set_name
from chexray.results.rows import ABSENT, Row, params_of, suite_of
from chexray.results.standing import direction
from chexray.results.verdicts import told_apart

Column = tuple[str, str]
"""A synthetic set as one run saw it: (synthetic_set, run_id)."""
Key = tuple[str, str, int]
"""A line of a table: (metric, params, ordinal). params and ordinal only where one set has the metric several times."""


@dataclass
class Group:
    """Rows that share a table: one real set, encoder with weights and protocol, of one suite.

    options: those of the encoder, as in `EncoderSpec.options_in_words`.
    subsets: {subset: {key: {column: row}}}, in the order of the rows.
    """

    real_set: str
    encoder: str
    weights: str
    protocol: str
    columns: list[Column]
    suite: str = ABSENT["suite"]
    options: str = ""
    subsets: dict[str, dict[Key, dict[Column, Row]]] = field(default_factory=dict)

    @property
    def overall(self) -> dict[Key, dict[Column, Row]]:
        """The lines over all images."""
        return self.subsets.get("all", {})

    def title(self) -> str:
        """The heading."""
        weights = f" ({self.weights})" if self.weights not in ("", "none") else ""
        parts = [self.suite, f"real: {set_name(self.real_set)}"]
        parts += [f"synthetic: {self.label(self.columns[0])}"] if len(self.columns) == 1 else []
        parts += [f"encoder: {self.encoder_label}{weights}", f"protocol: {self.protocol}"]
        return " · ".join(parts)

    @property
    def encoder_label(self) -> str:
        return encoder_label(self.encoder, self.options)

    @property
    def rows(self) -> Iterator[Row]:
        """Every row, of all subsets."""
        return (row for lines in self.subsets.values() for rows in lines.values() for row in rows.values())

    def label(self, column: Column) -> str:
        """The set's name, with as much of fingerprint and run as it takes to tell the columns apart."""
        return column_label(column, self.columns)

    def row_of(self, key: Key) -> Row:
        """The first row of a line, in whichever subset."""
        return next(row for lines in self.subsets.values() for row in lines.get(key, {}).values())

    def metric_label(self, key: Key) -> str:
        """`kid ↓`: the name and the direction in which it gets better."""
        return f"{self.metric_name(key)}{arrow(direction(self.row_of(key)))}"

    def metric_name(self, key: Key) -> str:
        """`kid`; with the params that tell it apart, `precision (k=5)`, where the metric is there several times."""
        return f"{output_of(self.row_of(key)).label or key[0]}{self.variant(key)}"

    def variant(self, key: Key) -> str:
        """` (k=5)`, what tells a metric apart that is there several times; empty for the others."""
        metric, params, ordinal = key
        again = f" #{ordinal + 1}" if ordinal else ""
        return f"{self._told_apart(metric, params)}{again}"

    def winners(self, key: Key, subset: str = "all") -> tuple[Column, ...]:
        """The set whose interval overlaps that of no other, when all may be compared and all have the number.

        Several columns where they show one set.
        """
        return self._columns(self.verdict(key, subset).winners)

    def losers(self, key: Key, subset: str = "all") -> tuple[Column, ...]:
        """The sets that are worse than the best one, where that one is no winner."""
        found = self.verdict(key, subset)
        return () if found.winners else self._columns(found.worse)

    def verdict(self, key: Key, subset: str = "all") -> Verdict:
        """What `decide` says of a line; its names are the positions of the columns in it."""
        if (key, subset) not in self._verdicts:
            rows = self.subsets[subset][key]
            all_have_it = len(rows) == len(self.columns) > 1
            named = {str(self.columns.index(column)): row for column, row in rows.items()}
            self._verdicts[key, subset] = decide(named) if all_have_it else Verdict("")
        return self._verdicts[key, subset]

    def _columns(self, names: Iterable[str]) -> tuple[Column, ...]:
        return tuple(self.columns[int(name)] for name in names)

    @cached_property
    def _verdicts(self) -> dict[tuple[Key, str], Verdict]:
        return {}

    def _told_apart(self, metric: str, params: str) -> str:
        if not params:
            return ""
        variants = [json.loads(text) for name, text, _ in self._keys if name == metric]
        said = told_apart(json.loads(params), variants)
        return f" ({', '.join(said)})" if said else ""

    @cached_property
    def _keys(self) -> list[Key]:
        return list(dict.fromkeys(key for lines in self.subsets.values() for key in lines))


def encoder_label(encoder: str, options: str) -> str:
    """`pixels side=64`; `none` for numbers without an encoder."""
    return f"{encoder} {options}".strip() or "none"


def column_label(column: Column, columns: Sequence[Column]) -> str:
    """The name of the column's set, with as much of fingerprint and run as tells it from the other columns."""
    names = [set_name(identity) for identity, _ in columns]
    identity, run = column
    name = set_name(identity)
    if names.count(name) > 1 and len({identity for identity, _ in columns if set_name(identity) == name}) > 1:
        name = f"{name}@{fingerprint(identity)[:8]}"
    if [identity for identity, _ in columns].count(identity) > 1:
        name = f"{name} (run {run})"
    return name


def group_rows(rows: Iterable[Row]) -> list[Group]:
    """Groups in the order in which rows first mention them."""
    fields = ("real_set", "encoder", "weights", "protocol", "weights_sha256", "encoder_revision")
    together = grouped(((*(row[name] for name in fields), suite_of(row)), row) for row in rows)
    return [_group(name, members) for name, members in together.items()]


def _group(name: tuple[str, ...], rows: list[Row]) -> Group:
    columns = list(dict.fromkeys((row["synthetic_set"], row["run_id"]) for row in rows))
    options = params_of(rows[0]).get("note_encoder") or ""
    group = Group(*name[:4], columns=columns, suite=name[-1], options=options)
    times = Counter((row["metric"], row["subset"], row["synthetic_set"], row["run_id"]) for row in rows)
    repeated = {cell[0] for cell, count in times.items() if count > 1}
    seen: Counter[tuple[Any, ...]] = Counter()
    for row in rows:
        column = (row["synthetic_set"], row["run_id"])
        method = (row["metric"], method_params(row) if row["metric"] in repeated else "")
        key = (*method, seen[row["subset"], column, method])
        seen[row["subset"], column, method] += 1
        group.subsets.setdefault(row["subset"], {}).setdefault(key, {})[column] = row
    return group
