"""What the params of a row may be, by name, where results are read back: files may be damaged, or anybody's.

Tables, comparisons and notes round, count and format these values, and expect what the suites write. Params of other
names are a metric's own; they are only compared with each other, so they may be anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from chexray.text import quoted

NUMBERS = frozenset(
    {
        "all_negative", "attained_alpha", "ci_share", "false_positive_rate", "floor_ci_high", "floor_ci_low",
        "gap_by_chance", "p_value", "seeds", "share", "smallest_share_noticed", "smallest_share_noticed_power",
        "threshold_ratio", "z",
    }
)  # fmt: skip
TEXTS = frozenset(
    {
        "against", "best", "cannot_see", "floor_method", "floor_reason", "left_out_why", "network_differs", "note",
        "note_encoder", "note_lowest_id", "null", "pairs", "setting", "std_error_reason", "training_set", "weights_are",
        "worst",
    }
)  # fmt: skip
LISTS = frozenset({"copies_of_real_first", "counted_as_zero", "left_out", "note_flagged"})
COUNT = "n_"
"""What the names of counts begin with."""
BY_PART = "n_flagged_by"
"""{part of the filter: a count}"""


def check_params(params: Mapping[str, Any], suite: str, where: str) -> None:
    """Raises ValueError, naming the row and the param, for a value of another kind than its name promises."""
    for name, value in params.items():
        fits, expected = _kind(name, suite)
        if value is not None and not fits(value):
            raise ValueError(f"{where}: params.{name} is {quoted(value, 60)}, expected {expected}")


def _kind(name: str, suite: str) -> tuple[Callable[[Any], bool], str]:
    """(whether a value fits a param of this name, what it should be)"""
    if name == BY_PART:
        return lambda value: isinstance(value, Mapping) and all(map(_is_number, value.values())), "counts by part"
    if name in NUMBERS or name.startswith(COUNT) or (name == "threshold" and suite != "utility"):
        return _is_number, "a number"
    if name in TEXTS:
        return lambda value: isinstance(value, str), "text"
    if name == "threshold":
        return lambda value: isinstance(value, str) or _is_number(value), "a number or text"
    if name == "significant":
        return lambda value: isinstance(value, bool), "true or false"
    if name in LISTS:
        return lambda value: isinstance(value, list) and all(isinstance(item, str) for item in value), "a list of text"
    return lambda value: True, ""


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and abs(value) < 2**63 and math.isfinite(value)
