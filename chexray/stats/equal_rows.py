"""Pairs of equal rows of two large matrices, found by sorting instead of by all distances."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

DIRECTIONS = 8
PAIRS_AT_ONCE = 2_000_000
ROWS_AT_ONCE = 8192
VALUES_AT_ONCE = 4_000_000


def equal_rows(
    x: np.ndarray, y: np.ndarray, tolerance: float, limit: int = PAIRS_AT_ONCE
) -> tuple[np.ndarray, np.ndarray] | None:
    """Rows i of x and j of y with |x_i - y_j| <= tolerance * |y_j|: two (pairs,) int64 arrays, ordered by j, then i.

    x: (n, d), y: (m, d), finite floats. Differences are taken in float64. None where there are more than `limit` pairs:
    rows that equal one another by the thousand do not tell images apart.

    Equal rows have equal projections, so those on one fixed random direction are sorted and only neighbours within the
    tolerance are looked at, first on further directions and then whole: n log n instead of n m.
    """
    if not len(x) or not len(y):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    # About the mean, since a common offset would cost the digits by which projections differ.
    mean = x.mean(axis=0, dtype=np.float64)
    directions = np.random.default_rng(0).standard_normal((x.shape[1], DIRECTIONS))
    directions /= np.linalg.norm(directions, axis=0)
    px, py = _projected(x, mean, directions), _projected(y, mean, directions)
    lengths = np.concatenate([np.linalg.norm(y[rows].astype(np.float64), axis=1) for rows in _slices(len(y))])
    # A projection is rounded by some 1e-16 of the largest one; rows equal bit for bit must not fall out by that.
    within = tolerance * lengths + 1e-12 * max(1e-300, float(np.abs(py).max()), float(np.abs(px).max()))
    order = np.argsort(px[:, 0], kind="stable")
    first = np.searchsorted(px[order, 0], py[:, 0] - within, side="left")
    last = np.searchsorted(px[order, 0], py[:, 0] + within, side="right")
    found_x, found_y, count = [], [], 0
    for j, start in _windows(first, last):
        i = order[start]
        for k in range(1, DIRECTIONS):
            near = np.abs(px[i, k] - py[j, k]) <= within[j]
            i, j = i[near], j[near]
        i, j = _near(x, y, i, j, tolerance * lengths)
        found_x.append(i)
        found_y.append(j)
        count += len(i)
        if count > limit:
            return None
    i = np.concatenate(found_x) if found_x else np.empty(0, np.int64)
    j = np.concatenate(found_y) if found_y else np.empty(0, np.int64)
    order = np.lexsort((i, j))
    return i[order].astype(np.int64), j[order].astype(np.int64)


def _slices(n: int) -> Iterator[slice]:
    return (slice(start, start + ROWS_AT_ONCE) for start in range(0, n, ROWS_AT_ONCE))


def _projected(rows: np.ndarray, mean: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """(n, DIRECTIONS) float64. Not by a BLAS: its sums may depend on how many rows there are."""
    parts = [np.einsum("nd,dk->nk", rows[at].astype(np.float64) - mean, directions) for at in _slices(len(rows))]
    return np.concatenate(parts)


def _windows(first: np.ndarray, last: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(row of y, place in the order of x) for every place of every window [first, last), a bounded number at once."""
    counts = last - first
    rows = np.flatnonzero(counts)
    ends = np.cumsum(counts[rows])
    start = 0
    while start < len(rows):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + PAIRS_AT_ONCE, side="right")))
        chunk = rows[start:stop]
        j = np.repeat(chunk, counts[chunk])
        offset = np.arange(len(j)) - np.repeat(ends[start:stop] - counts[chunk] - done, counts[chunk])
        yield j, first[j] + offset
        start = stop


def _near(
    x: np.ndarray, y: np.ndarray, i: np.ndarray, j: np.ndarray, within: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The pairs whose whole rows are within the distance that belongs to y's."""
    step = max(1, VALUES_AT_ONCE // x.shape[1])
    keep = [
        np.linalg.norm(x[i[at : at + step]].astype(np.float64) - y[j[at : at + step]], axis=1)
        <= within[j[at : at + step]]
        for at in range(0, len(i), step)
    ]
    near = np.concatenate(keep) if keep else np.zeros(0, bool)
    return i[near], j[near]
