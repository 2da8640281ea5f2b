"""What the metrics over pairs of images share: errors of two independent sides, and the cost of their floors."""

from __future__ import annotations

import numpy as np

from chexray.metrics.base import Rows
from chexray.metrics.common import Error, moments_error
from chexray.stats.intervals import IntervalScale, Spread, added_by_unit

FLOOR_ONCE_FROM = 5000
"""Real images from which one split in halves is enough for a floor: its noise is then below the error of the value."""


def floor_repeats(real: Rows) -> int:
    """How many splits of the real set a floor is averaged over; each costs a quarter of the value itself."""
    return 1 if len(real) >= FLOOR_ONCE_FROM else 3


def two_sided_error(
    of_real: np.ndarray | None,
    of_synthetic: np.ndarray | None,
    real: Rows,
    synthetic: Rows,
    method: str,
    scale: IntervalScale = "linear",
    *,
    moments: bool = False,
) -> Error:
    """The error of a value that moves with the means of two influences, (n_real,) and (n_synthetic,), by patient.

    moments: the value rests on moments of the features, which heavy tails make uncertain.
    """
    if of_real is None or of_synthetic is None:
        return Error(reason="too few images to leave one out")
    sides = (of_real, real.subjects), (of_synthetic, synthetic.subjects)
    added = [added_by_unit(influence, subjects) for influence, subjects in sides]
    if moments:
        return moments_error(added, method, scale, real, synthetic)
    return Error.of_spread(Spread.of(*added), method, scale)


def same_features_note(real: Rows, synthetic: Rows) -> str | None:
    """A remark for `params` when both sides are one and the same."""
    same = real.features.shape == synthetic.features.shape and np.array_equal(real.features, synthetic.features)
    return "both sides have the same features" if same else None
