"""Which groups of patients a gap can be told for, and how large it is by chance where all are served equally well.

A group whose AUROC rests on a few patients moves by chance as much as any real gap, and its own resamples do not show
it: with two images no resample moves at all. So groups too small are left out (`judged`), and the errors of the others
come from all groups together, at each one's own numbers of positives and negatives (`gap_by_chance`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from chexray.stats.classification import placements

MIN_PATIENTS = 5
"""Patients with a finding, and without it, from which on a group can be judged by it; images where none are named."""

SMALL_GROUP = 100
"""Images below which a group is left out rather than cost the others more than half of their findings in common."""

DRAWS = 20_000
LEVEL = 0.96
"""Quantile of the deviates that is stated as 95 %: at 0.95 stars came to 4.5 to 7 % of equal populations, since the
spread of the shares is estimated and few of them are no normal deviate."""


@dataclass(frozen=True)
class Placed:
    """Test images placed in the other class's scores: what the error of a group's AUROC is made of.

    labels: (n, 14) int8. shares: (n, 14) float64 of `placements` among all test images, mean over trainings, NaN where
    masked or without both classes. codes: (n,) patients from 0. members: {group: (k,) int64 its images}.
    """

    labels: np.ndarray
    shares: np.ndarray
    codes: np.ndarray
    members: Mapping[str, np.ndarray]

    @classmethod
    def of(
        cls, labels: np.ndarray, probabilities: np.ndarray, codes: np.ndarray, members: Mapping[str, np.ndarray]
    ) -> Placed:
        """probabilities: (S, n, 14)."""
        shares = np.full(labels.shape, np.nan)
        for f in range(labels.shape[1]) if members else ():
            known = labels[:, f] >= 0
            shares[known, f] = np.mean([placements(labels[known, f], each[known, f]) for each in probabilities], axis=0)
        return cls(labels, shares, codes, members)


def judged(units: Mapping[str, np.ndarray], n_images: Mapping[str, int]) -> tuple[list[str], np.ndarray]:
    """(groups that can be judged, in their order; (14,) bool the findings that all of them can be judged by).

    units: {group: (14,)} effective patients of the rarer class of each finding. Left out are groups that can be judged
    by no finding; then, the smallest first, those of fewer than SMALL_GROUP images that would cost the others more than
    half of their common findings, and any as long as no finding is common to all.
    """
    can = {name: own >= MIN_PATIENTS * (1 - 1e-9) for name, own in units.items()}
    kept = [name for name, own in can.items() if own.any()]
    for name in sorted(kept, key=lambda name: n_images[name]):
        if len(kept) < 3:
            break
        common = _all([can[each] for each in kept])
        without = _all([can[each] for each in kept if each != name])
        if not common.any() or (n_images[name] < SMALL_GROUP and 2 * common.sum() < without.sum()):
            kept.remove(name)
    return kept, _all([can[name] for name in kept]) if kept else np.zeros(14, bool)


def _all(masks: Sequence[np.ndarray]) -> np.ndarray:
    return np.logical_and.reduce(masks)


def gap_by_chance(placed: Placed, names: Sequence[str], findings: np.ndarray) -> float:
    """The gap between best and worst group that 95 % of populations stay below in which all are served equally well.

    The gap is that of the mean AUROC over `findings`, (14,) bool, of which each group must hold both classes. To first
    order a group's AUROC is its positives' mean share less its negatives' (`Placed`). The spread of these shares, and
    how alike they are within an image and within a patient, is taken from all groups together; how many images and
    patients they are averaged over, from each group. What a single pair of images adds (Hanley and McNeil 1982) is 2
    to 7 % of the variance with 10 positives. The gap is then that of normal deviates of these covariances.
    Measured, 300 to 500 draws a case (tests/calibration/gaps.py): a star in 2.7 to 5.6 % of populations served equally
    well (at most 6.2 % of those in which a gap can be told), groups of 2 to 5,000 images, prevalences 0.5 to 50 %,
    AUROC 0.7 to 0.95, 1 to 10 images a patient; and in 0.83 to 1.00 of those with AUROC 0.65 against 0.85 in a group
    of 100 with 20 positives or more. Bootstrap errors of each group alone, as before, starred 65 to 97 % with a group
    of two images, and 23 to 25 % at AUROC 0.95 with groups of 30 and 50.
    """
    images = np.concatenate([placed.members[name] for name in names])
    labels, shares = placed.labels[images][:, findings], placed.shares[images][:, findings]
    group = np.repeat(np.arange(len(names)), [len(placed.members[name]) for name in names])
    codes = np.unique(placed.codes[images], return_inverse=True)[1].reshape(-1)
    alone, spread = _standardised(labels, shares)
    pooled = _weights(labels, spread, np.zeros_like(group))
    alike = _correlations(alone, np.abs(pooled), codes)
    covariance = _covariance(_weights(labels, spread, group), group, codes, alike)
    covariance[np.diag_indices(len(names))] += _of_single_pairs(labels, shares, spread, group, covariance)
    value, vector = np.linalg.eigh(covariance)
    root = vector * np.sqrt(np.maximum(value, 0))
    drawn = np.random.default_rng(0).normal(size=(DRAWS, len(names))) @ root.T
    return float(np.quantile(drawn.max(axis=1) - drawn.min(axis=1), LEVEL))


def _standardised(labels: np.ndarray, shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shares less the mean of their class, over its standard deviation, 0 where masked; and that deviation: (n, F)."""
    alone, spread = np.zeros(shares.shape), np.zeros(shares.shape)
    for f in range(shares.shape[1]):
        for label in (0, 1):
            own = labels[:, f] == label
            spread[own, f] = shares[own, f].std(ddof=1) if own.sum() > 1 else 0.0
            if own.any() and spread[own, f][0] > 0:
                alone[own, f] = (shares[own, f] - shares[own, f].mean()) / spread[own, f]
    return alone, spread


