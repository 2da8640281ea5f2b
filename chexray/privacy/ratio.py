"""Per-image memorisation test: is this synthetic image nearer to training than an unseen real image would be?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from chexray.errors import MetricError

HELD_OUT = "held-out"
TRAINING_PATIENTS = "training patients"

ALPHA = 0.01
"""Share of unseen real images that the test may flag."""

MIN_PATIENTS = 60
"""Patients of the null from which its images are ranked one by one. Images of one patient lie near training together,
so that few patients with many images know less of chance than their images pretend: 15 patients of 20 images flagged
1.4 to 2.2 times the stated share of unseen images and raised up to 17 % false alarms, 20 of 10 up to 1.6 times and
10 %, 60 of 5 1.2 times and 3 to 4 % (Monte Carlo, 100 to 200 draws each). Below it, patients are ranked."""


@dataclass(frozen=True)
class Calibrated:
    """Which values are smaller than those of the null, at a known rate of false flags.

    p_value: (n,) float64, (1 + #{null <= value}) / (m + 1), which is at most alpha with probability at most alpha for a
    value exchangeable with the null ones (conformal p-value, Vovk et al. 2005), whatever their distribution.
    flagged: (n,) bool, p_value <= alpha, which is value < threshold. alpha: asked for, or 1/(m + 1) where m null values
    support no smaller one. attained_alpha: the rate that ranks and ties among the null values leave of it: without ties
    floor(alpha (m + 1)) / (m + 1), with ties an estimate, 0 where nothing can be flagged. rank: threshold is the
    rank-th smallest null value. n_patients: None where images were ranked. Where patients were, their number: then m is
    that number in the lines above, #{null <= value} counts patients by the share of their images (hierarchical
    conformal p-values, Lee, Barber and Willett 2023), and `patients_below` is that count below the threshold.
    """

    p_value: np.ndarray
    flagged: np.ndarray
    alpha: float
    attained_alpha: float
    threshold: float
    rank: int
    n_patients: int | None = None
    patients_below: float = 0.0


def calibrated(
    values: np.ndarray, null: np.ndarray, alpha: float = ALPHA, subjects: np.ndarray | None = None
) -> Calibrated:
    """The one-sided conformal test of each of (n,) values against (m,) null values, m >= 1, small ones flagged.

    subjects: (m,) patient codes of the null values. With fewer than MIN_PATIENTS of them, and several values of some,
    patients are ranked in place of images.
    """
    if not 0 < alpha < 1:
        raise MetricError(f"alpha is {alpha}, expected a share of false flags between 0 and 1, such as {ALPHA}")
    m = len(null)
    if subjects is not None and len(np.unique(subjects)) < min(m, MIN_PATIENTS):
        return _calibrated_by_patients(values, null, alpha, subjects)
    ordered = np.sort(null)
    at_most = np.searchsorted(ordered, values, side="right")
    rank = math.floor(alpha * (m + 1) + 1e-9)  # 0.07 * 100 is 7.000000000000001, 0.29 * 100 is 28.999999999999996
    used = alpha if rank else 1 / (m + 1)
    rank = max(rank, 1)
    threshold = float(ordered[rank - 1])
    # A null image in place of the synthetic one would be flagged when at most `rank` of all m + 1 lie at or below it.
    # Counting with an unflagged newcomer: all of a group of equal null values, or none of it.
    tied = int(np.searchsorted(ordered, threshold, side="right"))
    below = rank if tied == rank else int(np.searchsorted(ordered, threshold, side="left"))
    return Calibrated((1 + at_most) / (m + 1), at_most < rank, used, below / (m + 1), threshold, rank)


def _calibrated_by_patients(values: np.ndarray, null: np.ndarray, alpha: float, subjects: np.ndarray) -> Calibrated:
    """Each patient counts once, by the share of its images at or below the value: exact for an image of a new patient,
    however alike the images of one patient are, and below alpha where they are not alike."""
    _, codes, sizes = np.unique(subjects, return_inverse=True, return_counts=True)
    n_patients, order = len(sizes), np.argsort(null, kind="stable")
    ordered = null[order]
    patients = np.concatenate([[0.0], np.cumsum(1 / sizes[codes.reshape(-1)[order]])])
    at_most = patients[np.searchsorted(ordered, values, side="right")]
    used = max(alpha, 1 / (n_patients + 1))
    budget = used * (n_patients + 1) - 1 + 1e-9
    rank = int(np.searchsorted(patients[1:], budget, side="right")) + 1
    if rank > len(ordered):
        rank = len(ordered)
    threshold = float(ordered[rank - 1])
    first = int(np.searchsorted(ordered, threshold, side="left"))
    below = float(patients[first])
    tied = int(np.searchsorted(ordered, threshold, side="right")) - first > 1
    attained = (below + (not tied)) / (n_patients + 1)
    return Calibrated(
        (1 + at_most) / (n_patients + 1), values < threshold, used, attained, threshold, first + 1, n_patients, below
    )


@dataclass(frozen=True)
class RatioTest:
    """The ratio of each synthetic image, the null ratios, and which images are flagged at which false-positive rate.

    ratio, p_value: (n,) float64; small means nearer to training than unseen real images are. flagged: (n,) bool.
    null_ratio: (m,) float64 of the null images that have both distances; null_kept: (m + dropped,) bool, which they
    are. null: "held-out" (ratio_test) or "training patients" (neighbour_ratio). alpha_asked: as given; `calibration`
    holds what the null could support.
    """

    ratio: np.ndarray
    null_ratio: np.ndarray
    null_kept: np.ndarray
    null: str
    alpha_asked: float
    calibration: Calibrated

    def rescaled(self, power: np.ndarray, null_power: np.ndarray, subjects: np.ndarray | None = None) -> RatioTest:
        """The test of the ratios raised to a power each, (n,) and (m,) float64: 0, 1 and infinity stay what they are.

        subjects: (m,) patient codes of the null ratios."""
        ratio, null = self.ratio**power, self.null_ratio**null_power
        found = calibrated(ratio, null, self.alpha_asked, subjects)
        return RatioTest(ratio, null, self.null_kept, self.null, self.alpha_asked, found)

    @property
    def p_value(self) -> np.ndarray:
        return self.calibration.p_value

    @property
    def flagged(self) -> np.ndarray:
        return self.calibration.flagged

    @property
    def attained_alpha(self) -> float:
        return self.calibration.attained_alpha

    @property
    def threshold(self) -> float:
        """Images with a smaller ratio are flagged."""
        return self.calibration.threshold

    @property
    def n_flagged(self) -> int:
        return int(self.flagged.sum())

    @property
    def expected(self) -> float:
        """How many of as many unseen real images would be flagged."""
        return self.attained_alpha * len(self.ratio)

    @property
    def excess(self) -> float:
        """Flagged images beyond the expected: below 0 as often as above where nothing is copied."""
        return self.n_flagged - self.expected

    @cached_property
    def ranking(self) -> np.ndarray:
        """(n,) int64: the synthetic images, the most suspicious first; equal ratios in their order."""
        return np.argsort(self.ratio, kind="stable")

    @property
    def note(self) -> str:
        """What a reader must know about the null: too small for alpha, or holding copies of training images itself."""
        m, found = len(self.null_ratio), []
        patients = self.calibration.n_patients
        if patients is not None:
            found.append(f"the {m} baseline images are of {patients} patients: patients are ranked, not images")
        if self.calibration.alpha > self.alpha_asked:
            units = f"{m} baseline images" if patients is None else f"{patients} baseline patients"
            found.append(
                f"{units} support no false-positive rate below {self.calibration.alpha:.2g}: it was used "
                f"instead of {self.alpha_asked:g}"
            )
        zeros = int((self.null_ratio == 0).sum())
        if zeros:
            found.append(f"{zeros} of {m} baseline images equal a training image of another patient in this encoder")
        return "; ".join(found)


def ratio_test(
    synthetic_to_training: np.ndarray,
    synthetic_to_heldout: np.ndarray,
    heldout_to_training: np.ndarray,
    heldout_to_heldout: np.ndarray,
    *,
    alpha: float = ALPHA,
    subjects: np.ndarray | None = None,
) -> RatioTest:
    """r = d(synthetic, nearest training) / d(synthetic, nearest held-out image) against held-out images' own ratios.

    Distances, not squared: (n,), (n,), (m,), (m,) float64; the last two to images of other patients than the image's
    own. The null ratio is d(held-out, training) / d(held-out, other held-out). subjects: (m,) patient codes of the
    held-out images; with fewer than MIN_PATIENTS of them patients are ranked, not images.

    A generator that merely varies too little lies near training and held-out images alike, and the ratio cancels that.
    Training and held-out sets may differ in size: synthetic and null ratios divide distances to the same two sets, so
    a small held-out set lowers both (and the threshold with them, and so the sensitivity), not the rate of false flags.
    Monte Carlo, 1,200 training and 120 held-out images, 8 to 128 dimensions: false flags 1.0 times the attained alpha
    (standard error .03), .7 to 1.0 times for a generator of low diversity, while .9 of all images lie nearer to
    training than to held-out images without any copy: `closer_to_training` needs matched sizes, this does not.

    The held-out images must be of the training set's source: of another hospital, they make everything look copied.
    Synthetic images that resemble each other are flagged or passed together: the rate holds on average over sets.
    """
    return _test(
        _ratio("synthetic", synthetic_to_training, synthetic_to_heldout),
        _ratio("held-out", heldout_to_training, heldout_to_heldout),
        HELD_OUT,
        alpha,
        subjects,
    )


def neighbour_ratio(
    synthetic_first: np.ndarray,
    synthetic_second: np.ndarray,
    training_first: np.ndarray,
    training_second: np.ndarray,
    *,
    alpha: float = ALPHA,
    subjects: np.ndarray | None = None,
) -> RatioTest:
    """The fallback without a held-out set: nearest training image over the nearest of any other training patient.

    synthetic_first: (n,) distances to the nearest training image t; synthetic_second: to the nearest training image of
    a patient other than that of t, so that two images of one patient do not hide a copy of either. training_first,
    training_second: (m,) the same for training images, their own patient left out of both. Ratios lie in [0, 1].
    subjects: (m,) patient codes of the latter, see `ratio_test`.

    Blind where the training set shows one image under two patients: both distances are then small.
    """
    return _test(
        _ratio("synthetic", synthetic_first, synthetic_second),
        _ratio("training", training_first, training_second),
        TRAINING_PATIENTS,
        alpha,
        subjects,
    )


def _test(ratio: np.ndarray, null: np.ndarray, kind: str, alpha: float, subjects: np.ndarray | None) -> RatioTest:
    if np.isnan(ratio).any():
        raise MetricError("a synthetic image has no reference image to be compared with: a reference set is empty")
    kept = ~np.isnan(null)
    if not kept.any():
        raise MetricError(
            f"the baseline ({kind}) has no ratio: every image needs a training and a reference image of another patient"
        )
    codes = None if subjects is None else np.asarray(subjects)[kept]
    return RatioTest(ratio, null[kept], kept, kind, alpha, calibrated(ratio, null[kept], alpha, codes))


def ratios(near: np.ndarray, far: np.ndarray) -> np.ndarray:
    """The ratios of further queries, (n,) float64, as the tests here take them; NaN without anything to compare."""
    return _ratio("planted", near, far)


def _ratio(side: str, near: np.ndarray, far: np.ndarray) -> np.ndarray:
    """near / far: 1 for 0/0, which is no evidence; NaN where a distance is infinite: there is nothing to compare."""
    near, far = np.asarray(near, dtype=np.float64), np.asarray(far, dtype=np.float64)
    if near.shape != far.shape or near.ndim != 1:
        raise ValueError(f"{side} distances of shapes {near.shape} and {far.shape}: one of each per image is needed")
    if not ((near >= 0).all() and (far >= 0).all()):
        raise ValueError(f"{side} distances are negative or NaN")
    missing = np.isinf(near) | np.isinf(far)
    # An equal held-out image proves that the image is not of the training set alone: infinite, never flagged.
    ratio = np.where(near == far, 1.0, np.inf)
    np.divide(near, far, out=ratio, where=(near != far) & (far > 0) & ~missing)
    return np.where(missing, np.nan, ratio)
