"""What the metrics over pairs of images share: errors of two independent sides, and which pairs are related."""

from __future__ import annotations

import numpy as np

from chexray.metrics.base import Rows
from chexray.metrics.common import Error, moments_error
from chexray.stats.intervals import IntervalScale, Spread, added_by_unit
from chexray.stats.related import Related

TOO_FEW = "too few images to leave one out"


def related_pairs(real: Rows, synthetic: Rows) -> Related | None:
    """Which pairs share a patient or a prompt, None when none do."""
    patients, prompts = (real.subjects, synthetic.subjects), (real.prompts, synthetic.prompts)
    return Related.of(len(real), len(synthetic), patients, prompts)


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
        return Error(reason=TOO_FEW)
    sides = (of_real, real.subjects), (of_synthetic, synthetic.subjects)
    added = [added_by_unit(influence, subjects) for influence, subjects in sides]
    if moments:
        return moments_error(added, method, scale, real, synthetic)
    return Error.of_spread(Spread.of(*added), method, scale)


def same_features_note(real: Rows, synthetic: Rows) -> str | None:
    """A remark when both sides are one and the same."""
    same = real.features.shape == synthetic.features.shape and np.array_equal(real.features, synthetic.features)
    return "both sides have the same features" if same else None
