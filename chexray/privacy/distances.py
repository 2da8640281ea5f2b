"""Distances to training as other tools report them: nearer than held-out images, quantiles, and a share below them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from chexray.metrics.base import Score
from chexray.metrics.common import Error, Floor, measured, nulls
from chexray.outputs import Output
from chexray.privacy.outputs import BELOW, CLOSER
from chexray.privacy.ratio import HELD_OUT, RatioTest, calibrated
from chexray.privacy.shares import effective_n, quantile_interval, share_interval
from chexray.stats.resampling import clustered_std_error


@dataclass(frozen=True)
class MatchedReferences:
    """Distances of the synthetic images to equally many training and held-out images: the larger set is subsampled.

    to_training, to_heldout: (n,) float64. n_training, n_heldout: images in the two reference sets; unequal ones decide
    the share by themselves. training_row, heldout_row: (n,) int64 rows of the nearest ones, or None. One reference
    image near many synthetic ones sways them together; with the rows that is in the error, without them the error is
    some 20 % too small (Monte Carlo: 1.0 to 1.3 times, 300 and 1,000 images in 16 and 256 dimensions).
    """

    to_training: np.ndarray
    to_heldout: np.ndarray
    n_training: int
    n_heldout: int
    training_row: np.ndarray | None = None
    heldout_row: np.ndarray | None = None


def closer_to_training(test: RatioTest, matched: MatchedReferences | None, prompts: np.ndarray | None) -> Score:
    """The share of synthetic images nearer to a training image than to a held-out one, ties counted half."""
    if matched is None:
        reason = "no held-out images" if test.null != HELD_OUT else "no distances to reference sets of equal size"
        return nulls([CLOSER], "undefined", reason)[0]
    if matched.n_training != matched.n_heldout:
        reason = (
            f"{matched.n_training} training and {matched.n_heldout} held-out images: the larger set would win without "
            "any copy, subsample it"
        )
        return nulls([CLOSER], "undefined", reason)[0]
    near, far = (np.asarray(side, dtype=np.float64) for side in (matched.to_training, matched.to_heldout))
    closer = (near < far) + 0.5 * (near == far)
    value, n = float(closer.mean()), len(closer)
    errors = [math.sqrt(max(value * (1 - value), 0.25 / n) / n)]
    at_half, method = [math.sqrt(0.25 / n)], "binomial"
    if matched.training_row is not None and matched.heldout_row is not None:
        nearer = np.where(near <= far, matched.training_row, -1 - matched.heldout_row)
        errors.append(clustered_std_error(closer, nearer))
        sums = np.unique(nearer, return_inverse=True)[1].reshape(-1)
        at_half.append(math.sqrt(float(np.sum(np.bincount(sums, weights=closer - 0.5) ** 2))) / n)
        method = "clustered"
    if prompts is not None:
        errors.append(clustered_std_error(closer, prompts))
        method = "clustered"
    error = Error.of(float(np.nanmax(errors)), method)
    about = {"cannot_see": CLOSER.cannot_see, "n_reference": matched.n_training, "z": (value - 0.5) / max(at_half)}
    return measured(CLOSER, value, error, Floor(0.5), about=about)


def distance_quantile(
    output: Output,
    q: float,
    distances: np.ndarray,
    null: np.ndarray,
    subjects: np.ndarray | None,
    prompts: np.ndarray | None,
    method: dict[str, Any],
) -> Score:
    """The q-quantile of (n,) distances to the nearest training image; floor: that of (m,) of the null."""
    ordered = np.sort(np.asarray(distances, dtype=np.float64))
    value = float(np.quantile(ordered, q))
    low, high = quantile_interval(ordered, q, effective_n(distances < value, prompts))
    interval = None if high is None else (min(low, value), max(high, value))
    about: dict[str, Any] = {"n_null": len(null), "floor_method": f"{method['null']} images to training"}
    if len(ordered) * q < 1:
        about["note"] = f"{len(ordered)} images are too few for a {q:.0%} quantile: this is near the smallest distance"
    floor = _quantile_of_patients(null, q, subjects)
    return with_interval(output, value, interval, "order_statistics", floor, {**method, "quantile": q}, about)


def _quantile_of_patients(values: np.ndarray, q: float, subjects: np.ndarray | None) -> float:
    """The q-quantile of (m,) values where each patient weighs the same, however many images it has: NumPy's (linear)
    with one image a patient."""
    if subjects is None:
        return float(np.quantile(values, q))
    _, codes, sizes = np.unique(subjects, return_inverse=True, return_counts=True)
    order = np.argsort(values, kind="stable")
    weight = (1 / sizes[codes.reshape(-1)[order]]) / len(sizes)
    # Each value sits in the middle of its weight, the first and the last at the ends: for equal weights, i / (m - 1).
    place = np.cumsum(weight) - 0.5 * weight
    place = (place - place[0]) / (place[-1] - place[0]) if len(values) > 1 else place
    return float(np.interp(q, place, values[order]))


def below_null(
    test: RatioTest,
    distances: np.ndarray,
    null: np.ndarray,
    subjects: np.ndarray | None,
    prompts: np.ndarray | None,
    method: dict[str, Any],
) -> Score:
    """The share of (n,) distances below all but alpha of (m,) those of the null."""
    found = calibrated(np.asarray(distances, dtype=np.float64), null, test.alpha_asked, subjects)
    share, rate = float(found.flagged.mean()), found.attained_alpha
    interval = share_interval(share, effective_n(found.flagged, prompts))
    about = {"n_null": len(null), "attained_alpha": rate, "threshold_distance": found.threshold}
    return with_interval(BELOW, share, interval, "clopper_pearson", rate, method, about)


def with_interval(
    output: Output,
    value: float,
    interval: tuple[float, float] | None,
    how: str,
    floor: float,
    method: dict[str, Any],
    about: dict[str, Any],
) -> Score:
    """The number with an interval found by `how`, or without; what it cannot see is told beside it."""
    low, high = interval or (None, None)
    return Score(
        output, value, ci_low=low, ci_high=high, std_error_method=how if interval else "", real_floor=floor,
        method=method, about={"cannot_see": output.cannot_see, **about},
    )  # fmt: skip
