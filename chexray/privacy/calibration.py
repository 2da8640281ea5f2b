"""How well a re-identification network tells patients apart on the real images at hand, and what its thresholds mean.

A count of re-identified prompts says nothing until one knows how often images of two patients score as high. Pairs of
images of one patient and of two give the ROC, its area, the false-positive rate of the fixed thresholds and the
threshold at a small false-positive rate. Pairs share patients, so a million pairs of 300 patients are far fewer than a
million observations: errors are clustered by both patients of a pair.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import expit, logit
from scipy.stats import t as student

from chexray.metrics.base import Score
from chexray.metrics.common import nulls
from chexray.outputs import Output
from chexray.privacy.pair_outputs import CALIBRATED, REID_AUC, REID_THRESHOLD, THRESHOLDS, reid_fpr
from chexray.privacy.real_pairs import different_patient_pairs, pair_mean_std_error, same_patient_pairs
from chexray.privacy.shares import LEVEL, share_interval
from chexray.stats.ranking import Roc, auc_std_error, false_positive_rate, roc_auc, roc_curve, threshold_at_fpr

Scorer = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(m, d) and (m, d) float32 -> (m,) float64 in [0, 1], higher for one patient: a PairScorer of an encoder."""

Interval = tuple[float, float]

TARGET_FPR = 1e-3

MIN_FALSE_POSITIVES = 10
"""Different-patient pairs above the threshold that a false-positive rate must rest on: fewer say little about it."""

CHANCE = 0.5
"""AUC of a network that recognises nobody."""

MAX_SAME, MAX_DIFFERENT = 100_000, 1_000_000

_CHUNK = 16_384
_METHOD = "clustered by both patients of a pair"


@dataclass(frozen=True)
class Calibration:
    """What pairs of real images say. Numbers are None where `status` is not "ok" or pairs of that kind are missing.

    auc, with error and interval. threshold: at most `fpr_target` of the different-patient pairs score above it, and
    `fpr` of them do. fpr_at, tpr_at: {threshold: share of the different- and of the same-patient pairs above it}, with
    `fpr_interval` of the former; the calibrated threshold is among the keys. n_same, n_different: pairs scored, of
    n_same_all and n_different_all. n_patients: patients with an image; n_unknown: images left out for want of one.
    """

    auc: float | None = None
    auc_std_error: float | None = None
    auc_interval: Interval | None = None
    threshold: float | None = None
    threshold_interval: Interval | None = None
    fpr: float | None = None
    fpr_target: float | None = None
    fpr_at: dict[float, float] = field(default_factory=dict)
    fpr_std_error: dict[float, float | None] = field(default_factory=dict)
    fpr_interval: dict[float, Interval] = field(default_factory=dict)
    tpr_at: dict[float, float] = field(default_factory=dict)
    n_same: int = 0
    n_same_all: int = 0
    n_different: int = 0
    n_different_all: int = 0
    n_patients: int = 0
    n_unknown: int = 0
    roc: Roc | None = None
    thresholds: tuple[float, ...] = THRESHOLDS
    status: str = "ok"
    reason: str = ""
    auc_reason: str = ""
    threshold_reason: str = ""

    @property
    def recognises_nobody(self) -> str:
        """Why no score of this network is a verdict: its AUC, or the lower end of its interval, is no better than
        chance. Empty where it tells patients apart, or where no patient has two images to try it on."""
        if self.auc is None:
            return ""
        low = self.auc if self.auc_interval is None else self.auc_interval[0]
        if low > CHANCE:
            return ""
        interval = "" if self.auc_interval is None else " [{:.3f}, {:.3f}]".format(*self.auc_interval)
        return f"the network does not tell patients apart: AUC {self.auc:.3f}{interval} on real pairs, chance is 0.5"


