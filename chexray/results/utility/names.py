"""Settings and numbers of the utility suite: what they are called, and which of their params are method."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from chexray.results.rows import params_of, suite_of
from chexray.results.wording import fingerprint

FAITHFULNESS = ("faithfulness_auroc", "faithfulness_auroc_macro")
"""About synthetic images under the classifier of the setting real: they test no training."""

ONE_EACH = "one training each"
"""In the note of a difference between two trainings, of which its interval knows no spread."""

TUNED = "tuned"
METHOD = ("setting", "threshold", "uncertain", "unmentioned", "recipe", "budget", "training_set", "against")
"""Params two rows must share to be compared. All others tell how a number came out (seeds, n_presented, best ...)."""

DIFFER = {
    "setting": "setting",
    "threshold": "threshold",
    "uncertain": "label policy",
    "unmentioned": "label policy",
    "recipe": "training recipe",
    "budget": "training budget",
    "training_set": "training set",
    "against": "baseline",
}
"""METHOD in the words of a verdict."""

BUDGET = "images"
"""The budget of rows that name none: the usual one, which the first results did not write down."""

MEASURES = {
    "auroc": "AUROC",
    "average_precision": "average precision",
    "f1": "F1",
    "precision": "precision",
    "recall": "recall",
    "specificity": "specificity",
    "balanced_accuracy": "balanced accuracy",
    "brier": "Brier",
    "calibration_error": "calibration error",
}
"""What metrics measure, without their macro, micro or difference, in words."""

_MIXED = re.compile(r"mixed(?:_(\d{1,3}))?")
_SHORT = {"as_is": "as is", "pretrain_synthetic_finetune_real": "pretrain-finetune", "": "unnamed"}
_WHAT = {
    "real": "trained on real alone",
    "as_is": "as it came, not trained here,",
    "synthetic": "trained on synthetic alone",
    "augmented": "trained on real and synthetic",
    "pretrain_synthetic_finetune_real": "trained on synthetic, then on real",
}
_LEGEND = {
    "as_is": "as is: the weights as they came, nothing is trained",
    "synthetic": "synthetic: no real image",
    "augmented": "augmented: all real and all synthetic images",
    "pretrain_synthetic_finetune_real": "pretrain-finetune: synthetic images first, then real ones",
}
_ORDER = ("real", "as_is", "synthetic", "mixed", "augmented", "pretrain_synthetic_finetune_real")


def setting_name(setting: str) -> str:
    """`mixed 25 %`: a setting in a table."""
    share = replaced(setting)
    return _SHORT.get(setting, setting) if share is None else f"mixed {share} %"


def setting_words(setting: str) -> str:
    """`trained on real, 25 % of it replaced by synthetic`: a setting in a sentence."""
    share = replaced(setting)
    if share is not None:
        return f"trained on real, {'half' if share == 50 else f'{share} %'} of it replaced by synthetic"
    return _WHAT.get(setting, f"setting {setting or 'unnamed'}")


def setting_legend(settings: list[str]) -> list[str]:
    """What the settings mean that do not explain themselves, each once."""
    known = [_LEGEND[setting] for setting in settings if setting in _LEGEND]
    if any(replaced(setting) is not None for setting in settings):
        known.append("mixed: that share of the real images replaced by synthetic ones")
    return known


def setting_order(setting: str) -> tuple[int, int, str]:
    """Sort key: real first, then from synthetic alone to more and more ways of adding to real."""
    share = replaced(setting)
    kind = "mixed" if share is not None else setting
    return (_ORDER.index(kind) if kind in _ORDER else len(_ORDER), -(share or 0), setting)


def replaced(setting: str) -> int | None:
    """Per cent of the real images that `mixed` (half) or `mixed_25` replaces; None for other settings."""
    match = _MIXED.fullmatch(setting)
    return None if match is None else int(match[1] or 50)


def threshold_of(params: Mapping[str, Any]) -> str:
    """`tuned`, `0.5`, or empty for numbers that need no threshold."""
    return str(params.get("threshold", ""))


def method_of(params: Mapping[str, Any]) -> dict[str, Any]:
    """The params of METHOD, the training set by its fingerprint: what it is called does not matter."""
    kept = {name: params[name] for name in METHOD if name in params}
    kept.setdefault("budget", BUDGET)
    if "training_set" in kept:
        kept["training_set"] = fingerprint(str(kept["training_set"]))
    return kept


def line_params(text: str) -> dict[str, Any]:
    """The params of a line of `compare`, the first where its runs differ."""
    try:
        found = json.JSONDecoder().raw_decode(text)[0]
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def single_trainings(row: Mapping[str, Any]) -> bool:
    """Whether the row is of one training, or of the difference between two: its interval lacks their spread.

    Never so for `as_is`, which nothing trains, nor for what fidelity and privacy measure. Between trainings that differ
    in their seed alone, 33 % of such intervals exclude 0 for AUROC macro and 80 % for Brier (measured).
    """
    params = params_of(row)
    if suite_of(row) != "utility" or (params.get("setting") == "as_is" and ONE_EACH not in str(params.get("note", ""))):
        return False
    return int(params.get("seeds") or 1) < 2 or ONE_EACH in str(params.get("note", ""))
