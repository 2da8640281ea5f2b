"""Rows put in order for a table: what shares a table, what is a column in it, and what a line is called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from chexray.results.deciding import Verdict, decide, method_params
from chexray.results.rows import ABSENT, params_of, suite_of
from chexray.results.standing import direction
from chexray.results.wording import Wording, fingerprint, set_name

Row = Mapping[str, Any]
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

    def title(self, wording: Wording) -> list[str]:
        """The parts of the heading."""
        weights = f" ({wording.data(self.weights)})" if self.weights not in ("", "none") else ""
        encoder = encoder_label(self.encoder, self.options, wording)
        parts = [f"real: {wording.data(set_name(self.real_set))}", f"encoder: {encoder}{weights}"]
        if len(self.columns) == 1:
            parts.insert(1, f"synthetic: {self.label(self.columns[0], wording)}")
        if self.suite != ABSENT["suite"]:
            parts.insert(0, wording.data(self.suite))
        return [*parts, f"protocol: {wording.data(self.protocol)}"]

    def label(self, column: Column, wording: Wording) -> str:
        """The set's name, with as much of fingerprint and run as it takes to tell the columns apart."""
        return column_label(column, self.columns, wording)

    def metric_label(self, key: Key, wording: Wording) -> str:
        """`kid ↓`: the name and the direction in which it gets better."""
        better = next(direction(row) for lines in self.subsets.values() for row in lines.get(key, {}).values())
        return f"{self.metric_name(key, wording)}{wording.arrow(better)}"

    def metric_name(self, key: Key, wording: Wording) -> str:
        """`kid`; with the params that tell it apart, `precision (k=5)`, where the metric is there several times."""
        return f"{wording.data(key[0])}{self.variant(key, wording)}"

    def variant(self, key: Key, wording: Wording) -> str:
        """` (k=5)`, what tells a metric apart that is there several times; empty for the others."""
        metric, params, ordinal = key
        again = f" #{ordinal + 1}" if ordinal else ""
        return f"{self._told_apart(metric, params, wording)}{again}"

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

    def _told_apart(self, metric: str, params: str, wording: Wording) -> str:
        if not params:
            return ""
        variants = [params_of({"params": text}) for name, text, _ in self._keys if name == metric]
        mine = params_of({"params": params})
        differing = [name for name in mine if any(other.get(name) != mine[name] for other in variants)]
        return f" ({', '.join(wording.data(f'{name}={mine[name]}') for name in differing)})" if differing else ""

    @cached_property
    def _keys(self) -> list[Key]:
        return list(dict.fromkeys(key for lines in self.subsets.values() for key in lines))


def encoder_label(encoder: str, options: str, wording: Wording) -> str:
    """`pixels side=64`; `none` for numbers without an encoder."""
    return wording.data(f"{encoder} {options}".strip()) or "none"


def options_of(row: Row) -> str:
    """The options of the row's encoder in words; empty in rows of versions that did not say them."""
    return params_of(row).get("note_encoder") or ""


def column_label(column: Column, columns: Sequence[Column], wording: Wording) -> str:
    """The name of the column's set, with as much of fingerprint and run as tells it from the other columns."""
    names = [set_name(identity) for identity, _ in columns]
    identity, run = column
    name = set_name(identity)
    if names.count(name) > 1 and len({identity for identity, _ in columns if set_name(identity) == name}) > 1:
        name = f"{name}@{fingerprint(identity)[:8]}"
    if [identity for identity, _ in columns].count(identity) > 1:
        name = f"{name} (run {run})"
    return wording.data(name)


def group_rows(rows: Iterable[Row]) -> list[Group]:
    """Groups in the order in which rows first mention them."""
    together: dict[tuple[str, ...], list[Row]] = {}
    fields = ("real_set", "encoder", "weights", "protocol", "weights_sha256", "encoder_revision")
    for row in rows:
        together.setdefault((*(row[name] for name in fields), suite_of(row)), []).append(row)
    return [_group(name, members) for name, members in together.items()]


def _group(name: tuple[str, ...], rows: list[Row]) -> Group:
    columns = list(dict.fromkeys((row["synthetic_set"], row["run_id"]) for row in rows))
    group = Group(*name[:4], columns=columns, suite=name[-1], options=options_of(rows[0]))
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
