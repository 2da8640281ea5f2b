"""What all metrics share: saying no in words, and what a perfect generator would score."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from chexray.errors import MetricError
from chexray.metrics.base import Output, Rows, Score
from chexray.stats.intervals import IntervalScale, Spread, interval
from chexray.stats.resampling import normal_interval
from chexray.stats.tails import heavy_tails

Values = dict[str, float]

Z = 1.96
"""Of a normal 95 % interval."""

BETTER = 1.25
"""How much farther a number must lie to be called better than perfect. Without it 8 to 12 % of the KID and CMMD of
perfect generators are, at 20 real patients: jackknife errors of a statistic near its least value fall with it."""


def refusal(
    outputs: Sequence[Output],
    real: Rows,
    synthetic: Rows,
    min_samples: int,
    needs_real: bool = True,
    *,
    refuse_constant: bool = False,
    refuse_zero_rows: bool = False,
) -> list[Score] | None:
    """One null Score per output with status "too_few" or "undefined" and the reason, or None when all is well.

    Looks at both sides, at the synthetic one alone unless `needs_real`: fewer than `min_samples` images, NaN or
    infinite features, all rows equal (`refuse_constant`: where the metric is then undefined), a row of zeros
    (`refuse_zero_rows`: where rows are scaled to unit length). Raises MetricError when the two sides have features of
    different widths.
    """
    if needs_real and len(real) and len(synthetic) and real.features.shape[1] != synthetic.features.shape[1]:
        raise MetricError(
            f"real features are {real.features.shape[1]} wide and synthetic ones {synthetic.features.shape[1]}: "
            "both sides must come from one encoder and one output"
        )
    sides = [("real", real)] if needs_real else []
    for side, rows in [*sides, ("synthetic", synthetic)]:
        status, reason = _objection(side, rows, min_samples, refuse_constant, refuse_zero_rows)
        if reason:
            return nulls(outputs, status, reason)
    return None


def nulls(outputs: Sequence[Output], status: str, reason: str) -> list[Score]:
    """A null Score per output."""
    return [Score(output, None, status=status, reason=reason) for output in outputs]


def _objection(side: str, rows: Rows, min_samples: int, constant: bool, zero: bool) -> tuple[str, str]:
    n = len(rows)
    if n < min_samples:
        images = "image" if n == 1 else "images"
        return "too_few", f"{n} {side} {images}, and at least {min_samples} are needed"
    if n == 0:
        return "", ""
    # A finite sum proves all rows finite without an (n, d) mask; only a suspicious total is looked at row by row.
    with np.errstate(invalid="ignore"):
        total = float(rows.features.sum(dtype=np.float64))
    if not math.isfinite(total):
        bad = ~np.isfinite(rows.features).all(axis=1)
        if bad.any():
            first = rows.ids[int(np.argmax(bad))]
            return "undefined", f"NaN or infinite features in {int(bad.sum())} of {n} {side} images, first {first!s}"
    if constant and (rows.features == rows.features[0]).all():
        return "undefined", f"all {n} {side} images have the same features"
    if zero:
        empty = ~rows.features.any(axis=1)
        if empty.any():
            first = rows.ids[int(np.argmax(empty))]
            return "undefined", f"features all zero in {int(empty.sum())} of {n} {side} images, first {first!s}"
    return "", ""


@dataclass(frozen=True)
class Error:
    """A standard error and how it was found, or None and why there is none.

    spread: its degrees of freedom and the skewness, which shape the interval; without it the interval is normal.
    scale, step: see `stats.intervals.interval`. heavy_tails: what `stats.tails.heavy_tails` says of the features.
    """

    value: float | None = None
    method: str = ""
    reason: str = ""
    spread: Spread | None = None
    scale: IntervalScale = "linear"
    step: float = 1.0
    heavy_tails: str = ""

    @classmethod
    def of(cls, value: float, method: str) -> Error:
        """NaN is what the estimators of `stats.resampling` return for a single patient."""
        if math.isfinite(value):
            return cls(value, method)
        return cls(reason="all images of a side are of one patient: there is nothing to estimate an error from")

    @classmethod
    def of_spread(cls, spread: Spread, method: str, scale: IntervalScale = "linear", *, heavy_tails: str = "") -> Error:
        """The error of a value that moves by what independent units add, and the scale of its interval."""
        error = cls.of(spread.std_error, method)
        if error.value is None:
            return error
        return replace(error, spread=spread, scale=scale, heavy_tails=heavy_tails)

    def interval(self, value: float, low: float | None, high: float | None) -> tuple[float | None, float | None]:
        """The 95 % interval of `value` within [low, high]; (None, None) without an error."""
        if self.value is None:
            return None, None
        if self.spread is None:
            return normal_interval(value, self.value, low=low, high=high)
        return interval(value, self.spread, self.scale, low=low, high=high, step=self.step)


def moments_error(
    added: Sequence[np.ndarray],
    method: str,
    scale: IntervalScale,
    real: Rows,
    synthetic: Rows,
    *,
    std_error: float | None = None,
) -> Error:
    """The error of a number that rests on means and covariances, which few images decide where tails are heavy.

    std_error: where it is not that of `added` alone, whose shape then tells how far it can be trusted.
    """
    tails = heavy_tails(("real", real.features, real.subjects), ("synthetic", synthetic.features, synthetic.subjects))
    spread = Spread.of(*added)
    if std_error is not None:
        spread = replace(spread, std_error=std_error)
    return Error.of_spread(spread.widened() if tails else spread, method, scale, heavy_tails=tails)


ROUNDING = 1e-9
"""Relative error below which float64 sums of floors differ by their order alone."""


@dataclass(frozen=True)
class Floor:
    """What a perfect generator would get and how far that may be off, or None and why it is not known.

    spread: the standard error that its number would have, where that is known from the real images.
    """

    value: float | None = None
    std_error: float | None = None
    method: str = ""
    reason: str = ""
    spread: float = 0.0

    @classmethod
    def of(cls, value: float, std_error: float, method: str, spread: float = 0.0) -> Floor:
        """None of it where a number is not finite; an error that is rounding alone is 0."""
        if math.isfinite(value) and math.isfinite(std_error):
            return cls(value, std_error if std_error > ROUNDING * abs(value) else 0.0, method, spread=spread)
        return cls(reason="too few real images or patients to know it")


NO_FLOOR = Floor()
"""Of a number whose floor was not asked for."""


def measured(
    output: Output,
    value: float,
    error: Error,
    floor: Floor = NO_FLOOR,
    *,
    low: float | None = None,
    high: float | None = None,
    method: Mapping[str, Any] | None = None,
    about: Mapping[str, Any] | None = None,
) -> Score:
    """The Score of a number with its 95 % interval, clipped to [low, high]; None in `method` and `about` is left out.

    low, high: the ends of the output's range by default.
    The interval is that of `error`: Student's on its scale, or normal. A missing error is told in
    about["std_error_reason"], a missing floor in about["floor_reason"], heavy tails in about["ci_heavy_tails"] and
    about["note"]; a value that is not finite becomes a null.
    """
    if not math.isfinite(value):
        return nulls([output], "undefined", f"{output.name} is {value}: the features are too large for float64")[0]
    ends = output.low if low is None else low, output.high if high is None else high
    ci_low, ci_high = error.interval(value, *ends)
    reasons = {"std_error_reason": error.reason, "floor_method": floor.method, "floor_reason": floor.reason}
    kept = _known(about)
    kept |= {name: text for name, text in reasons.items() if text}
    if error.heavy_tails:
        kept["ci_heavy_tails"] = True
        kept["note"] = "; ".join(filter(None, (kept.get("note"), error.heavy_tails)))
    return judged(
        Score(
            output, value, std_error=error.value, ci_low=ci_low, ci_high=ci_high, std_error_method=error.method,
            real_floor=floor.value, real_floor_std_error=floor.std_error, method=_known(method), about=kept,
        ),
        floor.spread,
    )  # fmt: skip


def _known(given: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (given or {}).items() if value is not None}


def judged(score: Score, spread: float = 0.0) -> Score:
    """The score with its `beyond_floor`: "better" or "worse" where value and floor differ by more than 1.96 errors.

    The error of the difference is that of the floor and that of the value, as independent ones. For the value the
    largest counts of its standard error, its half interval on the side of the floor, and `spread`, the error that a
    perfect generator would have. "Better" takes a quarter more: a number that is good by chance has a small error, too.
    """
    value, floor, error = score.value, score.real_floor, score.std_error
    if value is None or floor is None or score.real_floor_std_error is None or error is None or not score.better:
        return score
    end = score.ci_low if value > floor else score.ci_high
    half = max(Z * error, Z * spread, 0.0 if end is None else abs(value - end))
    good = (value < floor) == (score.better == "lower")
    limit = math.hypot(half, Z * score.real_floor_std_error) * (BETTER if good else 1.0)
    beyond = abs(value - floor) > limit
    return replace(score, beyond_floor=("better" if good else "worse") if beyond else "")
