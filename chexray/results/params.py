"""What a row's method and about may hold, by name, where results are read back: files may be damaged, or anybody's.

Tables, comparisons and notes round, count and format these values, and expect what the suites write. Other
names are a metric's own; they are only compared with each other, so they may be anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chexray.outputs import fits
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
        "against", "best", "cannot_see", "encoder_precision", "floor_method", "floor_reason", "left_out_why",
        "network_differs", "note", "note_card", "note_encoder", "note_lowest_id", "note_precision", "null", "pairs",
        "setting", "std_error_reason", "training_set", "weights_are", "worst",
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
        expected = _expected(name, suite)
        if value is not None and expected and not fits(value, expected, below=2.0**63):
            raise ValueError(f"{where}: {name} is {quoted(value, 60)}, expected {expected}")


def _expected(name: str, suite: str) -> str:
    """What a param of this name holds; empty for anything."""
    if name == "threshold":
        return "a number or text" if suite == "utility" else "a number"
    kinds = {"a number": NUMBERS, "text": TEXTS, "a list of text": LISTS, "true or false": ("significant",)}
    kinds |= {"counts by part": (BY_PART,)}
    known = next((kind for kind, names in kinds.items() if name in names), "")
    return known or ("a number" if name.startswith(COUNT) else "")
