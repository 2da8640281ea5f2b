"""Memorisation numbers of other papers, for comparison with them, each with what it cannot see.

AuthPct and C_T are averages of distances to the training set alone or of whole distributions: they alarm on a generator
that copies nothing but varies too little, and do not move for 1 % of copies. chexray's own answer is the per-image
ratio to a held-out null (ratio.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.cluster.vq import kmeans2, vq

from chexray.metrics.base import Score
from chexray.metrics.common import NO_FLOOR, Error, Floor, measured, nulls
from chexray.privacy.outputs import AUTHENTICITY, C_T
from chexray.stats.ranking import mann_whitney_z
from chexray.stats.resampling import clustered_std_error, jackknife_groups, jackknife_std_error
from chexray.stats.tiles import spans

MIN_IN_CELL = 20
GROUPS = 20
CELLS = 3
CELL_SAMPLE = 20_000


@dataclass(frozen=True)
class ToTraining:
    """distance: (n,) float64 to the nearest training image. row: (n,) int64, which one."""

    distance: np.ndarray
    row: np.ndarray


def authenticity(synthetic: ToTraining, training_spacing: np.ndarray, *, heldout: ToTraining | None = None) -> Score:
    """Share of synthetic images farther from their nearest training image t than t is from other training images.

    AuthPct / 100 (Alaa et al. 2022). Higher is better. training_spacing: (N,) float64, the distance of each training
    image to its nearest one of another patient; with one image a patient, or where patients are unknown, that is
    dgm-eval's number. Floor: the same share of held-out images, which
    is what a perfect generator gets and often .5 to .75. The error is that of other images of this generator beside the
    same training set; images with one nearest training image count as one.
    """
    if not len(synthetic.distance):
        return nulls([AUTHENTICITY], "too_few", "0 synthetic images, and at least 1 is needed")[0]
    if not len(training_spacing) > 1:
        reason = f"{len(training_spacing)} training images, and at least 2 are needed"
        return nulls([AUTHENTICITY], "too_few", reason)[0]
    authentic = _authentic(synthetic, training_spacing)
    error = Error.of(clustered_std_error(authentic, synthetic.row), "clustered")
    floor = NO_FLOOR
    if heldout is not None and len(heldout.row):
        floor = Floor(float(_authentic(heldout, training_spacing).mean()), method="held-out")
    return measured(AUTHENTICITY, float(authentic.mean()), error, floor, about={"cannot_see": AUTHENTICITY.cannot_see})


def _authentic(images: ToTraining, spacing: np.ndarray) -> np.ndarray:
    return images.distance > spacing[images.row]


def c_t(
    synthetic: np.ndarray,
    heldout: np.ndarray,
    synthetic_cells: np.ndarray | None = None,
    heldout_cells: np.ndarray | None = None,
    *,
    min_in_cell: int = MIN_IN_CELL,
    synthetic_groups: np.ndarray | None = None,
    heldout_subjects: np.ndarray | None = None,
    seed: int = 0,
) -> Score:
    """Data-copying statistic C_T (Meehan et al. 2020): far below 0 where synthetic images lie nearer than unseen ones.

    synthetic, heldout: (n,), (m,) distances to the nearest training image. Per cell the z-score of the Mann-Whitney U
    of the two, averaged with the cell's share of held-out images as weight. Cells with at most `min_in_cell` synthetic
    images or without held-out ones are skipped; without cell ids, (n,) and (m,) int64, all is one cell. About 0 for a
    perfect generator, positive for one that underfits. It grows with the root of the sample size: compare at equal n.

    Against dgm-eval (`c_t_pca64`, dgm_eval.py): distances to the whole training set rather than to that of the cell, no
    reduction to 64 principal components, which can change the sign, variance corrected for ties, no continuity
    correction of 1/2 (below 1e-3 in z). Error: jackknife over 20 blocks of each side, of whole patients and prompts.
    """
    x, y = np.asarray(synthetic, dtype=np.float64), np.asarray(heldout, dtype=np.float64)
    a = np.zeros(len(x), dtype=np.int64) if synthetic_cells is None else np.asarray(synthetic_cells)
    b = np.zeros(len(y), dtype=np.int64) if heldout_cells is None else np.asarray(heldout_cells)
    cells = [cell for cell in np.unique(b) if np.count_nonzero(a == cell) > min_in_cell]
    if not cells:
        reason = f"no cell with held-out images and more than {min_in_cell} of the {len(x)} synthetic ones"
        return nulls([C_T], "too_few", reason)[0]
    weights = np.array([np.count_nonzero(b == cell) for cell in cells], dtype=np.float64)
    value = _cell_mean(x, y, a, b, cells)
    error = two_sided_jackknife(x, y, a, b, cells, synthetic_groups, heldout_subjects, np.random.default_rng(seed))
    about = {
        "cannot_see": C_T.cannot_see,
        "note_n_cells": len(cells),
        # The z of each cell has variance 1 where nothing is copied and images are independent.
        "note_std_without_copies": float(np.sqrt(np.sum(weights**2)) / weights.sum()),
    }
    return measured(C_T, value, error, Floor(0.0), method={"min_in_cell": min_in_cell}, about=about)


def _cell_mean(x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray, cells: list) -> float:
    sides = [(x[a == cell], y[b == cell]) for cell in cells]
    sides = [(mine, theirs) for mine, theirs in sides if len(mine) and len(theirs)]
    total = sum(len(theirs) for _, theirs in sides)
    return sum(len(theirs) * mann_whitney_z(mine, theirs) for mine, theirs in sides) / total if total else math.nan


def two_sided_jackknife(
    x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray, cells: list,
    groups: np.ndarray | None, subjects: np.ndarray | None, rng: np.random.Generator,
) -> Error:  # fmt: skip
    """Blocks of one side left out in turn while the other stays whole; the two errors add as independent ones do."""
    without_x, without_y = [], []
    for block in jackknife_groups(len(x), groups, GROUPS, rng):
        keep = np.delete(np.arange(len(x)), block)
        without_x.append(_cell_mean(x[keep], y, a[keep], b, cells))
    for block in jackknife_groups(len(y), subjects, GROUPS, rng):
        keep = np.delete(np.arange(len(y)), block)
        without_y.append(_cell_mean(x, y[keep], a, b[keep], cells))
    error = math.hypot(*(jackknife_std_error(np.array(side)) for side in (without_x, without_y)))
    return Error.of(error, "jackknife")


def fit_cells(features: np.ndarray, n_cells: int = CELLS, *, sample: int = CELL_SAMPLE, seed: int = 0) -> np.ndarray:
    """Centres of k-means cells of the training set, (k, d) float64, k <= n_cells, from at most `sample` rows.

    Started from distinct random rows (k-means++ spreads), so the same rows and seed give the same cells.
    """
    rng = np.random.default_rng(seed)
    index = np.sort(rng.choice(len(features), min(sample, len(features)), replace=False))
    rows = features[index].astype(np.float64)
    centres = [rows[rng.integers(len(rows))]]
    while len(centres) < n_cells:
        squared = vq(rows, np.array(centres))[1] ** 2
        if not squared.any():
            break
        centres.append(rows[rng.choice(len(rows), p=squared / squared.sum())])
    return np.asarray(kmeans2(rows, np.array(centres), iter=25, minit="matrix")[0])


def assign_cells(features: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """(n,) int64: the cell of each row, that of the nearest centre."""
    parts = [vq(features[start:stop].astype(np.float64), centres)[0] for start, stop in spans(0, len(features), 8192)]
    return np.concatenate([np.empty(0, dtype=np.int64), *parts]).astype(np.int64)
