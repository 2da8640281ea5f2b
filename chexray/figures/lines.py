"""Rows of the curve and history tables, put together to the lines of a figure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

from chexray.errors import MetricError
from chexray.grouping import grouped

if TYPE_CHECKING:
    import pyarrow as pa

ORDER = ("real", "synthetic", "mixed", "augmented", "pretrain_synthetic_finetune_real", "as_is")
CURVE = ("setting", "synthetic_set", "kind", "subset", "seed", "x", "y", "low", "high", "n", "n_positive", "value")
EPOCH = ("setting", "synthetic_set", "seed", "phase", "epoch", "loss", "val_loss", "val_auroc")


@dataclass(frozen=True)
class Line:
    """One curve of one training. x, y, low, high: (k,) float64, NaN where null. n: (k,) images behind each point."""

    setting: str
    synthetic_set: str
    kind: str
    subset: str
    seed: int
    x: np.ndarray
    y: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n: np.ndarray
    n_positive: int
    value: float


@dataclass(frozen=True)
class Epochs:
    """The history of one training. phase: (k,) int64; loss, val_loss, val_auroc: (k,) float64, NaN where null."""

    setting: str
    synthetic_set: str
    seed: int
    phase: np.ndarray
    loss: np.ndarray
    val_loss: np.ndarray
    val_auroc: np.ndarray


class Drawn(Protocol):
    """What belongs to a setting and, but for settings without one, to a synthetic set."""

    @property
    def setting(self) -> str: ...

    @property
    def synthetic_set(self) -> str: ...


One = TypeVar("One", bound=Drawn)


def sets_of(drawn: Iterable[One], synthetic_set: str) -> list[One]:
    """Those of this synthetic set and of none."""
    return [one for one in drawn if one.synthetic_set in ("", synthetic_set)]


def settings_of(drawn: Iterable[Drawn]) -> list[str]:
    """Distinct settings: the real one first, mixed_10 before mixed_25 before augmented, unknown ones last."""

    def place(setting: str) -> tuple[int, float, str]:
        percent = re.fullmatch(r"mixed_(\d+)", setting)
        known = "mixed" if percent else setting
        rank = ORDER.index(known) if known in ORDER else len(ORDER)
        return rank, float(percent[1]) if percent else 50.0, setting

    return sorted({one.setting for one in drawn}, key=place)


def lines_of(curves: pa.Table) -> list[Line]:
    """The curves of the table; points keep the order of its rows. Raises MetricError for a table without a column."""
    lines = []
    for (setting, synthetic_set, kind, subset, seed), rows in _grouped(curves, CURVE, CURVE[:5]):
        points = {name: _floats(rows[name]) for name in ("x", "y", "low", "high")}
        positives, values = _floats(rows["n_positive"]), _floats(rows["value"])
        counts = np.nan_to_num(_floats(rows["n"])).astype(np.int64)
        n_positive = int(np.nan_to_num(positives[0]))
        lines.append(
            Line(setting, synthetic_set, kind, subset, seed, **points, n=counts, n_positive=n_positive, value=values[0])
        )
    return lines


def epochs_of(history: pa.Table | None) -> list[Epochs]:
    """One entry a training, its epochs sorted by phase and epoch."""
    if history is None:
        return []
    runs = []
    for key, rows in _grouped(history, EPOCH, EPOCH[:3]):
        order = np.lexsort([_floats(rows["epoch"]), _floats(rows["phase"])])
        values = {name: _floats(rows[name])[order] for name in ("loss", "val_loss", "val_auroc")}
        runs.append(Epochs(*key, phase=_floats(rows["phase"])[order].astype(np.int64), **values))
    return runs


def _floats(values: Sequence[object]) -> np.ndarray:
    """Nulls as NaN."""
    return np.array([np.nan if value is None else value for value in values], np.float64)


def _grouped(table: pa.Table, needed: Sequence[str], by: Sequence[str]) -> list[tuple[tuple, dict[str, list]]]:
    """(key, columns) for each distinct key, sorted; nothing of a table without rows, whatever its columns."""
    if not len(table):
        return []
    if missing := [name for name in needed if name not in table.column_names]:
        raise MetricError(f"no column {', '.join(missing)} in a table of curves or epochs given to the figures")
    columns = {name: table.column(name).to_pylist() for name in needed}
    keys = zip(*(columns[name] for name in by), strict=True)
    rows = grouped((key, row) for row, key in enumerate(keys))
    return [(key, {name: [columns[name][row] for row in rows[key]] for name in needed}) for key in sorted(rows)]
