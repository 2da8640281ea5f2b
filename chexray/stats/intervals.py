"""95 % intervals from what each independent unit adds to an estimate: few units, skewed units, heavy tails.

Every error of this package is a sum over independent units (patients, images, or blocks of them) of how far each moves
the value. `value +- 1.96 std_error` covers less than 95 % when few units carry most of that sum: the error is then
itself uncertain, and it is small in the same draws as the value. So the sums keep three numbers: the standard error,
the degrees of freedom of its square (Satterthwaite's, from the kurtosis of the units), and the skewness of the value,
which sends one end of the interval farther out (Johnson 1978). The scale follows the kind of number.

What the intervals of each metric cover was measured by tests/calibration/intervals.py and stands in its docstring.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Literal

import numpy as np
from scipy.special import stdtrit

from chexray.stats.resampling import independent_units, within

Z = NormalDist().inv_cdf(0.975)

IntervalScale = Literal["linear", "signed", "log", "count", "share"]
"""How the error of a number grows with the number.

linear: not at all. signed: in proportion above 0, but the number may fall below 0 (an unbiased KID). log: in
proportion, above 0 (a Fréchet distance). count: as its root, a mean of counts that may be 0 (density). share: as a
binomial's, between 0 and 1.
"""

FEWEST_FREEDOM = 2.0
"""Student's quantile is 4.3 there. A sum that rests on one unit estimates 2 degrees of freedom, never fewer."""

FEWEST_FREEDOM_OF_COUNTS = 5.0
"""Of counts and shares the law of the variance is known, so its estimate matters less: beside exact binomial intervals
one hit in 64 would end at 0.32 with 2 degrees of freedom, at 0.16 with 5, and at 0.08 exactly."""


@dataclass(frozen=True)
class Spread:
    """How uncertain a value is: `std_error`, its degrees of `freedom`, the `skewness` of the value over draws.

    std_error is NaN when a side has fewer than two units.
    """

    std_error: float
    freedom: float = math.inf
    skewness: float = 0.0

    def widened(self) -> Spread:
        """With as few degrees of freedom as a single unit gives: where tails are too heavy for an error."""
        return replace(self, freedom=min(self.freedom, FEWEST_FREEDOM))

    @classmethod
    def of(cls, *sides: np.ndarray) -> Spread:
        """Of a value that moves with the sums of independent `sides`, each (G,) what its units add, with mean 0."""
        variance = fourth = third = 0.0
        for added in sides:
            g = len(added)
            if g < 2:
                return cls(math.nan)
            part = g / (g - 1) * float(added @ added)
            if part == 0 or not math.isfinite(part):
                variance += part
                continue
            skewness, excess = _shape(added / math.sqrt(part))
            # Var(s^2) / s^4 of a sample of g units with this excess kurtosis; normal units leave g - 1 degrees.
            fourth += part**2 * max(excess / g + 2 / (g - 1), 2 / (g - 1)) / 2
            third += part**1.5 * skewness / math.sqrt(g)
            variance += part
        if variance == 0 or not math.isfinite(variance):
            return cls(math.sqrt(variance) if math.isfinite(variance) else math.nan)
        freedom = max(variance**2 / fourth, FEWEST_FREEDOM)
        return cls(math.sqrt(variance), freedom, third / variance**1.5)


def _shape(added: np.ndarray) -> tuple[float, float]:
    """Skewness and excess kurtosis of (G,) numbers with mean 0, with the corrections that remove their bias for normal
    numbers (Joanes and Gill 1998); 0 where G is too small for one."""
    g = len(added)
    square = float(added @ added) / g
    skewness = float((added**3).sum()) / g / square**1.5
    kurtosis = float((added**4).sum()) / g / square**2
    skewness *= math.sqrt(g * (g - 1)) / (g - 2) if g > 2 else 0.0
    excess = (g - 1) / ((g - 2) * (g - 3)) * ((g + 1) * kurtosis - 3 * (g - 1)) if g > 3 else 0.0
    return skewness, excess