def calibrate(
    vectors: np.ndarray,
    patients: np.ndarray | None,
    scorer: Scorer,
    rng: np.random.Generator,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    fpr: float = TARGET_FPR,
    max_same: int = MAX_SAME,
    max_different: int = MAX_DIFFERENT,
) -> Calibration:
    """The calibration of a scorer on real images: every same-patient pair and uniform different-patient pairs.

    vectors: (n, d) float32. patients: (n,) int codes, negative where unknown, None when the set names none. Above the
    caps pairs are drawn, same-patient ones evenly over patients. The threshold is at `fpr`, or at
    MIN_FALSE_POSITIVES / n_different where that is larger. Nothing is computed, and `reason` says why, without
    patients, with one patient, and for scores that are not finite; the AUC alone is missing when no patient has two
    images.
    """
    cuts = tuple(float(cut) for cut in thresholds)
    if patients is None or not (patients >= 0).any():
        return Calibration(status="undefined", reason="the real set names no patients", thresholds=cuts)
    known = np.flatnonzero(patients >= 0)
    codes = np.unique(patients[known], return_inverse=True)[1].reshape(-1).astype(np.int64)
    sizes = np.bincount(codes)
    counts: dict[str, Any] = {"n_patients": len(sizes), "n_unknown": len(patients) - len(known), "thresholds": cuts}
    counts["n_same_all"] = int((sizes * (sizes - 1) // 2).sum())
    counts["n_different_all"] = len(known) * (len(known) - 1) // 2 - counts["n_same_all"]
    if len(sizes) < 2:
        reason = "all real images are of one patient: there is no pair of two patients"
        return Calibration(status="too_few", reason=reason, **counts)
    same = same_patient_pairs(codes, max_same, rng)
    different = different_patient_pairs(codes, max_different, rng)
    counts |= {"n_same": len(same[0]), "n_different": len(different[0])}
    positive, negative = (_scores(scorer, vectors, known[left], known[right]) for left, right in (same, different))
    n_bad = sum(int((~np.isfinite(scores)).sum()) for scores in (positive, negative))
    if n_bad:
        reason = f"the scores of {n_bad} pairs of real images are NaN or infinite"
        return Calibration(status="undefined", reason=reason, **counts)
    left, right = codes[different[0]], codes[different[1]]
    return Calibration(
        **counts,
        **_ranking(positive, negative, codes[same[0]], np.stack([left, right], axis=1), len(sizes)),
        **_rates(positive, negative, left, right, cuts, fpr),
    )


def calibration_scores(calibration: Calibration) -> list[Score]:
    """reid_auc, reid_threshold and reid_fpr_<t> of each fixed threshold, with intervals, or nulls with the reason."""
    cuts = [(reid_fpr(cut), cut) for cut in calibration.thresholds]
    if calibration.status != "ok":
        outputs = (REID_AUC, REID_THRESHOLD, *(output for output, _ in cuts))
        return nulls(outputs, calibration.status, calibration.reason)
    names = ("n_same", "n_same_all", "n_different", "n_different_all", "n_patients", "n_unknown")
    about = {name: getattr(calibration, name) for name in names}
    return [
        _auc_score(calibration, about),
        _threshold_score(calibration, about),
        *(_rate_score(calibration, output, cut, about) for output, cut in cuts),
    ]


def _auc_score(calibration: Calibration, about: dict[str, Any]) -> Score:
    if calibration.auc is None:
        return nulls([REID_AUC], "too_few", calibration.auc_reason)[0]
    about = about | {"std_error_reason": calibration.auc_reason or None}
    about |= {"recognises_nobody": calibration.recognises_nobody or None}
    return _score(REID_AUC, calibration.auc, (calibration.auc_std_error, calibration.auc_interval), about)


def _threshold_score(calibration: Calibration, about: dict[str, Any]) -> Score:
    threshold = calibration.threshold
    if threshold is None:
        return nulls([REID_THRESHOLD], "too_few", calibration.threshold_reason)[0]
    about = about | {
        "false_positive_rate": calibration.fpr,
        "false_positive_rate_interval": list(calibration.fpr_interval[threshold]),
        "true_positive_rate": calibration.tpr_at.get(threshold),
        "target_reason": calibration.threshold_reason or None,
    }
    method = {"false_positive_rate_target": calibration.fpr_target}
    return _score(REID_THRESHOLD, threshold, (None, calibration.threshold_interval), about, method)


def _rate_score(calibration: Calibration, output: Output, cut: float, about: dict[str, Any]) -> Score:
    about = about | {"threshold": cut, "true_positive_rate": calibration.tpr_at.get(cut)}
    return _score(
        output, calibration.fpr_at[cut], (calibration.fpr_std_error[cut], calibration.fpr_interval[cut]), about
    )


def count_thresholds(calibration: Calibration) -> dict[str, tuple[float | None, float | None]]:
    """{label: (threshold, false-positive rate)} for `prompts.count_scores`: the fixed ones, and CALIBRATED, which has
    no threshold where the network tells nobody apart."""
    fixed: dict[str, tuple[float | None, float | None]]
    fixed = {f"{cut:g}": (cut, calibration.fpr_at.get(cut)) for cut in calibration.thresholds}
    threshold = None if calibration.recognises_nobody else calibration.threshold
    return {**fixed, CALIBRATED: (threshold, calibration.fpr)}


def _scores(scorer: Scorer, vectors: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(m,) float64, a chunk of pairs at a time: a million pairs of 128 numbers are a gigabyte."""
    starts = range(0, len(left), _CHUNK)
    found = [scorer(vectors[left[at : at + _CHUNK]], vectors[right[at : at + _CHUNK]]) for at in starts]
    return np.concatenate([np.empty(0), *(np.asarray(part, dtype=np.float64) for part in found)])


def _ranking(
    positive: np.ndarray, negative: np.ndarray, same: np.ndarray, different: np.ndarray, n_patients: int
) -> dict[str, Any]:
    """The AUC with its error and the ROC; same: (n,), different: (m, 2) patient codes of the pairs."""
    if not len(positive):
        return {"auc_reason": "no patient has two images"}
    auc = roc_auc(positive, negative)
    found: dict[str, Any] = {"auc": auc, "roc": roc_curve(positive, negative)}
    if len(np.unique(same)) < 2:
        return {**found, "auc_reason": "only one patient has two images: there is nothing to estimate an error from"}
    error = auc_std_error(positive, negative, same, different)
    if not error > 0 or auc in (0.0, 1.0):
        return {
            **found,
            "auc_reason": "the scores separate the pairs completely: no sample of this size shows the error",
        }
    # On the logit scale the interval stays in (0, 1) and leans to the longer side, as the AUC does near 1.
    half = float(student.ppf(0.5 + LEVEL / 2, n_patients - 1)) * error / (auc * (1 - auc))
    interval = (float(expit(logit(auc) - half)), float(expit(logit(auc) + half)))
    return {**found, "auc_std_error": error, "auc_interval": interval}


def _rates(
    positive: np.ndarray,
    negative: np.ndarray,
    left: np.ndarray,
    right: np.ndarray,
    thresholds: Sequence[float],
    fpr: float,
) -> dict[str, Any]:
    """The calibrated threshold, and the rates at it and at the fixed ones."""
    found: dict[str, Any] = {}
    cuts = list(thresholds)
    least = MIN_FALSE_POSITIVES / len(negative)
    target = max(fpr, least)
    if target > 0.5:
        found["threshold_reason"] = (
            f"{len(negative)} pairs of two patients, and at least {2 * MIN_FALSE_POSITIVES} are needed"
        )
    else:
        threshold, attained = threshold_at_fpr(negative, target)
        found |= {"threshold": threshold, "fpr": attained, "fpr_target": target}
        cuts.append(threshold)
        if target > fpr:
            found["threshold_reason"] = (
                f"{len(negative)} pairs of two patients support no rate below {least:.2g} "
                f"({MIN_FALSE_POSITIVES} pairs above the threshold)"
            )
    shares = {cut: false_positive_rate(negative, cut) for cut in cuts}
    errors = {cut: _rate_error(negative > cut, left, right) for cut in cuts}
    found |= {"fpr_at": shares, "fpr_std_error": {cut: error for cut, (error, _) in errors.items()}}
    found["fpr_interval"] = {cut: interval for cut, (_, interval) in errors.items()}
    if len(positive):
        found["tpr_at"] = {cut: float(np.mean(positive > cut)) for cut in cuts}
    if "threshold" in found:
        low, high = found["fpr_interval"][found["threshold"]]
        ends = np.quantile(negative, [1 - high, 1 - low], method="higher")  # Woodruff 1952
        found["threshold_interval"] = (min(float(ends[0]), threshold), max(float(ends[1]), threshold))
    return found


def _rate_error(hit: np.ndarray, left: np.ndarray, right: np.ndarray) -> tuple[float | None, Interval]:
    """Standard error and interval of a share of pairs of two patients.

    The interval is Clopper and Pearson's at the number of independent pairs that would have this error, reduced for
    the degrees of freedom (Korn and Graubard 1998). Measured coverage 0.85 to 0.99 at 15 to 40 patients and 0.91 to
    0.99 from 120 on, where that of independent pairs falls to 0.13. Where all or no pairs are above, the error is not
    known, and pairs count as many as can be made without using a patient twice.
    """
    share, n_patients = float(np.mean(hit)), int(max(left.max(), right.max())) + 1
    if share in (0.0, 1.0):
        return None, share_interval(share, n_patients // 2)
    error = pair_mean_std_error(hit.astype(np.float64), left, right)
    freedom = float(student.ppf(0.5 + LEVEL / 2, len(hit) - 1) / student.ppf(0.5 + LEVEL / 2, n_patients - 1)) ** 2
    n = share * (1 - share) / error**2 * freedom
    # With hardly any patients the error may exceed what one pair has; a pair is the least there is.
    return error, share_interval(share, max(1.0, n))


def _score(
    output: Output,
    value: float,
    error: tuple[float | None, Interval | None],
    about: dict[str, Any],
    method: dict[str, Any] | None = None,
) -> Score:
    """The number with its error; what is None in `about` is left out."""
    std_error, interval = error
    low, high = interval or (None, None)
    return Score(
        output, value, std_error=std_error, ci_low=low, ci_high=high, std_error_method=_METHOD if interval else "",
        method=method or {}, about={name: said for name, said in about.items() if said is not None},
    )  # fmt: skip
