"""What the metrics over pairs of images share: errors of two independent sides, and which pairs are related."""

from __future__ import annotations

import math

import numpy as np

from chexray.metrics.base import Rows
from chexray.metrics.common import Error
from chexray.stats.related import Related
from chexray.stats.resampling import clustered_std_error

TOO_FEW = "too few images to leave one out"


def related_pairs(real: Rows, synthetic: Rows) -> Related | None:
    """Which pairs share a patient or a prompt, None when none do."""
    patients, prompts = (real.subjects, synthetic.subjects), (real.prompts, synthetic.prompts)
    return Related.of(len(real), len(synthetic), patients, prompts)


def two_sided_error(
    of_real: np.ndarray | None, of_synthetic: np.ndarray | None, real: Rows, synthetic: Rows, method: str
) -> Error:
    """The error of a value that moves with the means of two influences, (n_real,) and (n_synthetic,), by patient."""
    if of_real is None or of_synthetic is None:
        return Error(reason=TOO_FEW)
    sides = (of_real, real.subjects), (of_synthetic, synthetic.subjects)
    return Error.of(math.hypot(*(clustered_std_error(influence, subjects) for influence, subjects in sides)), method)


def same_features_note(real: Rows, synthetic: Rows) -> str | None:
    """A remark for `params` when both sides are one and the same."""
    same = real.features.shape == synthetic.features.shape and np.array_equal(real.features, synthetic.features)
    return "both sides have the same features" if same else None
