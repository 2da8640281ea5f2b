"""What utility rows may claim: a difference to the baseline, a gap beyond chance, findings that images do not show."""

from __future__ import annotations

from collections.abc import Iterable

from chexray.results.rows import Row, params_of, suite_of

UNTRAINED = "as_is"
"""The setting that trains nothing."""
ONE_EACH = "one training each"
"""In the note of a difference between two trainings, of which its interval knows no spread."""
FALSE_DISCOVERIES = 0.05
GOOD_FLOOR = 0.7
"""AUROC on real test images from which a classifier can be held against synthetic ones that it does not understand."""
CHANCE = 0.5


def single_trainings(row: Row) -> bool:
    """Whether the row is of one training, or of the difference between two: its interval lacks their spread.

    Never so for UNTRAINED, nor for what fidelity and privacy measure. Between trainings that differ in their seed
    alone, 33 % of such intervals exclude 0 for AUROC macro and 80 % for Brier (measured).
    """
    params = params_of(row)
    one_each = ONE_EACH in str(params.get("note", ""))
    if suite_of(row) != "utility" or (params.get("setting") == UNTRAINED and not one_each):
        return False
    return one_each or int(params.get("seeds") or 1) < 2


def excludes_zero(row: Row | None) -> bool:
    """Whether the row is a difference whose 95 % interval lies on one side of 0."""
    if row is None or row["value"] is None or row["ci_low"] is None or row["ci_high"] is None:
        return False
    return row["ci_low"] > 0 or row["ci_high"] < 0


def shows_difference(row: Row | None) -> bool:
    """Whether the row is a difference that may be claimed: its interval excludes 0 and holds trainings too."""
    return row is not None and excludes_zero(row) and not single_trainings(row)


def differing(rows: Iterable[Row]) -> set[str]:
    """The subsets of one training's differences by finding that differ, corrected for how many findings there are.

    Benjamini and Hochberg (1995): of the findings named over many trainings, 5 % are expected not to differ. Between
    equal settings some finding is named in 0 to 5 % of test sets, where single intervals name one in 25 to 47 %
    (tests/calibration/findings.py). Rows of before 0.2 have no p-value and go by their intervals.
    """
    known = [row for row in rows if row["ci_low"] is not None and not single_trainings(row)]
    p_values = {row["subset"]: p for row in known if (p := params_of(row).get("p_value")) is not None}
    if len(p_values) < len(known):
        return {row["subset"] for row in known if shows_difference(row)}
    ordered = sorted(p_values, key=p_values.__getitem__)
    within = [k for k, subset in enumerate(ordered, 1) if p_values[subset] <= k * FALSE_DISCOVERIES / len(ordered)]
    return set(ordered[: max(within, default=0)])


def beyond_chance(row: Row) -> bool:
    """Whether a gap is larger than picking the best and worst of equal groups explains. Never without an interval."""
    chance = params_of(row).get("gap_by_chance")
    return None not in (row["value"], row["ci_low"], chance) and row["value"] > chance


def not_shown(row: Row) -> bool:
    """Whether a finding that was asked for cannot be seen in the images, by a classifier that sees it in real ones.

    Its AUROC there is good, and its interval on synthetic images reaches down to chance and lies below its interval
    on real ones. Of few images the two overlap, and nothing is said.
    """
    floor, low, high = row["real_floor"], row["ci_low"], row["ci_high"]
    if row["value"] is None or floor is None or low is None or high is None:
        return False
    lowest = params_of(row).get("floor_ci_low")
    return floor >= GOOD_FLOOR and low <= CHANCE and high < (floor if lowest is None else lowest)
