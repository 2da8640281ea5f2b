"""Utility rows put in order for their tables: by test set and model, then by training, then by what they measure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from chexray.grouping import grouped
from chexray.outputs import Output, output_of
from chexray.report.groups import Column, column_label
from chexray.report.utility.names import setting_name, setting_order, threshold_of
from chexray.report.utility.roles import CLASSIFICATION, DIFFERENCE, FAITHFULNESS, MACRO
from chexray.results.identity import fingerprint, set_name
from chexray.results.rows import Row, method_of, params_of
from chexray.results.verdicts import told_apart

_VARIES = ("recipe", "uncertain", "unmentioned", "training_set")


@dataclass(frozen=True)
class TrainingColumn:
    """A setting on one synthetic set ("" for none) in one run. method: JSON of what else was chosen for it."""

    setting: str
    synthetic_set: str
    run_id: str
    method: str

    @property
    def column(self) -> Column:
        return self.synthetic_set, self.run_id


Cells = dict[TrainingColumn, Row]


@dataclass(frozen=True)
class Number:
    """What a row measures. label: of the measure, such as AUROC; role: over what; family: see the declarations."""

    family: str
    role: str
    label: str
    threshold: str
    subset: str


@dataclass(frozen=True)
class UtilityTables:
    """The utility rows of one test set, model with weights, and protocol. A number that is there twice is shown as it
    came last."""

    test_set: str
    model: str
    weights: str
    protocol: str
    cells: dict[Number, Cells] = field(default_factory=dict)

    def get(self, role: str, label: str = "", subset: str = "all", threshold: str = "") -> Cells:
        """The rows of a number by training; empty where nobody has it. label: by default the headline's."""
        return self.cells.get(Number(CLASSIFICATION, role, label or self.headline, threshold, subset), {})

    @property
    def differences(self) -> Cells:
        """Of the headline to the baseline."""
        return self.get(DIFFERENCE)

    def subsets(self, role: str, family: str = CLASSIFICATION) -> list[str]:
        """Subsets in which the measure of the headline is there, without "all", in the order of the rows."""
        return [
            number.subset
            for number in self.cells
            if (number.family, number.role, number.label) == (family, role, self.headline) and number.subset != "all"
        ]

    def rows(self, *roles: str) -> list[Row]:
        """All rows, or those of the headline's measure in some roles."""
        return [
            row
            for number, cells in self.cells.items()
            if not roles or (number.family == CLASSIFICATION and number.role in roles and number.label == self.headline)
            for row in cells.values()
        ]

    @cached_property
    def headline(self) -> str:
        """The measure that comes first: of the macro number of the highest rank."""
        ranked = sorted(self.outputs(MACRO) or self.outputs(), key=lambda output: output.rank or 1_000)
        return ranked[0].label if ranked else ""

    def outputs(self, *roles: str) -> list[Output]:
        """The declarations of what is there, of all or of some roles, in their order of rank."""
        firsts = (next(iter(cells.values())) for cells in self.cells.values())
        known = dict.fromkeys(output_of(row) for row in firsts)
        return sorted((each for each in known if not roles or each.role in roles), key=lambda each: each.rank or 1_000)

    @cached_property
    def trainings(self) -> list[TrainingColumn]:
        """Those without synthetic images first, then generator by generator, each in the order of settings."""
        found = dict.fromkeys(
            training for number, cells in self.cells.items() if number.family != FAITHFULNESS for training in cells
        )
        place = {column: position for position, column in enumerate(self.generators)}
        return sorted(found, key=lambda one: (place.get(one.column, -1), *setting_order(one.setting)))

    @cached_property
    def generators(self) -> list[Column]:
        """Synthetic sets that something was trained on or that was scored."""
        return list(dict.fromkeys(t.column for cells in self.cells.values() for t in cells if t.synthetic_set))

    def generator(self, column: Column) -> str:
        """The generator as people call it."""
        return column_label(column, self.generators)

    def name(self, training: TrainingColumn) -> str:
        """`mixed 25 %`, with what tells it from a training of the same setting on the same set."""
        return f"{setting_name(training.setting)}{self.variant(training)}"

    def variant(self, training: TrainingColumn) -> str:
        """` (recipe=0123456789)`, what tells it from a training of the same setting on the same set; mostly empty."""
        alike = [
            t for t in self.trainings if (t.setting, t.synthetic_set) == (training.setting, training.synthetic_set)
        ]
        said = told_apart(json.loads(training.method), [json.loads(t.method) for t in alike])
        # A run is in the name of a generator where it takes that.
        if not training.synthetic_set and len({t.run_id for t in alike}) > 1:
            said.append(f"run {training.run_id}")
        return f" ({', '.join(said)})" if said else ""

    @property
    def title(self) -> str:
        """`utility · test: nih · model: resnet50 (trained from scratch) · n = 222 test images`."""
        weights = "trained from scratch" if self.weights == "none" else self.weights
        training = _only(params_of(row).get("training_set") for row in self.rows())
        parts = ["utility", f"training: {set_name(str(training))}" if training else ""]
        parts += [
            f"test: {set_name(self.test_set)}",
            f"model: {self.model or 'none'}{f' ({weights})' if weights else ''}",
        ]
        if len(self.generators) == 1:
            parts.append(f"synthetic: {self.generator(self.generators[0])}")
        sizes = {row["n_real"] for row in self.get(MACRO).values() if row["status"] != "failed"}
        parts += [f"n = {sizes.pop():,} test images" if len(sizes) == 1 else "", f"protocol: {self.protocol}"]
        return " · ".join(part for part in parts if part)


