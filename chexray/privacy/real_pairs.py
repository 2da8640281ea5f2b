"""Pairs of real images of one patient and of two patients: all of them, or a seeded draw that is fair to patients.

Nothing here grows with the square of the number of images: pairs are numbered, and only the numbers drawn are unfolded.
"""

from __future__ import annotations

import numpy as np

Pairs = tuple[np.ndarray, np.ndarray]


def same_patient_pairs(codes: np.ndarray, max_pairs: int, rng: np.random.Generator) -> Pairs:
    """(left, right) image numbers, (m,) int64 each, of images of one patient; each pair of images once.

    All of them, or `max_pairs` when there are more, spread over as many patients as possible: every patient gives the
    same number of its pairs, or all it has, so that a few patients with many images do not speak for the others.
    codes: (n,) int patient codes.
    """
    order, start, n_images = _grouped(codes)
    n_pairs = n_images * (n_images - 1) // 2
    quota = _fair(n_pairs, max_pairs, rng)
    whole = quota == n_pairs
    patient = np.repeat(np.flatnonzero(whole), quota[whole])
    ends = np.cumsum(quota[whole])
    number = np.arange(len(patient)) - np.repeat(ends - quota[whole], quota[whole])
    some = np.flatnonzero(~whole & (quota > 0))
    drawn = [distinct(int(n_pairs[each]), int(quota[each]), rng) for each in some]
    patient = np.concatenate([patient, np.repeat(some, quota[some])])
    number = np.concatenate([number, *drawn])
    # Pair number i + j (j - 1) / 2 is that of images i < j.
    right = ((1 + np.sqrt(1 + 8 * number.astype(np.float64))) / 2).astype(np.int64)
    right -= right * (right - 1) // 2 > number
    right += (right + 1) * right // 2 <= number
    left = number - right * (right - 1) // 2
    return order[start[patient] + left], order[start[patient] + right]


def different_patient_pairs(codes: np.ndarray, max_pairs: int, rng: np.random.Generator) -> Pairs:
    """(left, right) image numbers, (m,) int64 each, of images of two patients; each pair of images at most once.

    All of them, or `max_pairs` drawn uniformly when there are more. codes: (n,) int patient codes.
    """
    order, start, n_images = _grouped(codes)
    # In the order of patients, an image meets those after its own patient: each pair once.
    after = np.repeat(start + n_images, n_images)
    ends = np.cumsum(len(codes) - after)
    total = int(ends[-1]) if len(ends) else 0
    number = np.arange(total) if total <= max_pairs else distinct(total, max_pairs, rng)
    left = np.searchsorted(ends, number, side="right")
    right = after[left] + number - (ends[left] - (len(codes) - after[left]))
    return order[left], order[right]


def distinct(n: int, k: int, rng: np.random.Generator) -> np.ndarray:
    """k different numbers of 0 .. n-1, ascending, every set equally likely; memory goes with k, not n."""
    if 2 * k >= n:
        return np.sort(rng.permutation(n)[:k])
    out = np.empty(0, dtype=np.int64)
    while len(out) < k:
        out = np.union1d(out, rng.integers(0, n, k - len(out)))
    return out


def _grouped(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image numbers in the order of patients; the first place and the number of images of each patient."""
    order = np.argsort(codes, kind="stable")
    _, start, n_images = np.unique(codes[order], return_index=True, return_counts=True)
    return order, start, n_images


def _fair(available: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """(G,) int64: how many each gives, at most `available` and `most` in all, as equal as that allows."""
    if available.sum() <= most:
        return available
    low, high = 0, most  # the largest equal share that stays below `most`
    while low < high:
        middle = (low + high + 1) // 2
        if np.minimum(available, middle).sum() <= most:
            low = middle
        else:
            high = middle - 1
    quota = np.minimum(available, low)
    more = np.flatnonzero(available > low)
    quota[rng.permutation(more)[: most - int(quota.sum())]] += 1
    return quota


def pair_mean_std_error(values: np.ndarray, left: np.ndarray, right: np.ndarray) -> float:
    """Standard error of the mean over pairs of two patients when pairs that share a patient are correlated.

    values: (m,) float; left, right: (m,) patient codes 0 .. G-1, different in each pair. With S_g the sum of the
    deviations of the pairs that touch patient g: sum_g S_g^2, less the sums of pairs that share both patients, which it
    holds twice (dyadic clustering, Aronow et al. 2015), times G/(G-1). Never below the error of independent pairs.
    """
    m = len(values)
    deviation = values - values.mean()
    groups = int(max(left.max(), right.max())) + 1
    sums = np.bincount(left, weights=deviation, minlength=groups)
    sums += np.bincount(right, weights=deviation, minlength=groups)
    both = np.unique(np.minimum(left, right) * groups + np.maximum(left, right), return_inverse=True)[1].reshape(-1)
    shared = np.bincount(both, weights=deviation)
    variance = groups / (groups - 1) * float(sums @ sums - shared @ shared)
    return float(np.sqrt(max(variance, float(deviation @ deviation)))) / m
