"""What all metrics share: saying no in words, and what a perfect generator would score."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from chexray.errors import MetricError
from chexray.metrics.base import Output, Rows, Score
from chexray.stats.intervals import IntervalScale, Spread, interval
from chexray.stats.resampling import normal_interval, split_half
from chexray.stats.tails import heavy_tails

Values = dict[str, float]


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
    return [Score(output.name, None, output.better, status=status, reason=reason) for output in outputs]


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


def moments_error(added: Sequence[np.ndarray], method: str, scale: IntervalScale, real: Rows, synthetic: Rows) -> Error:
    """The error of a number that rests on means and covariances, which few images decide where tails are heavy."""
    tails = heavy_tails(("real", real.features, real.subjects), ("synthetic", synthetic.features, synthetic.subjects))
    spread = Spread.of(*added)
    return Error.of_spread(spread.widened() if tails else spread, method, scale, heavy_tails=tails)


def measured(
    output: Output,
    value: float,
    error: Error,
    floor: float | None = None,
    *,
    low: float | None = None,
    high: float | None = None,
    **params: Any,
) -> Score:
    """The Score of a number with its 95 % interval, clipped to [low, high]; None among `params` is left out.

    The interval is that of `error`: Student's on its scale, or normal. A missing error is told in
    params["std_error_reason"], heavy tails in params["ci_heavy_tails"] and params["note"]; a value that is not finite
    becomes a null.
    """
    if not math.isfinite(value):
        return nulls([output], "undefined", f"{output.name} is {value}: the features are too large for float64")[0]
    ci_low, ci_high = error.interval(value, low, high)
    kept = {name: param for name, param in params.items() if param is not None}
    if error.reason:
        kept["std_error_reason"] = error.reason
    if error.heavy_tails:
        kept["ci_heavy_tails"] = True
        kept["note"] = "; ".join(filter(None, (kept.get("note"), error.heavy_tails)))
    return Score(
        output.name,
        value,
        output.better,
        std_error=error.value,
        ci_low=ci_low,
        ci_high=ci_high,
        std_error_method=error.method,
        real_floor=floor,
        params=kept,
    )


Scale = Callable[[int, int, int, int], float]


def inverse_n(a: int, b: int, n_real: int, n_synthetic: int) -> float:
    """What brings a floor from sizes (a, b) to (n_real, n_synthetic) when the metric's bias is proportional to 1/n.

    Exact for a biased MMD. For the Fréchet distance from n = d on: 0.9 to 1.0 of the true floor, measured on spectra
    from k^-0.5 to k^-2; below n = d it falls to 0.65, and "rate" is the better choice.
    """
    return (1 / n_real + 1 / n_synthetic) / (1 / a + 1 / b)


def real_floor(
    values: Callable[[Rows, Rows], Values],
    real: Rows,
    n_synthetic: int,
    *,
    seed: int,
    repeats: int = 3,
    scale: Scale | Literal["rate"] | None = None,
    min_samples: int = 2,
) -> tuple[Values, str]:
    """The metric between halves of the real set that share no patient: {output: value}, and the method's name.

    values: the metric without its error, as {output: value}. Averaged over `repeats` seeded splits.
    scale: brings the value of the halves, which hold fewer images than the sets that were compared, to (n_real,
    n_synthetic): `inverse_n` where the bias goes as 1/n; "rate" where it goes as a power of 1/n, which halves of the
    halves then tell (a positive metric; 1.0 to 1.2 of the true floor for a Fréchet distance at n = 0.3 d to d); None
    for unbiased metrics, whose floor does not depend on n.
    Nothing, ({}, ""), when a half would hold fewer than `min_samples` images.
    """
    found, smaller = [], []
    u_half = u_quarter = 0.0
    for repeat in range(repeats):
        rng = np.random.default_rng([seed, repeat])
        a, b = (real.take(half) for half in split_half(len(real), real.subjects, rng))
        if min(len(a), len(b)) < max(1, min_samples):
            return {}, ""
        factor = scale(len(a), len(b), len(real), n_synthetic) if callable(scale) else 1.0
        found.append({name: factor * value for name, value in values(a, b).items()})
        if scale == "rate":
            c, d = (half.take(split_half(len(half), half.subjects, rng)[0]) for half in (a, b))
            if min(len(c), len(d)) < max(1, min_samples):
                return {}, ""
            smaller.append(values(c, d))
            u_half, u_quarter = 1 / len(a) + 1 / len(b), 1 / len(c) + 1 / len(d)
    floor = _mean(found)
    if scale is None:
        return floor, "real_halves"
    if scale != "rate":
        return floor, "real_halves_scaled"
    u = 1 / len(real) + 1 / n_synthetic
    for name, quarter in _mean(smaller).items():
        if floor[name] > 0 and quarter > 0 and u_quarter > u_half:
            rate = math.log(quarter / floor[name]) / math.log(u_quarter / u_half)
            floor[name] *= (u / u_half) ** min(max(rate, 0.0), 1.0)
    return floor, "real_halves_rate"


def real_reference(
    values: Callable[[Rows], Values],
    real: Rows,
    n_synthetic: int,
    *,
    seed: int,
    repeats: int = 3,
    min_samples: int = 2,
) -> tuple[Values, str]:
    """The floor of metrics that look at one set alone: the real set's own value at n_synthetic images.

    Averaged over `repeats` seeded subsamples; all real images, method "all_real", where there are not more of them than
    synthetic ones: their n is then smaller, which `n_real` beside the number shows.
    """
    if len(real) < max(1, min_samples):
        return {}, ""
    if len(real) <= n_synthetic:
        return dict(values(real)), "all_real"
    found = []
    for repeat in range(repeats):
        index = np.random.default_rng([seed, repeat]).choice(len(real), n_synthetic, replace=False)
        found.append(values(real.take(np.sort(index))))
    return _mean(found), "real_subsample"


def _mean(found: list[Values]) -> Values:
    return {name: sum(values[name] for values in found) / len(found) for name in found[0]}
