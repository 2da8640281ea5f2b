"""What a search for copies, and a count of duplicates, decide of one synthetic set."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from chexray.results.numbers import count_text
from chexray.results.rows import Row, params_of

FALSE_ALARM = 0.025
"""Of runs without a copy: the level at which a p-value is significant."""

FAR_BELOW = 0.6
"""Of the baseline's lowest ratio: what older runs, which did not test it, take for far. It depends on the number of
images and on the dimension of the features: in up to 89 % of runs without a copy in three dimensions a ratio is below
it."""


@dataclass(frozen=True)
class CopyVerdict:
    """found: True, False, or None where nothing could be decided; reason: why."""

    found: bool | None
    reason: str = ""


@dataclass(frozen=True)
class CopySearch:
    """What the search for copies by one encoder found in one synthetic set. encoder: its name, with what tells it apart
    from others. share, excess: its rows."""

    encoder: str
    share: Row | None
    excess: Row | None

    @property
    def rows(self) -> list[Row]:
        return [row for row in (self.share, self.excess) if row is not None]

    @property
    def row(self) -> Row:
        """The row that has the most to say."""
        return next((row for row in self.rows if row["value"] is not None), self.rows[0])

    @cached_property
    def verdict(self) -> CopyVerdict:
        """Copies are found where the excess over chance is significant, all searches of the run allowed for."""
        excess = self.excess
        if excess is None or excess["value"] is None:
            return CopyVerdict(None, "its excess over chance is missing" if excess is None else excess["reason"])
        if excess["ci_low"] is None or excess["ci_high"] is None:
            return CopyVerdict(None, str(params_of(excess).get("std_error_reason") or "the excess has no interval"))
        # Without the word of the search, its own interval decides.
        return CopyVerdict(bool(params_of(excess).get("significant", excess["ci_low"] > 0)))

    @property
    def flagged(self) -> int | None:
        """Images flagged."""
        count = self._said("n_flagged")
        if count is None and self.share is not None and self.share["value"] is not None:
            count = self.share["value"] * self.row["n_synthetic"]
        return None if count is None else round(count)

    @property
    def expected(self) -> float | None:
        """Images that chance alone would flag."""
        expected, rate = self._said("n_expected"), self.false_positives
        return rate * self.row["n_synthetic"] if expected is None and rate is not None else expected

    @property
    def counts(self) -> str:
        """`24 of 400 images flagged, 4.0 expected by chance`"""
        flagged = "?" if self.flagged is None else f"{self.flagged:,}"
        expected = "?" if self.expected is None else count_text(self.expected)
        return f"{flagged} of {self.row['n_synthetic']:,} images flagged, {expected} expected by chance"

    @property
    def false_positives(self) -> float | None:
        """Share of unseen real images that the threshold flags."""
        attained = self._said("attained_alpha")
        return self._said("alpha") if attained is None else attained

    @property
    def p_value(self) -> float | None:
        """How often chance alone gives as much, all searches of the run allowed for; None where it was not tested."""
        return self._said("p_value")

    @property
    def outlier(self) -> tuple[float, float] | None:
        """(lowest ratio, lowest ratio of the baseline) where the first is so far below that the image must be looked
        at: by the run's own test (`chexray.privacy.outliers`), which 2.5 % of runs without a copy fail."""
        lowest, baseline, tested = (self._said(name) for name in ("lowest_ratio", "lowest_null_ratio", "outlier"))
        if lowest is None or baseline is None:
            return None
        return (lowest, baseline) if (lowest < FAR_BELOW * baseline if tested is None else tested) else None

    @property
    def lowest_id(self) -> str:
        """The image with the lowest ratio; empty in runs that did not say it."""
        return self._said("note_lowest_id") or ""

    @property
    def case_mix(self) -> tuple[float, float] | None:
        """(local dimensions about synthetic images, about real ones) where the case mix is shifted."""
        mine, real = self._said("local_dimension"), self._said("local_dimension_null")
        return (mine, real) if self._said("case_mix_shifted") and mine is not None and real is not None else None

    @property
    def explained(self) -> bool:
        """Whether a shift of case mix is all that keeps the flags from being significant."""
        alike, p_value = self._said("p_value_as_if_alike"), self.p_value
        return alike is not None and p_value is not None and alike <= FALSE_ALARM < p_value

    @property
    def unnoticed(self) -> float | None:
        """The largest share of copies that the result still agrees with; None where no interval tells.

        That is the upper end of the excess. Where fewer images are flagged than chance would, the set's own false
        positives are below nominal and cannot be subtracted: then it is the upper end of the share. One image can
        never be excluded.
        """
        above = next((row["ci_high"] for row in reversed(self.rows) if (row["ci_high"] or 0) > 0), None)
        return None if above is None else min(1.0, max(above, 1 / max(1, self.row["n_synthetic"])))

    def _said(self, name: str) -> Any:
        return next((found for row in self.rows if (found := params_of(row).get(name)) is not None), None)


@dataclass(frozen=True)
class Duplicated:
    """Duplicates of training images in one synthetic set. exact, near: their rows, None where not counted."""

    exact: Row | None = None
    near: Row | None = None

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
