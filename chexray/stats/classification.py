"""Scores of a binary classifier in float64, for many bootstrap samples at once, and the points of its curves.

Every score takes `labels`, (n,) of 0 and 1, `scores`, (n,) floats, and `weights`, (B, n) counts or weights >= 0, one
row a bootstrap sample, or None for a single row of ones; it returns (B,) float64, NaN where a row leaves it undefined.
Images are sorted once, the rows share the order. Equal to scikit-learn with `sample_weight` to 1e-12.

torchmetrics 1.9 is not used: it knows no sample weights, its AUROC and average precision come out in float32 even from
float64 scores (7e-8 and 1e-8 beside scikit-learn on 2,000 images, measured; its calibration error is float64), and its
threshold is score > t, so that scores rounded to two decimals lost 0.012 of F1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from chexray.stats.resampling import clustered_std_error

BLOCK_BYTES = 64 << 20
CALIBRATION_BINS = 15


@dataclass(frozen=True)
class Ranking:
    """n images sorted from the highest score down, with what the areas under both curves need to know of ties.

    order: (n,) int64. positives: places of the P positives in that order. first, last: (P,), the places at which each
    positive's tie begins and ends. before, within: (P,), how many positives stand above its tie, and down to its end.
    """

    order: np.ndarray
    positives: np.ndarray
    first: np.ndarray
    last: np.ndarray
    before: np.ndarray
    within: np.ndarray

    @classmethod
    def of(cls, labels: np.ndarray, scores: np.ndarray) -> Ranking:
        """Raises ValueError when the lengths differ or a score is NaN, which has no place in an order."""
        labels, scores = _checked(labels, scores)
        order = np.argsort(-scores, kind="stable")
        ranked = scores[order]
        positives = np.flatnonzero(labels[order])
        new = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]])) if len(ranked) else positives
        tie = np.searchsorted(new, positives, side="right") - 1
        first = new[tie]
        last = np.append(new[1:], len(ranked))[tie] - 1
        before = np.searchsorted(positives, first)
        return cls(order, positives, first, last, before, np.searchsorted(positives, last, side="right"))

    def areas(self, weights: np.ndarray, columns: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """AUROC and average precision, each (B,), of weights (B, m).

        columns: (n,) which column of `weights` belongs to each image; without it m = n, in the order of the images.
        The rows are taken in blocks of about BLOCK_BYTES.
        """
        columns = self.order if columns is None else columns[self.order]
        auroc, precision = np.full(len(weights), np.nan), np.full(len(weights), np.nan)
        rows = max(1, BLOCK_BYTES // (8 * (2 * len(columns) + 8 * len(self.positives) + 1)))
        for start in range(0, len(weights), rows) if len(self.positives) else ():
            block = slice(start, start + rows)
            auroc[block], precision[block] = self._block(weights[block], columns)
        return auroc, precision

    def _block(self, weights: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        ranked = np.take(weights, columns, axis=1)
        own = ranked[:, self.positives].astype(np.float64)
        above = np.cumsum(ranked, axis=1, dtype=np.float64)  # everything down to and including a place
        found = np.zeros((len(own), own.shape[1] + 1))  # the positives among them
        np.cumsum(own, axis=1, out=found[:, 1:])
        total, n_positive = above[:, -1], found[:, -1]
        seen, hit = above[:, self.last], found[:, self.within]
        beaten_by = seen - hit  # negatives above a positive or tied with it
        tied = np.flatnonzero(self.first < self.last)
        if len(tied):  # half of those tied with it count
            start = above[:, np.maximum(self.first[tied] - 1, 0)] * (self.first[tied] > 0)
            beaten_by[:, tied] = (beaten_by[:, tied] + start - found[:, self.before[tied]]) / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            auroc = 1 - np.einsum("bp,bp->b", own, beaten_by) / (n_positive * (total - n_positive))
            np.divide(hit, seen, out=hit, where=seen > 0)
            precision = np.einsum("bp,bp->b", own, hit) / n_positive
        auroc[(n_positive <= 0) | (total - n_positive <= 0)] = np.nan
        precision[n_positive <= 0] = np.nan
        return auroc, precision


def auroc(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Area under the ROC curve: how often a positive scores above a negative, ties half. NaN without both classes."""
    return Ranking.of(labels, scores).areas(_rows(len(labels), weights))[0]


