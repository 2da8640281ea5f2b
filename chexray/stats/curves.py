"""The points of a binary classifier's curves: ROC, precision-recall and reliability.

`labels` are (n,) of 0 and 1, `scores` (n,) floats, as in `stats.classification`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from chexray.stats.classification import CALIBRATION_BINS, bin_of, checked
from chexray.stats.resampling import clustered_std_error

Points = tuple[np.ndarray, np.ndarray, np.ndarray]


def roc_points(labels: np.ndarray, scores: np.ndarray, max_points: int = 400) -> Points:
    """(false positive rate, true positive rate, threshold), from (0, 0, inf) to (1, 1, lowest score).

    Corners of the curve, at most `max_points`, spread evenly along it. Empty without both classes.
    """
    tp, fp, thresholds = _steps(labels, scores)
    if not len(tp) or tp[-1] == 0 or fp[-1] == 0:
        return np.empty(0), np.empty(0), np.empty(0)
    tp, fp = np.concatenate([[0.0], tp / tp[-1]]), np.concatenate([[0.0], fp / fp[-1]])
    kept = _spread(fp, tp, max_points)
    return fp[kept], tp[kept], np.concatenate([[math.inf], thresholds])[kept]


def precision_recall_points(labels: np.ndarray, scores: np.ndarray, max_points: int = 400) -> Points:
    """(recall, precision, threshold), from the highest score down to recall 1; at most `max_points`, spread evenly.

    A curve of steps: each precision holds back to the recall before. Empty without a positive.
    """
    tp, fp, thresholds = _steps(labels, scores)
    if not len(tp) or tp[-1] == 0:
        return np.empty(0), np.empty(0), np.empty(0)
    end = int(np.argmax(tp == tp[-1])) + 1  # below full recall only precision falls
    recall, precision = (tp / tp[-1])[:end], (tp / (tp + fp))[:end]
    kept = _spread(recall, precision, max_points)
    return recall[kept], precision[kept], thresholds[kept]


@dataclass(frozen=True)
class ReliabilityBin:
    """Images whose probability falls in one bin: their mean probability, how often the finding is there, and n."""

    confidence: float
    frequency: float
    n: int
    ci_low: float
    ci_high: float


def reliability_bins(
    labels: np.ndarray, scores: np.ndarray, subjects: np.ndarray | None = None, bins: int = CALIBRATION_BINS
) -> list[ReliabilityBin]:
    """The bins of the calibration error that hold images, from low to high, each with a 95 % Wilson interval.

    The interval counts independent images: n times the ratio of the binomial to the patient-clustered variance, and
    patients where all labels of a bin agree.
    """
    labels, scores = checked(labels, scores)
    where, z2, found = bin_of(scores, bins), 1.959963984540054**2, []
    for k in range(bins):
        inside = np.flatnonzero(where == k)
        if not (n := len(inside)):
            continue
        p, people = float(labels[inside].mean()), None if subjects is None else subjects[inside]
        error = clustered_std_error(labels[inside], people)
        units = n if people is None else len(np.unique(people))
        size = min(float(n), p * (1 - p) / error**2) if error > 0 else float(units)
        middle, half = p + z2 / (2 * size), math.sqrt(z2 * p * (1 - p) / size + (z2 / (2 * size)) ** 2)
        low, high = (middle - half) / (1 + z2 / size), (middle + half) / (1 + z2 / size)
        found.append(ReliabilityBin(float(scores[inside].mean()), p, n, max(0.0, low), min(1.0, high)))
    return found


def _steps(labels: np.ndarray, scores: np.ndarray) -> Points:
    """True positives, false positives and threshold at each distinct score, from the highest down."""
    labels, scores = checked(labels, scores)
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(labels[order])
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True)) if len(ranked) else order
    return hits[ends], ends + 1 - hits[ends], ranked[ends]


def _spread(x: np.ndarray, y: np.ndarray, max_points: int) -> np.ndarray:
    """Indices of the corners of a path, at most `max_points` and evenly spaced along its length; both ends stay."""
    cross = np.diff(x)[1:] * np.diff(y)[:-1] - np.diff(x)[:-1] * np.diff(y)[1:]
    corners = np.concatenate([[0], 1 + np.flatnonzero(np.abs(cross) > 1e-15), [len(x) - 1]])
    corners = np.unique(corners)
    if len(corners) <= max_points:
        return corners
    length = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(x[corners]), np.diff(y[corners])))])
    wanted = np.linspace(0, length[-1], max_points)
    return np.unique(corners[np.clip(np.searchsorted(length, wanted), 0, len(corners) - 1)])
