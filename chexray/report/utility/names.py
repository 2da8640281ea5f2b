"""Settings of the utility suite: what they are called, and in which order they stand."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

TUNED = "tuned"
"""In place of a threshold: tuned on validation images, one a finding."""

_MIXED = re.compile(r"mixed(?:_(\d{1,3}))?")
_KNOWN = {
    "real": ("real", "real alone", ""),
    "as_is": ("as is", "as it came, not trained here", "the weights as they came, nothing is trained"),
    "synthetic": ("synthetic", "synthetic alone", "no real image"),
    "mixed": ("", "", "that share of the real images replaced by synthetic ones"),
    "augmented": ("augmented", "real and synthetic", "all real and all synthetic images"),
    "pretrain_synthetic_finetune_real": (
        "pretrain-finetune", "synthetic, then real", "synthetic images first, then real ones",
    ),
}  # fmt: skip
"""Setting, in the order of tables -> what a table calls it, it in words, and what it means where that is not plain."""


def setting_name(setting: str) -> str:
    """`mixed 25 %`: a setting in a table."""
    share = replaced(setting)
    known = _KNOWN[setting][0] if setting in _KNOWN else setting or "unnamed"
    return known if share is None else f"mixed {share} %"


def setting_words(setting: str) -> str:
    """`real, 25 % of it replaced by synthetic`: a setting in words."""
    share = replaced(setting)
    if share is not None:
        return f"real, {'half' if share == 50 else f'{share} %'} of it replaced by synthetic"
    return _KNOWN[setting][1] if setting in _KNOWN else f"setting {setting or 'unnamed'}"


def setting_legend(settings: list[str]) -> list[str]:
    """What the settings mean that do not explain themselves, each once."""
    kinds = dict.fromkeys(sorted(map(_kind, settings), key=lambda kind: kind == "mixed"))
    return [f"{_KNOWN[kind][0] or kind}: {_KNOWN[kind][2]}" for kind in kinds if kind in _KNOWN and _KNOWN[kind][2]]


def setting_order(setting: str) -> tuple[int, int, str]:
    """Sort key: real first, then from synthetic alone to more and more ways of adding to real."""
    order, kind = list(_KNOWN), _kind(setting)
    return (order.index(kind) if kind in order else len(order), -(replaced(setting) or 0), setting)


def _kind(setting: str) -> str:
    return setting if replaced(setting) is None else "mixed"


def replaced(setting: str) -> int | None:
    """Per cent of the real images that `mixed` (half) or `mixed_25` replaces; None for other settings."""
    match = _MIXED.fullmatch(setting)
    return None if match is None else int(match[1] or 50)


def threshold_of(params: Mapping[str, Any]) -> str:
    """`tuned`, `0.5`, or empty for numbers that need no threshold."""
    return str(params.get("threshold", ""))


def line_params(text: str) -> dict[str, Any]:
    """The params of a line of `compare`, the first where its runs differ."""
    try:
        found = json.JSONDecoder().raw_decode(text)[0]
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