def _weights(labels: np.ndarray, spread: np.ndarray, group: np.ndarray) -> np.ndarray:
    """(n, F): by how much a group's mean AUROC moves when an image's share moves by one standard deviation."""
    weights = np.zeros(spread.shape)
    for label, sign in ((1, 1.0), (0, -1.0)):
        own = (labels == label).astype(np.float64)
        counts = np.stack([np.bincount(group, weights=column) for column in own.T], axis=1)
        weights += sign * own * spread / np.maximum(counts[group], 1)
    return weights / labels.shape[1]


def _of_single_pairs(
    labels: np.ndarray, shares: np.ndarray, spread: np.ndarray, group: np.ndarray, covariance: np.ndarray
) -> np.ndarray:
    """(G,): the second-order part of the variance of each group's mean AUROC.

    (A (1 - A) - v1 - v0) / (n1 n0) a finding, v the variances of the shares; where patients make the first-order part
    larger than that of independent images, larger by the square of that ratio.
    """
    found, independent = np.zeros(len(covariance)), np.zeros(len(covariance))
    for f in range(labels.shape[1]):
        positive, negative = labels[:, f] == 1, labels[:, f] == 0
        n1, n0 = (np.bincount(group, weights=own, minlength=len(covariance)) for own in (positive, negative))
        auroc, v1, v0 = shares[positive, f].mean(), spread[positive, f][0] ** 2, spread[negative, f][0] ** 2
        found += max(0.0, auroc * (1 - auroc) - v1 - v0) / (n1 * n0)
        independent += v1 / n1 + v0 / n0
    width = labels.shape[1] ** 2
    ratio = np.divide(np.diag(covariance) * width, independent, out=np.ones_like(found), where=independent > 0)
    return found / width * ratio**2


def _sums(values: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """(patients, F): sums of (n, F) within each patient."""
    return np.stack([np.bincount(codes, weights=column, minlength=codes.max() + 1) for column in values.T], axis=1)


def _pairs(a: np.ndarray, b: np.ndarray, codes: np.ndarray, same_images: bool) -> np.ndarray:
    """(3,): sums of a x b over pairs of entries that share the image, the patient and finding, or the patient alone.

    a, b: (n, F). same_images: whether a and b are of the same images; else a pair of one image is no pair.
    """
    patient_a, patient_b = _sums(a, codes), _sums(b, codes)
    whole = float(patient_a.sum(axis=1) @ patient_b.sum(axis=1))
    finding = float((patient_a * patient_b).sum())
    image = float(a.sum(axis=1) @ b.sum(axis=1)) if same_images else 0.0
    own = float((a * b).sum()) if same_images else 0.0
    return np.array([image - own, finding - own, whole - finding - image + own])


def _correlations(alone: np.ndarray, weights: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """(3,) in 0 .. 1: how alike standardised shares are in the three kinds of `_pairs`, weighted as they count."""
    moved = alone * weights
    found, possible = _pairs(moved, moved, codes, True), _pairs(weights, weights, codes, True)
    tiny = 1e-9 * float((weights**2).sum())
    return np.clip(np.divide(found, possible, out=np.zeros(3), where=possible > tiny), 0.0, 1.0)


def _covariance(weights: np.ndarray, group: np.ndarray, codes: np.ndarray, alike: np.ndarray) -> np.ndarray:
    """(G, G) of the groups' mean AUROCs; a variance is at least that of independent images."""
    count = int(group.max()) + 1
    own = [np.where((group == g)[:, None], weights, 0.0) for g in range(count)]
    covariance = np.empty((count, count))
    for g in range(count):
        independent = float((own[g] ** 2).sum())
        covariance[g, g] = max(independent, independent + float(alike @ _pairs(own[g], own[g], codes, True)))
        for h in range(g):
            covariance[g, h] = covariance[h, g] = float(alike @ _pairs(own[g], own[h], codes, False))
    return covariance
