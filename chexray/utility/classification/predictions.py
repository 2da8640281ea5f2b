"""What trainings of one setting say about test images, and the thresholds that validation images give."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from chexray.errors import MetricError
from chexray.findings import FINDINGS
from chexray.stats.classification import tuned_threshold


@dataclass(frozen=True)
class Predictions:
    """What S trainings of one setting say about n test images.

    labels: (n, 14) int8 in the order of FINDINGS: 1, 0, or -1 where it is left out. probabilities: (S, n, 14) float64.
    thresholds: (S, 14) float64 tuned on validation, NaN where validation lacked a class (0.5 is then used).
    subjects: (n,) int64 patient codes, or None when the set names no patients.
    Raises MetricError for shapes that do not fit, NaN, and probabilities outside [0, 1].
    """

    labels: np.ndarray
    probabilities: np.ndarray
    thresholds: np.ndarray
    subjects: np.ndarray | None = None

    def __post_init__(self) -> None:
        n, seeds = len(self.labels), len(self.probabilities)
        shapes = [self.labels.shape, self.probabilities.shape, self.thresholds.shape]
        width = len(FINDINGS)
        if shapes != [(n, width), (seeds, n, width), (seeds, width)] or not seeds:
            raise MetricError(
                f"labels, probabilities and thresholds are {', '.join(map(str, shapes))}: expected (n, {width}), "
                f"(trainings, n, {width}) and (trainings, {width})"
            )
        if self.subjects is not None and len(self.subjects) != n:
            raise MetricError(f"{len(self.subjects)} patient codes for {n} test images")
        outside = ~((self.probabilities >= 0) & (self.probabilities <= 1))
        if outside.any():
            training, image, finding = (int(i) for i in np.argwhere(outside)[0])
            raise MetricError(
                f"{int(outside.sum())} of {outside.size} probabilities are NaN or outside 0 to 1, first training "
                f"{training}, test image {image}, {FINDINGS[finding]}: train again, or look for NaN in the images"
            )


def tuned_thresholds(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """(14,) thresholds of best F1 on validation labels and probabilities, (n, 14); NaN where a class is missing."""
    found = np.full(len(FINDINGS), np.nan)
    for f in range(len(FINDINGS)):
        known = labels[:, f] >= 0
        threshold = tuned_threshold(labels[known, f], probabilities[known, f])
        found[f] = math.nan if threshold is None else threshold
    return found
