"""How well a score tells positives from negatives, and what a threshold on it costs.

A score above the threshold, strictly, counts as positive everywhere. Scores may be infinite, never NaN.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


def _checked(**scores: ArrayLike) -> list[np.ndarray]:
    """Each as float64. Raises ValueError when one is empty or holds NaN."""
    found = [np.asarray(values, dtype=np.float64) for values in scores.values()]
    for name, values in zip(scores, found, strict=True):
        if values.ndim != 1 or not len(values):
            raise ValueError(f"{name}: expected at least one score in one dimension, found shape {values.shape}")
        if np.isnan(values).any():
            raise ValueError(f"{name}: {np.isnan(values).sum()} of {len(values)} scores are NaN; drop them first")
    return found


def _placements(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The share of `others` below each value, ties counting half: (n,) float64."""
    ranked = np.sort(others)
    return (np.searchsorted(ranked, values, "left") + np.searchsorted(ranked, values, "right")) / (2 * len(others))


def roc_auc(positive: ArrayLike, negative: ArrayLike) -> float:
    """The probability that a positive scores above a negative, ties counting half; 0.5 for a useless score.

    The area under the ROC curve, as Mann and Whitney's U over n m. `positive` (n,), `negative` (m,); O(N log N).
    """
    positives, negatives = _checked(positive=positive, negative=negative)
    return float(_placements(positives, negatives).mean())


@dataclass(frozen=True)
class Roc:
    """Points of a ROC curve from (0, 0) to (1, 1), each (k,) float64: the shares of negatives and of positives above
    `threshold`, which falls from the largest score to -inf."""

    false_positive_rate: np.ndarray
    true_positive_rate: np.ndarray
    threshold: np.ndarray


def roc_curve(positive: ArrayLike, negative: ArrayLike, *, n_points: int = 400) -> Roc:
    """The ROC curve in at most `n_points` of its corners, at least 4: for plots, where all would be too many.

    Half of them are even along the curve, half in the logarithm of the false-positive rate, where thresholds are set.
    """
    positives, negatives = _checked(positive=positive, negative=negative)
    if n_points < 4:
        raise ValueError(f"n_points is {n_points}, expected at least 4")
    threshold = np.append(np.unique(np.concatenate([positives, negatives]))[::-1], -np.inf)
    false, true = ((len(z) - np.searchsorted(np.sort(z), threshold, "right")) / len(z) for z in (negatives, positives))
    false[-1] = true[-1] = 1.0  # a score of -inf is not above -inf, but the curve ends at (1, 1)
    if len(threshold) > n_points:
        along = np.searchsorted(false + true, np.linspace(0, 2, n_points - n_points // 2))
        by_rate = np.searchsorted(false, np.geomspace(1 / len(negatives), 1, n_points // 2 + 1)[:-1])
        keep = np.unique(np.concatenate([along, by_rate]).clip(0, len(threshold) - 1))
        false, true, threshold = false[keep], true[keep], threshold[keep]
    return Roc(false, true, threshold)


def false_positive_rate(negative: ArrayLike, threshold: float) -> float:
    """The share of negatives above the threshold."""
    (negatives,) = _checked(negative=negative)
    return float(np.mean(negatives > threshold))


def threshold_at_fpr(negative: ArrayLike, fpr: float) -> tuple[float, float]:
    """The smallest threshold that at most a share `fpr` of the negatives exceed, and the share that does exceed it.

    n negatives cannot support a rate below 1/n: a smaller `fpr` is taken as 1/n, which the caller sees in the second
    value. Ties make that value smaller than asked. -inf when every negative may exceed it.
    """
    (negatives,) = _checked(negative=negative)
    if not 0 <= fpr <= 1:
        raise ValueError(f"a false-positive rate of {fpr}, expected 0 to 1")
    n = len(negatives)
    allowed = max(1, math.floor(fpr * n * (1 + 1e-12)))  # 0.29 * 100 is 28.999999999999996
    threshold = -math.inf if allowed >= n else float(np.partition(negatives, n - 1 - allowed)[n - 1 - allowed])
    return threshold, float(np.mean(negatives > threshold))


def auc_std_error(
    positive: ArrayLike, negative: ArrayLike, positive_groups: ArrayLike, negative_groups: ArrayLike
) -> float:
    """Standard error of `roc_auc` when scores that share a patient are correlated.

    `positive_groups`, `negative_groups`: patient codes, common to both, (n,) for scores of one patient or (n, 2) for
    scores of pairs of images, which touch one patient or two. NaN with fewer than two patients; 0 where the scores
    separate the classes completely, which says only that this sample is too small to see the error.

    A score deviates by its placement among the other class (DeLong et al. 1988), summed by patient (Obuchowski 1997).
    Two scores are correlated when they share a patient, so the variance is sum_g S_g^2, S_g the sum over the scores
    that touch patient g, less what was counted twice: the sums of scores that share both patients (Cameron, Gelbach
    and Miller 2011; Aronow et al. 2015), times G/(G-1). That difference can fail to be positive with few patients;
    nothing is then subtracted, which errs on the side of a large error.
    """
    positives, negatives = _checked(positive=positive, negative=negative)
    touched = np.concatenate([_pairs(positive_groups, len(positives)), _pairs(negative_groups, len(negatives))])
    known, codes = np.unique(touched, return_inverse=True)
    n_groups = len(known)
    if n_groups < 2:
        return math.nan
    codes = np.sort(codes.reshape(-1, 2), axis=1)
    above, below = _placements(positives, negatives), 1 - _placements(negatives, positives)
    influence = np.concatenate([(above - above.mean()) / len(above), (below - below.mean()) / len(below)])
    two = codes[:, 0] != codes[:, 1]
    sums = np.bincount(codes[:, 0], weights=influence, minlength=n_groups)
    sums += np.bincount(codes[two, 1], weights=influence[two], minlength=n_groups)
    both = np.unique(codes[two, 0] * n_groups + codes[two, 1], return_inverse=True)[1].reshape(-1)
    shared = np.bincount(both, weights=influence[two])
    whole, twice = float(sums @ sums), float(shared @ shared)
    return math.sqrt(n_groups / (n_groups - 1) * (whole - twice if whole > twice else whole))


def _pairs(groups: ArrayLike, n: int) -> np.ndarray:
    """Patient codes as (n, 2), one patient twice for scores that touch only one."""
    groups = np.asarray(groups)
    if groups.shape not in ((n,), (n, 2)):
        raise ValueError(f"patient codes of shape {groups.shape} for {n} scores, expected ({n},) or ({n}, 2)")
    return groups if groups.ndim == 2 else np.stack([groups, groups], axis=1)


def mann_whitney_z(a: ArrayLike, b: ArrayLike) -> float:
    """Mann and Whitney's U as a standard normal score: positive when `a` tends to be larger than `b`.

    Normal approximation with the variance corrected for ties, no continuity correction; good from some 10 a side. 0
    when all values are equal. The statistic of the data-copying test C_T (Meehan et al. 2020).
    """
    first, second = _checked(a=a, b=b)
    n, m = len(first), len(second)
    ties = np.unique(np.concatenate([first, second]), return_counts=True)[1].astype(np.float64)
    total = n + m
    variance = n * m / 12 * (total + 1 - float(np.sum(ties**3 - ties)) / (total * (total - 1)))
    deviation = n * m * (float(_placements(first, second).mean()) - 0.5)
    return deviation / math.sqrt(variance) if len(ties) > 1 else 0.0
