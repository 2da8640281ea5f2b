"""Scores of the filter test: the filter as a diagnostic test, on planted copies and on unseen patients.

Tripartite testing after arXiv 2510.01793: sensitivity on augmented copies of training images, specificity on images of
patients the generator never saw, and consistency between an image and an altered version of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from chexray.metrics.base import Score
from chexray.metrics.common import nulls
from chexray.outputs import Output
from chexray.privacy.outputs import CONSISTENCY, IDENTITY, SENSITIVITY, SPECIFICITY, sensitivity_to
from chexray.privacy.shares import effective_n, share_interval
from chexray.stats.resampling import clustered_std_error


def audit_scores(
    planted: Mapping[str, np.ndarray],
    unseen: np.ndarray,
    twins: np.ndarray,
    *,
    planted_subjects: np.ndarray | None = None,
    unseen_subjects: np.ndarray | None = None,
    twin_subjects: np.ndarray | None = None,
) -> list[Score]:
    """audit_sensitivity_<augmentation> for each, audit_sensitivity, audit_specificity and audit_consistency, in order.

    planted: {augmentation: (n,) bool, True where the planted copy was flagged}, for each augmentation of the same n
    originals in the same order. unseen: (m,) bool, True where an image of a patient it never saw was flagged.
    twins: (k, 2) bool, the verdicts of an image and of its altered version. *_subjects: (n,), (m,) and (k,) int64
    patient codes, or None when each image counts as its own patient.

    All are shares in [0, 1], higher is better: of planted copies flagged (audit_sensitivity is the mean over the
    augmentations other than "identity"), of unseen images not flagged, of pairs with equal verdicts. Intervals are
    those of Clopper and Pearson at the number of independent images, so they do not close at 0 or 1. Consistency is
    high for a filter that flags nothing: about["n_flagged"] says how many pairs had a flag at all. Null, "too_few",
    where there is nothing to count. Raises ValueError for arrays of other shapes or types.
    """
    flagged = {name: _bools(f"planted[{name!r}]", values, 1) for name, values in planted.items()}
    counts = {len(values) for values in flagged.values()}
    if len(counts) > 1:
        raise ValueError(f"augmentations of one set of originals have {sorted(counts)} verdicts: they must be aligned")
    unseen, twins = _bools("unseen", unseen, 1), _bools("twins", twins, 2)
    scores = [
        _share(sensitivity_to(name), values, planted_subjects, "planted copies") for name, values in flagged.items()
    ]
    changed = {name: values for name, values in flagged.items() if name != IDENTITY} or flagged
    found = np.mean(list(changed.values()), axis=0) if changed else np.zeros(0)
    equal, either = twins[:, 0] == twins[:, 1], int(twins.any(axis=1).sum())
    return [
        *scores,
        _share(SENSITIVITY, found, planted_subjects, "planted copies", augmentations=list(changed)),
        _share(SPECIFICITY, ~unseen, unseen_subjects, "images of unseen patients", n_flagged=int(unseen.sum())),
        _share(CONSISTENCY, equal, twin_subjects, "twins", n_flagged=either),
    ]


def _share(
    output: Output,
    hits: np.ndarray,
    subjects: np.ndarray | None,
    what: str,
    *,
    n_flagged: int | None = None,
    **method: Any,
) -> Score:
    """The mean of `hits`, (n,) bool or float in [0, 1], one an original, with the interval of a share."""
    n = len(hits)
    if subjects is not None and len(subjects) != n:
        raise ValueError(f"{output.name}: {len(subjects)} patient codes for {n} {what}")
    if not n:
        return nulls([output], "too_few", f"there are no {what} to count")[0]
    value = float(np.mean(hits))
    independent = effective_n(hits, subjects)
    low, high = share_interval(value, independent)
    error = clustered_std_error(hits, subjects)
    # All or none flagged has no spread to estimate an error from; the interval is then the whole answer.
    known = math.isfinite(error) and 0 < value < 1
    n_patients = None if subjects is None else len(np.unique(subjects))
    told = {"n_patients": n_patients, "ci_effective_n": independent, "n_flagged": n_flagged}
    return Score(
        output, value,
        std_error=error if known else None, ci_low=low, ci_high=high, std_error_method="clopper_pearson",
        method={"n": n, **method}, about={name: said for name, said in told.items() if said is not None},
    )  # fmt: skip


def _bools(name: str, values: np.ndarray, dimensions: int) -> np.ndarray:
    array = np.asarray(values)
    wanted = "(n,)" if dimensions == 1 else "(k, 2)"
    if array.size and array.dtype != np.bool_:
        raise ValueError(f"{name} is {array.dtype}, expected bool: True where an image was flagged")
    if dimensions == 2 and array.shape == (0,):
        array = array.reshape(0, 2)
    if array.ndim != dimensions or (dimensions == 2 and array.shape[1] != 2):
        raise ValueError(f"{name} has shape {array.shape}, expected {wanted}")
    return array.astype(np.bool_)
