"""What may come back from the folder of a fit: each value is compared with what `run_fits` writes before it is used.

A folder lies in a store that others may write to, and a disk may damage it. Every check raises ValueError with what is
wrong, fit for the message that names the file and the folder to delete.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from chexray.encoders.checkpoints import table_of_tensors
from chexray.encoders.fields import Check, either, number, spreads, whole, word
from chexray.encoders.fields import means as three_numbers
from chexray.text import quoted, shown

if TYPE_CHECKING:
    from torch import nn

LONGEST_REASON = 2000

_finite = number(-1e300, 1e300)
_rate = number(0, 1e300)
_count = whole(0, 2**53)


def _nothing(value: object) -> None:
    if value is not None:
        raise ValueError("null")


_maybe = either(_nothing, _finite)
RATES = ("images_per_s", "input_images_per_s")
TIMED = (*RATES, "seconds")
"""What a clock measured: no two trainings agree in it."""


def _row_of(score: str) -> dict[str, Check]:
    """One epoch in history.json. score: of the head."""
    return {
        **dict.fromkeys(("phase", "epoch", "workers", "images"), _count),
        **dict.fromkeys(("lr", "loss"), _finite),
        **dict.fromkeys(RATES, _rate),
        **dict.fromkeys((f"val_{score}", "val_loss"), _maybe),
        "best_epoch": either(_nothing, _count),
        f"best_{score}": _maybe,
        "best_by": either(_nothing, word(score, "loss", "last")),
        "seconds": _rate,
    }


def untimed(rows: Sequence[Mapping[str, Any]], score: str) -> list[dict[str, Any]]:
    """The epochs without what a clock measured."""
    return [{key: row[key] for key in _row_of(score) if key in row and key not in TIMED} for row in rows]


def history_rows(value: object, score: str, *, epochs: int, phases: int, timed: bool = True) -> list[dict[str, Any]]:
    """One dict an epoch with the keys of `_row_of`, oldest first. epochs, phases: how many the fit has.

    timed: False for epochs from `untimed`, whose rates and times are then 0.
    """
    if not timed and isinstance(value, list):
        value = [{**row, **dict.fromkeys(TIMED, 0.0)} if isinstance(row, dict) else row for row in value]
    if not isinstance(value, list) or len(value) > epochs:
        raise ValueError(f"it is not a list of at most {epochs:,} epochs")
    rows = [_row(each, index, _row_of(score)) for index, each in enumerate(value)]
    reached = [row["phase"] for row in rows]
    if reached != sorted(reached) or any(phase >= phases for phase in reached):
        raise ValueError(f"its epochs are not in the order of {phases} phases")
    return rows


def _row(value: object, index: int, checks: Mapping[str, Check]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"epoch {index + 1} is a {type(value).__name__}, not an object")
    row = {key: _field(dict.get(value, key), check, key, index) for key, check in checks.items()}
    if row["epoch"] != index + 1:
        raise ValueError(f"epoch {row['epoch']} is in the place of epoch {index + 1}")
    return row


def _field(value: object, check: Check, key: str, index: int) -> Any:
    try:
        return check(value)
    except ValueError as error:
        raise ValueError(f"{key} of epoch {index + 1} is {quoted(value, 60)}; expected {error}") from None


def checkpoint(state: Mapping[str, Any], n_bytes: int, score: str, *, epochs: int, phases: int) -> dict[str, Any]:
    """checkpoint.pt: the state after an epoch. n_bytes: of the file."""
    need(state, "phase", "model", "best", "optimisation", "mean", "std", "history")
    history = history_rows(state["history"], score, epochs=epochs, phases=phases)
    if not history or history[-1]["phase"] != state["phase"]:
        raise ValueError("its phase is not that of its last epoch")
    mean, std = mean_std(state["mean"], state["std"])
    if not isinstance(state["optimisation"], dict):
        raise ValueError("it holds no state of an optimiser")
    best = _best(state["best"], n_bytes, history[-1]["best_epoch"], score)
    model = weights(state["model"], n_bytes)
    return {**state, "history": history, "mean": mean, "std": std, "model": model, "best": best}


def _best(value: object, n_bytes: int, epoch: int | None, score: str) -> dict[str, Any] | None:
    """The weights of the best epoch so far, which is number `epoch`; None where there is no such epoch yet."""
    if value is None and epoch is None:
        return None
    if not isinstance(value, dict):
        raise ValueError("its best weights are missing")
    need(value, "model", "epoch", "value", score)
    for key, check in (("epoch", whole(1, 2**53)), ("value", _finite), (score, _maybe)):
        try:
            check(value[key])
        except ValueError as error:
            raise ValueError(f"the {key} of its best weights is {quoted(value[key], 60)}; expected {error}") from None
    if value["epoch"] != epoch:
        raise ValueError(f"its best weights are of epoch {value['epoch']}, not {epoch}")
    return {**value, "model": weights(value["model"], n_bytes)}


def need(state: Mapping[str, Any], *keys: str) -> None:
    """Every one of these keys is there."""
    missing = [key for key in keys if key not in state]
    if missing:
        raise ValueError(f"it has no {missing[0]!r}")


def weights(state: object, n_bytes: int) -> dict[str, Any]:
    """A table of finite tensors."""
    try:
        return table_of_tensors(state, n_bytes)
    except ValueError as error:
        raise ValueError(f"it {error}") from None


def mean_std(mean: object, std: object) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """How images are normalised: three numbers each, the second above 0."""
    try:
        return tuple(float(v) for v in three_numbers(mean)), tuple(float(v) for v in spreads(std))
    except ValueError:
        raise ValueError("it does not say how to normalise images") from None


def reason(value: object) -> str:
    """failed-*.json: why a training came to an end."""
    if not isinstance(value, dict) or not isinstance(value.get("reason"), str):
        raise ValueError("it does not say why the training failed")
    return shown(value["reason"], LONGEST_REASON)


def optimisation(state: Mapping[str, Any], fresh: Mapping[str, Any], parameters: Sequence[nn.Parameter]) -> None:
    """The state of an optimiser fits the one it goes to. fresh: that of the same recipe before its first step.

    torch copies whatever it finds: moments of another shape fail later, and settings would replace the recipe's.
    """
    need(state, *fresh)
    stored, new = state["optimiser"], fresh["optimiser"]
    groups = stored.get("param_groups") if isinstance(stored, dict) else None
    if not isinstance(groups, list) or len(groups) != len(new["param_groups"]):
        raise ValueError("it has no groups of parameters")
    for found, wanted in zip(groups, new["param_groups"], strict=True):
        if not isinstance(found, dict) or found.get("params") != wanted["params"]:
            raise ValueError("it is of other parameters")
        number(0, 1e6)(found.get("lr"))
        for key in wanted.keys() - {"lr", "params"}:
            if key in found and not _equal(found[key], wanted[key]):
                raise ValueError(f"its {key} is not that of the recipe")
    moments = stored.get("state")
    if not isinstance(moments, dict) or not set(moments) <= set(range(len(parameters))):
        raise ValueError("its moments are of other parameters")
    for index, values in moments.items():
        _moments(values, parameters[index])
    _plain(state["scaler"], None)
    if "plateau" in fresh:
        _plain(state["plateau"], fresh["plateau"])


def _equal(found: object, wanted: object) -> bool:
    if isinstance(found, list | tuple) and isinstance(wanted, list | tuple):
        return len(found) == len(wanted) and all(_equal(a, b) for a, b in zip(found, wanted, strict=True))
    return isinstance(found, str | bool | int | float | None) and found == wanted


def _moments(values: object, parameter: nn.Parameter) -> None:
    import torch

    if not isinstance(values, dict) or not {"step", "exp_avg", "exp_avg_sq"} <= set(values):
        raise ValueError("the moments of a parameter are missing")
    for key, value in values.items():
        shape = () if key == "step" else tuple(parameter.shape)
        if type(value) is not torch.Tensor or tuple(value.shape) != shape or not value.is_floating_point():
            raise ValueError(f"its {shown(key, 40)} is not a tensor of shape {shape}")
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"its {shown(key, 40)} is not finite")


def _plain(state: object, fresh: Mapping[str, Any] | None) -> None:
    """Numbers, words and lists of numbers under the keys that a fresh state has: torch makes them its attributes."""
    known = {"scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker"}
    if not isinstance(state, dict) or not set(state) <= (known if fresh is None else set(fresh)):
        raise ValueError("it holds unknown settings")
    for key, value in state.items():
        like = 0.0 if fresh is None else fresh[key]
        if _kind(value) != _kind(like):
            raise ValueError(f"its {key} is {quoted(value, 60)}")


def _kind(value: object) -> str:
    if isinstance(value, list) and all(_kind(item) == "number" for item in value):
        return "numbers"
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return type(value).__name__
    return "number" if isinstance(value, int | float) and not math.isnan(value) else "other"
