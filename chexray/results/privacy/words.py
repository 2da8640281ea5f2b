"""What a privacy number means, in words that promise no more than was measured.

"no copy found at this sensitivity" is the best verdict there is: a search that found nothing says what it would have
overlooked, and no search shows that a generator gives nobody away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chexray.results.grouping import Column
from chexray.results.privacy.groups import Audit, Line, Search
from chexray.results.privacy.names import DUPLICATES
from chexray.results.rows import params_of
from chexray.results.wording import Wording, number

Row = Mapping[str, Any]

NOT_FOUND = "no copy found at this sensitivity"
IDENTICAL = "the same as a training image"
WITHIN_CHANCE = "within chance"


@dataclass(frozen=True)
class Verdict:
    """found: True, False, or None when nothing could be decided. text: for a cell, and why there is no verdict."""

    found: bool | None
    text: str


def verdict(search: Search, wording: Wording) -> Verdict:
    """Copies are found when the excess over chance is significant, however many searches the audit made."""
    excess = search.excess
    if excess is None or excess["value"] is None:
        reason = wording.data(excess["reason"]) if excess is not None else "its excess over chance is missing"
        return Verdict(None, f"no verdict, {reason}")
    if excess["ci_low"] is None or excess["ci_high"] is None:
        reason = wording.data(params_of(excess).get("std_error_reason") or "the excess has no interval")
        return Verdict(None, f"no verdict, {reason}")
    # Without the word of the search, its own interval decides.
    significant = params_of(excess).get("significant", excess["ci_low"] > 0)
    return Verdict(True, "COPIES FOUND") if significant else Verdict(False, WITHIN_CHANCE)


def flagged(search: Search) -> str:
    """`20 of 400 images`."""
    count = "?" if search.flagged is None else f"{search.flagged:,}"
    return f"{count} of {search.row['n_synthetic']:,} images"


def expected(search: Search) -> str:
    """`4.0`, the images that chance would flag."""
    return "?" if search.expected is None else count_text(search.expected)


def unnoticed(search: Search) -> float | None:
    """The largest share of copies that the result still agrees with; None where no interval tells.

    That is the upper end of the excess. Where fewer images are flagged than chance would, the set's own false positives
    are below nominal and cannot be subtracted: then it is the upper end of the share. One image can never be excluded.
    """
    ends = [row["ci_high"] for row in (search.excess, search.share) if row is not None and row["ci_high"] is not None]
    above = next((end for end in ends if end > 0), None)
    return None if above is None else min(1.0, max(above, 1 / max(1, search.row["n_synthetic"])))


def percent(share: float, digits: int = 3) -> str:
    """`4.98 %`."""
    return f"{100 * share:.{digits}g} %"


def rate(search: Search) -> str:
    """`1 %`, the search's rate of false positives; empty where it is unknown."""
    return "" if search.false_positives is None else percent(search.false_positives, 2)


def count_text(count: float) -> str:
    """`4.0` or `1,234`: an expected count, which need not be whole."""
    if count >= 100:
        return f"{count:,.0f}"
    return f"{count:.1f}" if count >= 0.1 or count == 0 else number(count, count)


def plural(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def nobody(calibration: Sequence[Line], wording: Wording) -> list[str]:
    """That a network does not tell patients apart, with its AUC; [] where it does, or where that is unknown."""
    rows = (row for line in calibration if line.metric == "reid_auc" for row in line.rows.values())
    said = dict.fromkeys(str(params_of(row).get("recognises_nobody") or _no_better(row)) for row in rows)
    return [wording.data(text) for text in said if text]


def _no_better(row: Row) -> str:
    """The same from the interval alone, of a run that did not say it."""
    low = row["value"] if row["ci_low"] is None else row["ci_low"]
    if low is None or low > 0.5:
        return ""
    interval = "" if row["ci_low"] is None else f" [{row['ci_low']:.3f}, {row['ci_high']:.3f}]"
    return f"the network does not tell patients apart: AUC {row['value']:.3f}{interval} on real pairs, chance is 0.5"


@dataclass(frozen=True)
class Copied:
    """Rows about duplicates of training images in one synthetic set. exact, near: None where not counted."""

    exact: Row | None
    near: Row | None

    @property
    def identical(self) -> bool:
        """Whether any image equals a training image."""
        return self.exact is not None and bool(self.exact["value"])

    @property
    def unchecked(self) -> bool:
        """Whether there are near duplicates and no held-out images to tell how often real images are as near."""
        return self.near is not None and bool(self.near["value"]) and self.near["real_floor"] is None

    @property
    def nearly(self) -> bool:
        """Whether there are more near duplicates than chance explains: by the row's own test, else by its interval."""
        row = self.near
        if row is None or not row["value"] or row["real_floor"] is None:
            return False
        low = row["value"] if row["ci_low"] is None else row["ci_low"]
        return bool(params_of(row).get("significant", low > row["real_floor"]))

    @property
    def doubtful(self) -> bool:
        """Whether nobody may say that no copy was found."""
        return self.identical or self.nearly or self.unchecked


def copied(audit: Audit, column: Column) -> Copied:
    """The duplicates of training images in one set: where they were counted several times, the most."""

    def most(metric: str) -> Row | None:
        rows = [line.rows[column] for line in audit.lines(metric) if column in line.rows]
        return max(rows, key=lambda row: row["value"] or 0, default=None)

    return Copied(most("duplicates_exact_training"), most("duplicates_near_training"))


def count_of(row: Row) -> str:
    """`4 of 80`."""
    return f"{round(row['value']):,} of {row['n_synthetic']:,}"


def near_words(row: Row) -> str:
    is_are = "is" if round(row["value"]) == 1 else "are"
    chance = "" if row["real_floor"] is None else f", {count_text(row['real_floor'])} expected"
    return f"{is_are} {DUPLICATES['duplicates_near_training']}{chance}"
