"""What one number is worth beside another: its direction, its floor, and what keeps it from being called better.

A number can be good for bad reasons. Where n is small it mainly reflects n. Better than what other real images
get, it speaks of copies or of too little variety. With copies of the real images among the synthetic ones, it measures
those copies. Such a number is shown, and never called better.
"""

from __future__ import annotations

import math
from statistics import NormalDist

from chexray.outputs import output_of
from chexray.results.rows import ABSENT, Row, bias_dominated, params_of, suite_of

Z = 1.96
"""Errors of a floor that a claim allows for, as the 95 % interval of a number does."""

COPIES = "n_copies_of_real"
"""The param that counts synthetic images with the pixels of a real image of the same comparison."""


def is_fidelity(row: Row) -> bool:
    return suite_of(row) == ABSENT["suite"]


def direction(row: Row) -> str:
    """lower, higher, or floor where the number nearest to its real floor is the best; empty where none is better."""
    return "floor" if output_of(row).nearest_to_floor else row["better"]


def floor_interval(row: Row) -> tuple[float, float] | None:
    """The 95 % interval of the row's floor, a point where its error is not known; None without a floor."""
    floor = row.get("real_floor")
    if floor is None:
        return None
    half = Z * (row.get("real_floor_std_error") or 0.0)
    return floor - half, floor + half


def beyond_floor(row: Row) -> str:
    """`better` or `worse`, where the number is beyond what a perfect generator gets; empty where it is not, or unknown.

    As the row says. Rows of older runs do not: there it is `better` or `worse` where the whole interval lies beyond the
    floor. Of fidelity only: a privacy number below that of strangers is what one wishes for.
    """
    if not is_fidelity(row) or row["value"] is None:
        return ""
    if row.get("beyond_floor") or row.get("real_floor_std_error") is not None:
        return row.get("beyond_floor") or ""
    floor, low, high = floor_interval(row), row["ci_low"], row["ci_high"]
    if floor is None or low is None or high is None or not row["better"]:
        return ""
    lower = row["better"] == "lower"
    if high < floor[0]:
        return "better" if lower else "worse"
    if low > floor[1]:
        return "worse" if lower else "better"
    return ""


def n_copies(row: Row) -> int:
    """Synthetic images behind the row that have the pixels of a real image of the same comparison."""
    return int(params_of(row).get(COPIES) or 0)


def is_void(row: Row) -> str:
    """Why the number says nothing of how good the set is, or empty: copies, or better than other real images get."""
    if n_copies(row):
        return "holds copies of the real images"
    return "is beyond its real floor" if direction(row) != "floor" and beyond_floor(row) == "better" else ""


def barred(row: Row) -> str:
    """Why the number is never called better, or empty."""
    return is_void(row) or ("mainly reflects sample size" if bias_dominated(row) else "")


def loss(row: Row) -> float:
    """How far from the best end the number is: lower is better whatever the metric. inf without a floor to judge by."""
    if direction(row) == "floor":
        return abs(row["value"] - row["real_floor"]) if row["real_floor"] is not None else float("inf")
    return row["value"] if direction(row) == "lower" else -row["value"]


def beats(better: Row, worse: Row) -> bool:
    """Whether the 95 % interval of one number lies wholly on the better side of the other's; both rows have intervals.

    Where the nearest to the floor is better, a number b above the floor f is farther from it than a if b is above a and
    above 2f - a, its mirror image; below the floor likewise. So b's interval must lie beyond that of a, whose floor is
    the same, and beyond that of the mirror image, which has the floor's error twice.
    """
    if direction(better) == "lower":
        return better["ci_high"] < worse["ci_low"]
    if direction(better) == "higher":
        return better["ci_low"] > worse["ci_high"]
    spans = [span for row in (better, worse) if (span := floor_interval(row)) is not None]
    if len(spans) < 2:
        return False
    low, high = min(span[0] for span in spans), max(span[1] for span in spans)
    floor, half = (low + high) / 2, (high - low) / 2
    below, above = better["value"] - better["ci_low"], better["ci_high"] - better["value"]
    mirrored = 2 * floor - better["value"]
    is_above = worse["ci_low"] > max(better["ci_high"], mirrored + math.hypot(below, 2 * half))
    return is_above or worse["ci_high"] < min(better["ci_low"], mirrored - math.hypot(above, 2 * half))


def is_worse(row: Row, than: Row, n_sets: int = 2) -> bool:
    """Whether the number may be called worse: apart from the other, and not by its bias alone.

    Of two numbers that mainly reflect sample size, the larger one may be of the more varied set; it is worse only where
    it is also beyond its floor, which a perfect generator is not. n_sets: how many were compared, of which `than` is
    the best one: the best and the worst of many equal sets are far apart, so intervals are stretched from 5 sets on, by
    Bonferroni over all pairs. Simulated (tests/calibration/winners.py): among 2 to 30 equal sets some set is called
    worse in at most 5 % of draws, and better in at most 1 %.
    """
    level = 0.05 / (n_sets * (n_sets - 1))
    factor = max(1.0, NormalDist().inv_cdf(1 - level) * math.sqrt(2) / (2 * Z)) if n_sets > 2 else 1.0
    apart = beats(stretched(than, factor), stretched(row, factor))
    return apart and (not bias_dominated(row) or beyond_floor(row) == "worse")


def stretched(row: Row, factor: float) -> Row:
    """The row with an interval `factor` times as wide on either side of its value."""
    value, low, high = row["value"], row["ci_low"], row["ci_high"]
    ends = {"ci_low": value - factor * (value - low), "ci_high": value + factor * (high - value)}
    return row if factor == 1.0 else {**row, **ends}
