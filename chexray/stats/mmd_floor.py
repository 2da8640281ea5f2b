"""What a squared MMD over all pairs would be for a perfect generator, at exactly the images at hand.

For two sets of one population every mean over unrelated pairs has one expectation, b; a related pair has a larger one,
w; an image with itself the kernel's diagonal, 0 here. The expected MMD is then a count of pairs times b and w, which
the real set alone gives without bias: nothing is split, and nothing extrapolated.
"""

from __future__ import annotations

import math

import numpy as np

from chexray.stats.kernels import KernelSums, total
from chexray.stats.related import Related


def mmd_floor(sums: KernelSums, related: Related | None, *, biased: bool) -> tuple[float, float]:
    """The expected MMD^2 over all pairs of a perfect generator, and the standard error of that, from the real set x.

    sums: over unrelated pairs, the related ones apart. biased: whether an image with itself counts, as 0. Related
    synthetic images, and related pairs across the sets, are taken to be as alike as related real ones; where the real
    set has no such pair, as unrelated ones. The error is a jackknife over patients; NaN when it cannot be had.
    """
    n, m = len(sums.xx), len(sums.yy)
    same = 0 if biased else 1
    left = related.counts() if related else (np.zeros(n), np.zeros(m), np.zeros(n), np.zeros(m))
    own, apart = n - 1 - left[0], sums.related.xx if sums.related else np.zeros(n)
    codes = related.patient_x if related else np.arange(n)
    codes = np.unique(codes, return_inverse=True)[1].reshape(-1)
    related_x, related_y, related_xy = (float(part.sum()) for part in left[:3])
    of_x, of_y, of_xy = related_x / (n * (n - same)), related_y / (m * (m - same)), related_xy / (n * m)
    alone = biased * (1 / n + 1 / m)

    def floor(strangers: np.ndarray, n_strangers: np.ndarray, kin: np.ndarray, n_kin: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            b = strangers / n_strangers
            excess = np.where(n_kin > 0, kin / n_kin - b, 0.0)
        return (of_x + of_y - 2 * of_xy) * excess - alone * b

    whole = np.array([total(sums.xx)]), own.sum(keepdims=True), np.array([total(apart)]), left[0].sum(keepdims=True)
    # Related pairs of real images are mostly of one patient: leaving the patient out takes them off once.
    taken = [np.bincount(codes, part) for part in (sums.xx, own, apart, left[0])]
    without = floor(whole[0] - 2 * taken[0], whole[1] - 2 * taken[1], whole[2] - taken[2], whole[3] - taken[3])
    groups = len(without)
    spread = (
        math.sqrt((groups - 1) / groups * float(np.sum((without - without.mean()) ** 2))) if groups > 1 else math.nan
    )
    return float(floor(*whole)[0]), spread
