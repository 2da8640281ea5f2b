"""How small the smallest of many ratios becomes by chance: below that a single image is worth a look.

The alarm counts images and knows no distances; one image far below all of the null is not enough for it. How far is far
depends on the number of images and on the dimension of the features, and both are in the null's own lower tail.
"""

from __future__ import annotations

import math

import numpy as np

TAIL, FEWEST = 0.1, 8
"""The share of null ratios that show the tail, and the fewest."""


def lowest_by_chance(null: np.ndarray, n: int, level: float) -> float | None:
    """The ratio that, without a copy, the smallest of n ratios falls below in a share `level` of audits.

    null: (m,) positive ratios. Near 0 their distribution is a power of the ratio: logarithms below the k-th smallest
    are exponential (Hill 1975) and the smallest of n others has a known law, the uncertainty of the exponent included:
    P(smallest < x) = n k / m (1 + log(x_k / x) / (k h))^-k, h the mean of log(x_k / x_i), i < k. Never above the
    smallest null ratio. None where no more than FEWEST are positive. By Monte Carlo 0 to 4 % of audits fall below it
    where 2.5 % are asked for: 3 to 16 dimensions, 60 to 400 held-out, 200 to 1000 training and 80 to 4000 synthetic
    images.
    """
    ordered = np.sort(null[np.isfinite(null) & (null > 0)])
    m = len(ordered)
    k = max(FEWEST, round(TAIL * m))
    if k >= m:
        return None
    log_ratio = np.log(ordered[: k + 1])
    mean = float((log_ratio[-1] - log_ratio[:-1]).mean())
    if not mean > 0 or n < 1:
        return None
    share = level * m / (k * n)
    below = k * mean * (share ** (-1 / k) - 1)
    return float(math.exp(min(log_ratio[-1] - below, log_ratio[0])))