def average_precision(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Sum over thresholds of precision times the step in recall, tied images together. NaN without a positive."""
    return Ranking.of(labels, scores).areas(_rows(len(labels), weights))[1]


def brier(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Mean squared distance of probability and label (Brier 1950), 0 best. NaN without weight."""
    labels, scores = _checked(labels, scores)
    rows = _rows(len(labels), weights)
    return _ratio(rows @ (scores - labels) ** 2, rows.sum(axis=1, dtype=np.float64))


def calibration_error(
    labels: np.ndarray, scores: np.ndarray, weights: np.ndarray | None = None, bins: int = CALIBRATION_BINS
) -> np.ndarray:
    """Expected calibration error (Naeini et al. 2015): mean over images of |frequency - mean probability| of its bin.

    `bins` equal widths on [0, 1]. At least 0, and biased upwards at small n, by about sqrt(bins / n) / 2.
    """
    rows = _rows(len(np.asarray(labels)), weights)
    return _ratio(np.abs(rows @ calibration_terms(labels, scores, bins)).sum(axis=1), rows.sum(axis=1, dtype=float))


def calibration_terms(labels: np.ndarray, scores: np.ndarray, bins: int = CALIBRATION_BINS) -> np.ndarray:
    """(n, bins) float64: label - probability in the column of the image's bin, 0 elsewhere.

    The calibration error is the sum over bins of |weights @ terms| over the total weight.
    """
    labels, scores = _checked(labels, scores)
    terms = np.zeros((len(labels), bins))
    terms[np.arange(len(labels)), _bin(scores, bins)] = labels - scores
    return terms


@dataclass(frozen=True)
class Confusion:
    """Weights of true and false positives and negatives, each (B,) float64; a score >= threshold counts as positive.

    A score is NaN where it asks for a class that is absent: all but specificity without a positive, specificity and
    balanced accuracy without a negative. Where positives exist but none is predicted, precision and F1 are 0, as in
    scikit-learn with zero_division=0.
    """

    tp: np.ndarray
    fp: np.ndarray
    fn: np.ndarray
    tn: np.ndarray

    @property
    def f1(self) -> np.ndarray:
        return _ratio(2 * self.tp, np.where(self.tp + self.fn > 0, 2 * self.tp + self.fp + self.fn, 0))

    @property
    def precision(self) -> np.ndarray:
        predicted = self.tp + self.fp
        return np.where(self.tp + self.fn > 0, self.tp / np.where(predicted > 0, predicted, 1), np.nan)

    @property
    def recall(self) -> np.ndarray:
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def specificity(self) -> np.ndarray:
        return _ratio(self.tn, self.tn + self.fp)

    @property
    def balanced_accuracy(self) -> np.ndarray:
        return (self.recall + self.specificity) / 2

    @property
    def accuracy(self) -> np.ndarray:
        return _ratio(self.tp + self.tn, self.tp + self.fp + self.fn + self.tn)


def confusion(labels: np.ndarray, scores: np.ndarray, threshold: float, weights: np.ndarray | None = None) -> Confusion:
    """The confusion counts of each row of weights; `.f1`, `.precision`, `.recall` ... are computed from them."""
    labels, scores = _checked(labels, scores)
    rows, called = _rows(len(labels), weights), scores >= threshold
    cells = [called & (labels == 1), called & (labels == 0), ~called & (labels == 1), ~called & (labels == 0)]
    return Confusion(*(rows @ np.stack(cells, axis=1).astype(np.float64)).T)


def tuned_threshold(labels: np.ndarray, scores: np.ndarray) -> float | None:
    """The threshold with the highest F1 on these images, None without both classes.

    Halfway between the lowest score it calls positive and the next lower one, so that it does not sit on an image.
    Among equals the smallest: an image too many is looked at rather than one overlooked.
    """
    labels, scores = _checked(labels, scores)
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(labels[order])
    if not len(labels) or hits[-1] in (0, len(labels)):
        return None
    ends = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)
    f1 = 2 * hits[ends] / (ends + 1 + hits[-1])
    best = int(ends[np.flatnonzero(f1 == f1.max())[-1]])
    lowest = float(ranked[best])
    below = (lowest + float(ranked[best + 1])) / 2 if best + 1 < len(ranked) else lowest
    return below if best + 1 == len(ranked) or below > ranked[best + 1] else lowest


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
    labels, scores = _checked(labels, scores)
    where, z2, found = _bin(scores, bins), 1.959963984540054**2, []
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


def _checked(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labels, scores = np.asarray(labels, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if labels.shape != scores.shape or labels.ndim != 1:
        raise ValueError(f"labels {labels.shape} and scores {scores.shape}: one of each an image is needed")
    if not ((labels == 0) | (labels == 1)).all():
        raise ValueError("labels other than 0 and 1: leave masked images out first")
    if np.isnan(scores).any():
        raise ValueError(f"{int(np.isnan(scores).sum())} of {len(scores)} scores are NaN")
    return labels, scores


def _rows(n: int, weights: np.ndarray | None) -> np.ndarray:
    rows = np.ones((1, n)) if weights is None else np.atleast_2d(weights)
    if rows.shape[1] != n:
        raise ValueError(f"weights {rows.shape} for {n} images")
    return rows


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full(np.shape(below), np.nan), where=below > 0)


def _bin(scores: np.ndarray, bins: int) -> np.ndarray:
    """Which of `bins` intervals [k / bins, (k + 1) / bins) holds each score; 1 belongs to the last."""
    edges = np.arange(1, bins) / bins
    return np.searchsorted(edges, scores, side="right")


def _steps(labels: np.ndarray, scores: np.ndarray) -> Points:
    """True positives, false positives and threshold at each distinct score, from the highest down."""
    labels, scores = _checked(labels, scores)
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
