"""Whether synthetic images lie where chance flags more of them than of real ones, and a test that allows for it.

A ratio r of distances to two sets of one population, of sizes N and m, has P(r < x) = x^D / (x^D + N^-1 m) at a place
where features vary in D dimensions: in few dimensions it scatters widely, and small values need no copy. A generator
that makes more of such images than there are among real ones (normal chests, one view, one device) is flagged more
often. D log r scatters alike everywhere, so that it can be compared across places.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from chexray.privacy.ratio import RatioTest
from chexray.stats.ranking import roc_auc
from chexray.stats.resampling import clustered_std_error

MIN_REFERENCES = 60
"""Training patients below which no local dimension is estimated."""

NEIGHBOURS, FEWEST_NEIGHBOURS = 20, 5

DEBIASED = 1.15
"""Power that undoes the estimate's shrinkage: references are too few to show many dimensions. Of normal features in 2,
4, 8 and 16 dimensions, 40 to 400 references, it finds 2.2, 3.6, 5.5 and 13.3: it grows as the 0.86th power."""

LIMIT = 2.58
"""Standard errors beyond which the case mix is said to differ: 1 % of equal ones, both directions together."""


def local_dimension(features: np.ndarray, references: np.ndarray) -> np.ndarray:
    """(n,) float64: in how many dimensions references scatter about each row of `features`, (n, d).

    references: (R, d) training images, one a patient. Maximum likelihood from the distances to the 2nd to k-th nearest
    (Levina and Bickel 2004), k = R / 20 within 5 and 20. The nearest is left out, since that of a copy lies at 0.
    """
    k = int(np.clip(len(references) // 20, FEWEST_NEIGHBOURS, NEIGHBOURS))
    centre = references.mean(0, dtype=np.float64)
    x, y = features - centre, references - centre
    squared = np.maximum((x**2).sum(1)[:, None] + (y**2).sum(1) - 2 * x @ y.T, 0)
    nearest = np.sort(np.partition(squared, k, axis=1)[:, : k + 1], axis=1)[:, 1:]
    nearest = np.maximum(nearest, np.finfo(np.float64).tiny)
    mean = 0.5 * np.log(nearest[:, -1:] / nearest[:, :-1]).mean(1)
    return np.maximum(mean, 1e-3) ** -DEBIASED


@dataclass(frozen=True)
class Dimensions:
    """Local dimensions of the synthetic images, (n,) float64, and of the images that the null was made of, (m,)."""

    synthetic: np.ndarray
    null: np.ndarray


@dataclass(frozen=True)
class CaseMix:
    """synthetic, null: median local dimensions. z: by how many standard errors those of the synthetic images are
    smaller. test: with ratios brought to one dimension."""

    synthetic: float
    null: float
    z: float
    test: RatioTest

    @property
    def shifted(self) -> bool:
        """Whether the case mix differs beyond chance."""
        return abs(self.z) > LIMIT


def case_mix(
    test: RatioTest, dimensions: Dimensions, subjects: np.ndarray | None, clusters: list[np.ndarray | None]
) -> CaseMix:
    """Compares where synthetic and null images lie. dimensions.null: of the images kept by `test`, as are `subjects`,
    (m,) their patient codes. clusters: codes of synthetic images that resemble each other, the widest error counts.
    """
    mine, other = dimensions.synthetic, dimensions.null
    middle = float(np.median(other))
    placement = np.searchsorted(np.sort(other), mine) / len(other)
    errors = [clustered_std_error(placement, codes) for codes in (None, *clusters)]
    back = np.searchsorted(np.sort(mine), other) / len(mine)
    error = math.hypot(float(np.nanmax(errors)), clustered_std_error(back, subjects))
    z = (0.5 - roc_auc(mine, other)) / error if error > 0 else 0.0
    return CaseMix(float(np.median(mine)), middle, z, test.rescaled(mine / middle, other / middle, subjects))
