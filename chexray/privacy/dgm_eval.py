"""C_T as dgm-eval computes it: on 64 principal components, and against the training images of the same cell.

The other variant, `c_t` in other_tools.py, keeps all components. On radiographs the two can differ in sign: a generator
that is too smooth lies near its training images in the first components, and far from them in the others.
"""

from __future__ import annotations

import math

import numpy as np

from chexray.metrics.base import Mapper, Score
from chexray.metrics.common import Floor, measured, nulls
from chexray.privacy.other_tools import CELLS, MIN_IN_CELL, assign_cells, fit_cells, two_sided_jackknife
from chexray.privacy.outputs import C_T_PCA64
from chexray.stats.nearest import nearest
from chexray.stats.ranking import roc_auc
from chexray.stats.tiles import threaded

COMPONENTS = 64

STARTS = 10
"""Starts of k-means, of which the tightest is kept."""


def components(training: np.ndarray, *others: np.ndarray, n_components: int = COMPONENTS) -> list[np.ndarray]:
    """All sets, (n, d), on the first principal components of the training set, (n, n_components) float64 each.

    Unchanged where they are no wider than that. Distances do not depend on the signs that the decomposition leaves
    open.
    """
    sets = [np.asarray(rows, dtype=np.float64) for rows in (training, *others)]
    if sets[0].shape[1] <= n_components:
        return sets
    centre = sets[0].mean(0)
    centred = sets[0] - centre
    _, vectors = np.linalg.eigh(centred.T @ centred)
    axes = vectors[:, ::-1][:, :n_components]
    return [(rows - centre) @ axes for rows in sets]


def c_t_pca64(
    training: np.ndarray,
    heldout: np.ndarray,
    synthetic: np.ndarray,
    *,
    cells: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None,
    heldout_subjects: np.ndarray | None = None,
    synthetic_groups: np.ndarray | None = None,
    seed: int = 0,
    mapper: Mapper = threaded,
) -> Score:
    """dgm-eval's C_T (Meehan et al. 2020; Stein et al. 2023): far below 0 where synthetic images lie near training.

    (n, d) features; cells: (N,), (m,), (n,) int64 cells of training, held-out and synthetic images, 0 to 2, by default
    those of k-means with 3 centres on the components (dgm-eval's start is not seeded: on overlapping cells its own runs
    differ). Per cell: Mann and Whitney's U of the distances to the cell's training images, (U - n m / 2 + 1/2) over
    sqrt(n m (n + m + 1) / 12), ties not corrected; their mean with the cells' shares of held-out images as weights,
    over cells with more than 20 synthetic images. Error: jackknife over 20 blocks of each side. Null where a cell has
    no training or no held-out image, where dgm-eval stops too.
    """
    t, e, s = components(training, heldout, synthetic)
    if min(len(t), len(e), len(s)) < 2 or t.shape[1] == 0:
        return nulls([C_T_PCA64], "too_few", "each of the three sets needs at least 2 images")[0]
    a, b, c = _cells(t, e, s, seed) if cells is None else cells
    known = np.unique(np.concatenate([a, b, c]))
    if any(not (np.any(a == cell) and np.any(b == cell)) for cell in known):
        return nulls([C_T_PCA64], "too_few", "a cell of k-means has no training or no held-out image")[0]
    kept = [cell for cell in known if np.count_nonzero(c == cell) > MIN_IN_CELL]
    if not kept:
        reason = f"no cell has more than {MIN_IN_CELL} of the {len(s)} synthetic images"
        return nulls([C_T_PCA64], "too_few", reason)[0]
    x, y = np.zeros(len(s)), np.zeros(len(e))
    for cell in known:
        near = np.ascontiguousarray(t[a == cell], dtype=np.float32)
        for distances, rows, codes in ((x, s, c), (y, e, b)):
            mine = np.ascontiguousarray(rows[codes == cell], dtype=np.float32)
            if len(mine):
                distances[codes == cell] = _distances(rows[codes == cell], t[a == cell], mine, near, mapper)
    weights = np.array([np.count_nonzero(b == cell) for cell in kept], dtype=np.float64)
    z = np.array([_z(x[c == cell], y[b == cell]) for cell in kept])
    error = two_sided_jackknife(x, y, c, b, kept, synthetic_groups, heldout_subjects, np.random.default_rng(seed))
    about = {"cannot_see": C_T_PCA64.cannot_see, "n_components": t.shape[1], "note_n_cells": len(kept)}
    return measured(C_T_PCA64, float(weights @ z / weights.sum()), error, Floor(0.0), about=about)


def _distances(x: np.ndarray, y: np.ndarray, x32: np.ndarray, y32: np.ndarray, mapper: Mapper) -> np.ndarray:
    """(n,) float64 distances to the row of y that is nearest in float32: components of float64 have no exact search."""
    row = nearest(x32, y32, mapper=mapper).row
    return np.sqrt(((x - y[row]) ** 2).sum(1))


def _z(synthetic: np.ndarray, heldout: np.ndarray) -> float:
    n, m = len(heldout), len(synthetic)
    u = roc_auc(synthetic, heldout) * n * m
    return (u - n * m / 2 + 0.5) / math.sqrt(n * m * (n + m + 1) / 12)


def _cells(t: np.ndarray, e: np.ndarray, s: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The tightest of STARTS partitions of the training set, for all three sets."""

    def spread(centres: np.ndarray) -> float:
        return float(((t - centres[assign_cells(t, centres)]) ** 2).sum())

    centres = min((fit_cells(t, CELLS, sample=len(t), seed=seed + i) for i in range(STARTS)), key=spread)
    first, second, third = (assign_cells(rows, centres) for rows in (t, e, s))
    return first, second, third