def tables_of(rows: Iterable[Row]) -> list[UtilityTables]:
    """In the order in which rows first mention their test set and model."""
    # The revision of a trained network is its recipe, which `TrainingColumn` holds.
    names = ("real_set", "encoder", "weights", "protocol", "weights_sha256")
    together = grouped((tuple(row[name] for name in names), row) for row in rows)
    return [_tables(key, members) for key, members in together.items()]


def baseline(cells: Cells) -> str:
    """The setting that differences are to: `real`."""
    return " or ".join(dict.fromkeys(str(params_of(row).get("against", "real")) for row in cells.values()))


def sizes_of(params: Mapping[str, Any]) -> tuple[int, int] | None:
    """(real, synthetic) training images; None where the row does not tell, or nothing was trained."""
    if "n_train_real" not in params and "n_train_synthetic" not in params:
        return None
    real, synthetic = (int(params.get(f"n_train_{side}") or 0) for side in ("real", "synthetic"))
    return (real, synthetic) if real or synthetic else None


def _tables(key: tuple[str, ...], rows: list[Row]) -> UtilityTables:
    test_set, model, weights, protocol = key[:4]
    tables = UtilityTables(test_set, model, weights, protocol)
    # A null may carry no more than its setting: it is of the training that other rows describe.
    described = {_where(row): method for row in rows if (method := _method(row)) != "{}"}
    for row in rows:
        params, output, method = params_of(row), output_of(row), _method(row)
        training = TrainingColumn(*_where(row), described.get(_where(row), method) if method == "{}" else method)
        number = Number(output.family, output.role, output.label or row["metric"], threshold_of(params), row["subset"])
        tables.cells.setdefault(number, {})[training] = row
    return tables


def _where(row: Row) -> tuple[str, str, str]:
    return str(params_of(row).get("setting", "")), row["synthetic_set"], row["run_id"]


def _method(row: Row) -> str:
    found = {name: value for name, value in method_of(row).items() if name in _VARIES}
    if "training_set" in found:  # what it is called does not matter
        found["training_set"] = fingerprint(str(found["training_set"]))
    return json.dumps(found, sort_keys=True)


def _only(values: Iterable[object]) -> str | None:
    """The value that all share which have one; None where they differ or none has."""
    found = {str(value) for value in values if value}
    return found.pop() if len(found) == 1 else None
