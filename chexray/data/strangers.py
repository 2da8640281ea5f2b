"""Draws that leave out what belongs to oneself: for each pair an image of somebody else."""

from __future__ import annotations

import numpy as np


def draw_outside(groups: np.ndarray, low: np.ndarray, high: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """For each pair one of 0 .. n-1 outside its [low, high), uniformly, without repeats in a group where that can be.

    groups: (m,) int codes from 0. low, high: (m,) the span of one's own, shorter than n. Returns (m,) int64.
    """

    def uniform(rows: np.ndarray) -> np.ndarray:
        drawn = rng.integers(0, n - (high - low)[rows])
        return drawn + np.where(drawn >= low[rows], (high - low)[rows], 0)

    sizes = np.bincount(groups)[groups]
    crowded = np.bincount(groups, weights=2 * sizes > n - (high - low)) > 0
    dense = crowded[groups]
    out = uniform(np.arange(len(groups)))
    again = np.flatnonzero(~dense)
    while len(again):  # a pair drawn again finds at least half of the images free, so this ends soon
        order = np.lexsort((out, groups))
        same = (np.diff(groups[order]) == 0) & (np.diff(out[order]) == 0)
        again = order[1:][same & ~dense[order[1:]]]
        out[again] = uniform(again)
    for group in np.flatnonzero(crowded):
        left: list[int] = []
        for row in np.flatnonzero(groups == group):
            free = [place for place, image in enumerate(left) if not low[row] <= image < high[row]]
            if not free:
                left = rng.permutation(n).tolist()
                free = [place for place, image in enumerate(left) if not low[row] <= image < high[row]]
            out[row] = left.pop(free[0])
    return out
