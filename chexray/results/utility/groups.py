"""Utility rows put in order for their tables: by test set and model, then by training, then by what they measure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from chexray.results.grouping import Column, column_label
from chexray.results.rows import params_of
from chexray.results.utility.names import (
    FAITHFULNESS,
    method_of,
    setting_name,
    setting_order,
    single_trainings,
    threshold_of,
)
from chexray.results.wording import Wording, set_name

Row = Mapping[str, Any]

FINDING = "finding:"

_VARIES = ("recipe", "uncertain", "unmentioned", "training_set")


@dataclass(frozen=True)
class Training:
    """A setting on one synthetic set ("" for none) in one run. method: JSON of what else was chosen for it."""

    setting: str
    synthetic_set: str
    run_id: str
    method: str

    @property
    def column(self) -> Column:
        return self.synthetic_set, self.run_id


Cells = dict[Training, Row]


@dataclass(frozen=True)
class Study:
    """The utility rows of one test set, model with weights, and protocol.

    cells: {(metric, threshold, subset): {training: row}}. A number that is there twice is shown as it came last.
    """

    test_set: str
    model: str
    weights: str
    protocol: str
    cells: dict[tuple[str, str, str], Cells] = field(default_factory=dict)

    def get(self, metric: str, subset: str = "all", threshold: str = "") -> Cells:
        """The rows of a number by training; empty where nobody has it."""
        return self.cells.get((metric, threshold, subset), {})

    def subsets(self, metric: str) -> list[str]:
        """Subsets in which the metric is there, without "all", in the order of the rows."""
        return [subset for name, _, subset in self.cells if name == metric and subset != "all"]

    def rows(self, *metrics: str) -> list[Row]:
        """All rows, or those of some metrics."""
        return [row for (name, _, _), cells in self.cells.items() if not metrics or name in metrics
                for row in cells.values()]  # fmt: skip

    @cached_property
    def trainings(self) -> list[Training]:
        """Those without synthetic images first, then generator by generator, each in the order of settings."""
        found = dict.fromkeys(
            training for (name, _, _), cells in self.cells.items() if name not in FAITHFULNESS for training in cells
        )
        place = {column: position for position, column in enumerate(self.generators)}
        return sorted(found, key=lambda one: (place.get(one.column, -1), *setting_order(one.setting)))

    @cached_property
    def generators(self) -> list[Column]:
        """Synthetic sets that something was trained on or that was scored."""
        return list(dict.fromkeys(t.column for cells in self.cells.values() for t in cells if t.synthetic_set))

    def of(self, generator: Column | None) -> list[Training]:
        """The trainings on one generator's images; None for those without synthetic images."""
        return [t for t in self.trainings if (t.column == generator if generator else not t.synthetic_set)]

    def generator(self, column: Column, wording: Wording) -> str:
        """The generator as people call it."""
        return column_label(column, self.generators, wording)

    def name(self, training: Training, wording: Wording) -> str:
        """`mixed 25 %`, with what tells it from a training of the same setting on the same set."""
        return f"{wording.data(setting_name(training.setting))}{self.variant(training, wording)}"

    def variant(self, training: Training, wording: Wording) -> str:
        """` (recipe=0123456789)`, what tells it from a training of the same setting on the same set; mostly empty."""
        alike = [
            t for t in self.trainings if (t.setting, t.synthetic_set) == (training.setting, training.synthetic_set)
        ]
        methods = [json.loads(t.method) for t in alike]
        own = json.loads(training.method)
        said = [f"{name}={own[name]}" for name in own if any(other.get(name) != own[name] for other in methods)]
        # A run is in the name of a generator where it takes that.
        if not training.synthetic_set and len({t.run_id for t in alike}) > 1:
            said.append(f"run {training.run_id}")
        return f" ({wording.data(', '.join(said))})" if said else ""

    def title(self, wording: Wording) -> str:
        """`utility · test: nih · model: resnet50 (trained from scratch) · n = 222 test images`."""
        weights = "trained from scratch" if self.weights == "none" else wording.data(self.weights)
        training = _only(params_of(row).get("training_set") for row in self.rows())
        parts = ["utility", f"training: {wording.data(set_name(str(training)))}" if training else ""]
        parts += [f"test: {wording.data(set_name(self.test_set))}"]
        parts += [f"model: {wording.data(self.model) or 'none'}{f' ({weights})' if weights else ''}"]
        if len(self.generators) == 1:
            parts.append(f"synthetic: {self.generator(self.generators[0], wording)}")
        sizes = {row["n_real"] for row in self.get("auroc_macro").values() if row["status"] != "failed"}
        parts += [
            f"n = {sizes.pop():,} test images" if len(sizes) == 1 else "",
            f"protocol: {wording.data(self.protocol)}",
        ]
        return wording.own(" · ").join(part for part in parts if part)


def studies_of(rows: Iterable[Row]) -> list[Study]:
    """Studies in the order in which rows first mention their test set and model."""
    # The revision of a trained network is its recipe, which `Training` holds.
    names = ("real_set", "encoder", "weights", "protocol", "weights_sha256")
    together: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        together.setdefault(tuple(row[name] for name in names), []).append(row)
    return [_study(key, members) for key, members in together.items()]


def excludes_zero(row: Row | None) -> bool:
    """Whether the row is a difference whose 95% interval lies on one side of 0."""
    if row is None or row["value"] is None or row["ci_low"] is None or row["ci_high"] is None:
        return False
    return row["ci_low"] > 0 or row["ci_high"] < 0


def shows_difference(row: Row | None) -> bool:
    """Whether the row is a difference that may be claimed: its interval excludes 0 and holds trainings too."""
    return row is not None and excludes_zero(row) and not single_trainings(row)


def _study(key: tuple[str, ...], rows: list[Row]) -> Study:
    test_set, model, weights, protocol = key[:4]
    study = Study(test_set, model, weights, protocol)
    # A null may carry no more than its setting: it is of the training that other rows describe.
    described = {_where(row): _method(params_of(row)) for row in rows if _method(params_of(row)) != "{}"}
    for row in rows:
        params = params_of(row)
        method = _method(params)
        training = Training(*_where(row), described.get(_where(row), method) if method == "{}" else method)
        study.cells.setdefault((row["metric"], threshold_of(params), row["subset"]), {})[training] = row
    return study


def _where(row: Row) -> tuple[str, str, str]:
    return str(params_of(row).get("setting", "")), row["synthetic_set"], row["run_id"]


def _method(params: Mapping[str, Any]) -> str:
    return json.dumps({name: value for name, value in method_of(params).items() if name in _VARIES}, sort_keys=True)


def _only(values: Iterable[Any]) -> Any:
    """The value that all share which have one; None where they differ or none has."""
    found = {str(value) for value in values if value}
    return found.pop() if len(found) == 1 else None
