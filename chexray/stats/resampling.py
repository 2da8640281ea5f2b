"""Errors of estimates whose images come in patients: clustered influence, delete-a-group jackknife, disjoint halves.

Images of one patient resemble each other, so patients, not images, are the independent units. Every function takes
`subjects`, (n,) int64 patient codes, or None when each image is its own unit.
"""

from __future__ import annotations

import heapq
import math
from statistics import NormalDist

import numpy as np


def independent_units(n: int, subjects: np.ndarray | None) -> tuple[np.ndarray, int]:
    """A code 0 .. G-1 per image naming its independent unit, and G."""
    if subjects is None:
        return np.arange(n), n
    if len(subjects) != n:
        raise ValueError(f"{len(subjects)} patient codes for {n} images")
    known, first, codes = np.unique(subjects, return_index=True, return_inverse=True)
    # Units are numbered as they appear: which integers the codes are, and what other sets share them, moves nothing.
    return np.argsort(np.argsort(first))[codes.reshape(-1)], len(known)


def clustered_std_error(influence: np.ndarray, subjects: np.ndarray | None = None) -> float:
    """Standard error of the mean of `influence`, (n,) float, robust to correlation within a patient.

    sqrt(G/(G-1) sum_g S_g^2) / n, S_g the sum over patient g of deviations from the mean (Liang and Zeger 1986, with
    the small-sample factor). Without patients this is s/sqrt(n). NaN when there are fewer than two patients.
    """
    influence = np.asarray(influence, dtype=np.float64)
    n = len(influence)
    codes, groups = independent_units(n, subjects)
    if groups < 2:
        return math.nan
    sums = np.bincount(codes, weights=influence - influence.mean(), minlength=groups)
    return math.sqrt(groups / (groups - 1) * float(sums @ sums)) / n


def normal_interval(
    value: float, std_error: float, *, level: float = 0.95, low: float | None = None, high: float | None = None
) -> tuple[float, float]:
    """`value` +- z `std_error`, clipped to the range [low, high] that the metric can take."""
    half = NormalDist().inv_cdf(0.5 + level / 2) * std_error
    below, above = value - half, value + half
    return within(below, low, high), within(above, low, high)


def within(value: float, low: float | None, high: float | None) -> float:
    """`value`, or the end of [low, high] that it lies beyond; None for an end that is open."""
    value = value if low is None else max(value, low)
    return value if high is None else min(value, high)


def _deal(n: int, subjects: np.ndarray | None, piles: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Whole patients dealt into `piles` of nearly equal image counts; each pile sorted.

    Patients are shuffled, then dealt from the largest to the smallest, each to the smallest pile so far: piles differ
    by at most one image as soon as there are some patients with a single image.
    """
    codes, groups = independent_units(n, subjects)
    order = rng.permutation(groups)
    if groups == n:
        pile_of_group = np.empty(groups, dtype=np.int64)
        pile_of_group[order] = np.arange(groups) % piles
    else:
        sizes = np.bincount(codes, minlength=groups)
        order = order[np.argsort(-sizes[order], kind="stable")]
        heap = [(0, int(pile), int(pile)) for pile in rng.permutation(piles)]
        heapq.heapify(heap)
        pile_of_group = np.empty(groups, dtype=np.int64)
        for group in order:
            size, tie, pile = heap[0]
            pile_of_group[group] = pile
            heapq.heapreplace(heap, (size + int(sizes[group]), tie, pile))
    pile_of_image = pile_of_group[codes]
    return [np.flatnonzero(pile_of_image == pile) for pile in range(piles)]


def split_half(n: int, subjects: np.ndarray | None, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two sorted index arrays that share no image and no patient, as equal in size as patients allow.

    One of them is empty when there are fewer than two patients.
    """
    first, second = _deal(n, subjects, 2, rng)
    return first, second


def jackknife_groups(n: int, subjects: np.ndarray | None, n_groups: int, rng: np.random.Generator) -> list[np.ndarray]:
    """The index arrays to leave out in turn: at most `n_groups` blocks of whole patients of nearly equal size.

    They are disjoint, together hold every image, and none is empty: with fewer patients than groups, one block each.
    """
    groups = independent_units(n, subjects)[1]
    return _deal(n, subjects, max(1, min(n_groups, groups)), rng)


def jackknife_std_error(values: np.ndarray) -> float:
    """Standard error from the (K,) values obtained by leaving out each of K equal groups in turn.

    sqrt((K-1)/K sum (v - mean v)^2) (Shao and Wu 1989). For a normal estimate its own relative error is about
    1/sqrt(2(K-1)): 16 % at K = 20. NaN for fewer than two groups.
    """
    values = np.asarray(values, dtype=np.float64)
    k = len(values)
    if k < 2:
        return math.nan
    return math.sqrt((k - 1) / k * float(np.sum((values - values.mean()) ** 2)))


def bootstrap_counts(n: int, subjects: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    """How often each image occurs in one bootstrap sample of whole patients: (n,) int64, equal within a patient."""
    codes, groups = independent_units(n, subjects)
    return np.bincount(rng.integers(0, groups, groups), minlength=groups)[codes]