def added_by_unit(influence: np.ndarray, subjects: np.ndarray | None = None) -> np.ndarray:
    """(G,) what each patient (image, without patients) adds to the mean of `influence`, (n,) float: their sum is 0.

    The root of G/(G-1) times the sum of its squares is `resampling.clustered_std_error`.
    """
    influence = np.asarray(influence, dtype=np.float64)
    codes, groups = independent_units(len(influence), subjects)
    return np.bincount(codes, weights=influence - influence.mean(), minlength=groups) / len(influence)


def added_by_block(value: float, left_out: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(K,) what each block adds, from the values without it, (K,), and its number of images: a jackknife.

    (n - size)/n (value - value without the block) is centred by its share of images, so that a bias proportional to
    1/n, which a larger block shifts farther, is not taken for scatter (Busing, Meijer and van der Leeden 1999). With
    blocks of one and of two of 30 images the plain jackknife of a Fréchet distance was up to 4 times too large.
    """
    sizes = np.asarray(sizes, dtype=np.float64)
    n = sizes.sum()
    moved = (n - sizes) / n * (value - np.asarray(left_out, dtype=np.float64))
    return moved - sizes / n * moved.sum()


def effective_units(n: int, subjects: np.ndarray | None) -> float:
    """Kish's effective number of patients, (sum of images)^2 / sum of squares; n without patients."""
    codes, _ = independent_units(n, subjects)
    sizes = np.bincount(codes)
    return float(n) ** 2 / float(sizes @ sizes) if n else 0.0


def interval(
    value: float,
    spread: Spread,
    scale: IntervalScale = "linear",
    *,
    low: float | None = None,
    high: float | None = None,
    step: float = 1.0,
) -> tuple[float, float]:
    """The 95 % interval of `value`, clipped to [low, high].

    step: what one more hit of one unit would add to a count or a share; only where there is none (or only hits) does
    the interval rest on it.
    """
    if scale in ("count", "share"):
        below, above = _score_interval(value, spread, scale, step)
    else:
        below, above = _skewed_interval(value, spread, scale)
    return within(below, low, high), within(above, low, high)


def student(freedom: float) -> float:
    """The 97.5 % quantile of Student's t."""
    return Z if math.isinf(freedom) else float(stdtrit(freedom, 0.975))


def _skewed_interval(value: float, spread: Spread, scale: IntervalScale) -> tuple[float, float]:
    t, error = student(spread.freedom), spread.std_error
    # The quantiles of (estimate - truth) / error shift by (2 t^2 + 1)/6 skewness to first order. Only the end that
    # moves out is moved: the skewness of few units is an underestimate, and no reason to trust the other end more.
    shift = (2 * t * t + 1) / 6 * spread.skewness * error
    below, above = value - t * error + min(shift, 0.0), value + t * error + max(shift, 0.0)
    if value > 0 and scale != "linear":
        reach = t * error / value
        if scale == "log":
            below = value * math.exp(-reach)
        reach = min(reach, 3.0 if scale == "log" else 1.0)
        above += value * (math.exp(reach) - 1 - reach)
    return below, above


def _score_interval(value: float, spread: Spread, scale: IntervalScale, step: float) -> tuple[float, float]:
    """Wilson's (1927) interval, and its like for counts: the values whose own error would reach the estimate.

    (value - m)^2 = t^2 step m for counts, and t^2 step m (1 - m) for shares, `step` such that the error at the value is
    the standard error: 1/step is the effective number of images.
    """
    t = student(max(spread.freedom, FEWEST_FREEDOM_OF_COUNTS))
    rest = 1 - value if scale == "share" else 1.0
    if value > 0 and rest > 0 and spread.std_error > 0:
        step = spread.std_error**2 / (value * rest)
    else:
        t = Z
    widened = t * t * step
    half = math.sqrt(widened) * math.sqrt(max(value * rest + widened / 4, 0.0))
    bend = 1 + widened if scale == "share" else 1.0
    centre = value + widened / 2
    return (centre - half) / bend, (centre + half) / bend
