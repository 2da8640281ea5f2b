"""What the metrics over pairs of images share: errors of two independent sides, and the cost of their floors."""

from __future__ import annotations

import math

import numpy as np

from chexray.metrics.base import Rows
from chexray.metrics.common import Error
from chexray.stats.resampling import clustered_std_error

FLOOR_ONCE_FROM = 5000
"""Real images from which one split in halves is enough for a floor: its noise is then below the error of the value."""


def floor_repeats(real: Rows) -> int:
    """How many splits of the real set a floor is averaged over; each costs a quarter of the value itself."""
    return 1 if len(real) >= FLOOR_ONCE_FROM else 3


def two_sided_error(
    of_real: np.ndarray | None, of_synthetic: np.ndarray | None, real: Rows, synthetic: Rows, method: str
) -> Error:
    """The error of a value that moves with the means of two influences, (n_real,) and (n_synthetic,), by patient."""
    if of_real is None or of_synthetic is None:
        return Error(reason="too few images to leave one out")
    sides = (of_real, real.subjects), (of_synthetic, synthetic.subjects)
    return Error.of(math.hypot(*(clustered_std_error(influence, subjects) for influence, subjects in sides)), method)


def same_features_note(real: Rows, synthetic: Rows) -> str | None:
    """A remark for `params` when both sides are one and the same."""
    same = real.features.shape == synthetic.features.shape and np.array_equal(real.features, synthetic.features)
    return "both sides have the same features" if same else None
