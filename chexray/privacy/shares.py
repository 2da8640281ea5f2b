"""Intervals of shares of images, of what a share exceeds a false-positive rate by, and of quantiles.

Images of one patient, or synthetic images of one prompt, resemble each other. A share of n such images is as uncertain
as one of fewer independent images, and the exact intervals are taken at that number (Korn and Graubard 1998).
"""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import beta, binom

from chexray.stats.resampling import clustered_std_error

LEVEL = 0.95

Interval = tuple[float, float]


def effective_n(hit: np.ndarray, codes: np.ndarray | None) -> float:
    """How many independent images would give a share of `hit`, (n,) bool, the error that n images in clusters give it.

    n without codes, (n,) int64, and never more than n. The number of clusters where all or none are hit, as nothing
    then tells how alike a cluster is; 1 where there is one cluster.
    """
    n = len(hit)
    if codes is None or n == 0:
        return float(n)
    share = float(np.mean(hit))
    if share in (0.0, 1.0):
        return float(len(np.unique(codes)))
    error = clustered_std_error(hit, codes)
    if math.isnan(error):
        return 1.0
    return max(1.0, n * min(1.0, (share * (1 - share) / (n - 1)) / error**2)) if error > 0 else float(n)


def distinct_n(hit: np.ndarray, groups: np.ndarray | None) -> float:
    """How many of n images are independent when those among `hit` that share a group are one event repeated.

    n divided by the mean number of hits that a hit shares its group with, itself included: sum h_g^2 / sum h_g, the
    design effect of events of h_g hits (compound Poisson). n without groups, (n,) int64, or where every hit stands
    alone, whatever the groups of images that are not hit.
    """
    n = float(len(hit))
    if groups is None or not np.any(hit):
        return n
    hits = np.unique(groups[hit], return_counts=True)[1].astype(np.float64)
    return n * float(hits.sum() / (hits @ hits))


def share_interval(share: float, n: float, level: float = LEVEL) -> Interval:
    """The exact interval of Clopper and Pearson (1934) for a share of n independent images, n need not be whole."""
    hits, tail = share * n, (1 - level) / 2
    low = float(beta.ppf(tail, hits, n - hits + 1)) if hits > 0 else 0.0
    high = float(beta.ppf(1 - tail, hits + 1, n - hits)) if hits < n else 1.0
    return low, high


def rate_interval(rate: float, m: float, level: float = LEVEL) -> Interval:
    """Where the rate of false flags of one calibration lies: it follows Beta(rank, m + 1 - rank), rank = rate (m + 1).

    The threshold is an order statistic of m null values; this is its coverage, whatever their distribution.
    """
    if rate <= 0:
        return 0.0, 0.0
    rank, tail = rate * (m + 1), (1 - level) / 2
    low, high = beta.ppf([tail, 1 - tail], rank, m + 1 - rank)
    return float(low), float(high)


def excess_interval(share: float, n: float, rate: float, m: float, level: float = LEVEL) -> Interval:
    """The interval of share - rate from those of both, which are independent (MOVER, Zou and Donner 2008).

    Keeps the skewness of both: at 0 flagged of 40 images it is not a point, as a bootstrap of either side would be.
    """
    low, high = share_interval(share, n, level)
    least, most = rate_interval(rate, m, level)
    value = share - rate
    return value - math.hypot(share - low, most - rate), value + math.hypot(high - share, rate - least)


def quantile_interval(ordered: np.ndarray, q: float, n: float, level: float = LEVEL) -> tuple[float, float | None]:
    """The order statistics between which the q-quantile of the distribution lies (Conover 1999, 3.2).

    ordered: (N,) sorted, at least 0; n: how many independent values they are worth. The lower end is 0 where not
    even the smallest is below the quantile with enough confidence, the upper None where not even the largest is above.
    """
    tail, scale = (1 - level) / 2, len(ordered) / n
    low = math.floor(scale * binom.ppf(tail, math.floor(n), q))
    high = math.ceil(scale * (binom.ppf(1 - tail, math.floor(n), q) + 1))
    return (float(ordered[low - 1]) if low else 0.0), (float(ordered[high - 1]) if high <= len(ordered) else None)
