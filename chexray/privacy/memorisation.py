"""What the search for copies of training images found, as numbers with intervals and their blind spots."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from chexray.metrics.base import Output, Score
from chexray.metrics.common import Error, Floor, measured, nulls
from chexray.privacy.alarm import FALSE_ALARM, Alarm, independent_n, raise_alarm
from chexray.privacy.baseline import Baseline
from chexray.privacy.case_mix import CaseMix, Dimensions, case_mix
from chexray.privacy.outliers import lowest_by_chance
from chexray.privacy.ratio import (
    ALPHA,
    HELD_OUT,
    TRAINING_PATIENTS,
    Calibrated,
    RatioTest,
    calibrated,
    neighbour_ratio,
    ratio_test,
)
from chexray.privacy.shares import (
    effective_n,
    excess_interval,
    quantile_interval,
    rate_interval,
    share_interval,
)
from chexray.stats.resampling import clustered_std_error

__all__ = [
    "ALPHA", "HELD_OUT", "OUTPUTS", "TRAINING_PATIENTS", "Calibrated", "MatchedReferences", "RatioTest", "calibrated",
    "memorisation_nulls", "memorisation_scores", "neighbour_ratio", "ratio_test",
]  # fmt: skip

OUTPUTS = (
    Output("memorised_share", "lower"),
    Output("memorised_excess", "lower"),
    Output("closer_to_training", "lower"),
    Output("dcr_q01", "higher"),
    Output("dcr_q05", "higher"),
    Output("dcr_below_null", "lower"),
)
SHARE, EXCESS, CLOSER, Q01, Q05, BELOW = OUTPUTS

_BLIND_DISTANCE = "whether anything is copied: alarms falsely on a generator of low diversity; names no copy"
CANNOT_SEE = {
    SHARE: "a copy altered so much that this encoder finds it no nearer than unseen images; parts of an image",
    EXCESS: "which images are copies, and shares below smallest_share_noticed; each image has its own p-value",
    CLOSER: "a few copies among many images: 1 % of copies moves it by .005",
    Q01: _BLIND_DISTANCE,
    Q05: _BLIND_DISTANCE,
    BELOW: _BLIND_DISTANCE,
}


@dataclass(frozen=True)
class MatchedReferences:
    """Distances of the synthetic images to equally many training and held-out images: the larger set is subsampled.

    to_training, to_heldout: (n,) float64. n_training, n_heldout: images in the two reference sets; unequal ones decide
    the share by themselves. training_row, heldout_row: (n,) int64 rows of the nearest ones, or None. One reference
    image near many synthetic ones sways them together; with the rows that is in the error, without them the error is
    some 20 % too small (Monte Carlo: 1.0 to 1.3 times, 300 and 1,000 images in 16 and 256 dimensions).
    """

    to_training: np.ndarray
    to_heldout: np.ndarray
    n_training: int
    n_heldout: int
    training_row: np.ndarray | None = None
    heldout_row: np.ndarray | None = None


def memorisation_nulls(status: str, reason: str) -> list[Score]:
    """All scores of `memorisation_scores` as nulls with one reason, where there is no test to score."""
    return nulls(OUTPUTS, status, reason)


def memorisation_scores(
    test: RatioTest,
    to_training: np.ndarray,
    null_to_training: np.ndarray,
    *,
    matched: MatchedReferences | None = None,
    null_subjects: np.ndarray | None = None,
    prompts: np.ndarray | None = None,
    n_searches: int = 1,
    groups: np.ndarray | None = None,
    dimensions: Dimensions | None = None,
    baseline: Baseline | None = None,
) -> list[Score]:
    """The six OUTPUTS, in order. Lower is better, but for the distance quantiles.

    memorised_share: share of synthetic images flagged by `test`; its floor is the rate of false flags.
    memorised_excess: what it exceeds that rate by, as large as the share of copies where all of them are flagged. The
    interval holds both uncertainties, of the share and of the threshold, which comes from a finite null.
    closer_to_training: share nearer to a training image than to a held-out one, of `matched`; .5 without copies.
    dcr_q01, dcr_q05: quantiles of the distance to the nearest training image (distance to closest record), in feature
    units; floor: the same of unseen real images. dcr_below_null: share nearer to training than all but alpha of them.

    to_training: (n,) distances to the whole training set; null_to_training: the same of all images the null of `test`
    was made of, in its order. null_subjects: their patient codes. prompts: (n,) int64 codes, equal for synthetic images
    of one prompt. Both widen the intervals to what patients and prompts, rather than images, are worth.
    n_searches: searches of the same audit (encoders times sets). params["significant"] is the alarm: an exact test
    (alarm.py) corrected for all of them (Bonferroni), so that at most 2.5 % of audits without a copy alarm.
    groups: (n,) codes of synthetic images that repeat one another (repeats.py): they count once. dimensions: of all
    images of both sides, in their order (case_mix.py): where the case mix differs, the alarm must also hold with
    ratios brought to one dimension. baseline: where it has a `problem`, share and excess are null for that reason.
    params["outlier"]: whether the smallest ratio lies below what chance gives in 2.5 % of audits (outliers.py).

    Monte Carlo without a copy, 200 draws each (tests/calibration/verdict.py): 0 to 1.7 % of searches alarm and 0 to
    3.5 % have an outlier, over 3 to 16 dimensions, 60 to 400 held-out and 80 to 2,000 synthetic images, 10 to 40 modes
    repeated, 15 patients of 20 images to 60 of 5, and a class of 2 or 4 dimensions that makes 10 % of the real and 50 %
    of the synthetic images (4 to 5 times as many flags as expected). Unnamed follow-ups: 0 to 1 %. Of radiographs (20
    patients, each repeated 20 times with noise, 200 splits of NIH images, `pixels`): 0 %. 5 % of near or exact copies
    among 400 images alarm in 98 to 100 %, also beside such a class and at low diversity.
    """
    kept = test.null_kept
    subjects = None if null_subjects is None else np.asarray(null_subjects)[kept]
    null = np.asarray(null_to_training, dtype=np.float64)[kept]
    common = {"null": test.null, "alpha": test.alpha_asked, "n_null": len(null)}
    if not len(test.ratio):
        return memorisation_nulls("too_few", "0 synthetic images, and at least 1 is needed")
    if baseline is not None and baseline.problem:
        first = nulls((SHARE, EXCESS), "undefined", baseline.problem)
    else:
        mix = None
        if dimensions is not None:
            mix = case_mix(test, Dimensions(dimensions.synthetic, dimensions.null[kept]), subjects, [groups, prompts])
        first = _flagged(test, subjects, prompts, groups, mix, n_searches, common)
    return [
        *first,
        _closer(test, matched, prompts),
        *(
            _quantile(output, q, to_training, null, subjects, prompts, common)
            for output, q in ((Q01, 0.01), (Q05, 0.05))
        ),
        _below(test, to_training, null, subjects, prompts, common),
    ]


def _flagged(
    test: RatioTest,
    subjects: np.ndarray | None,
    prompts: np.ndarray | None,
    groups: np.ndarray | None,
    mix: CaseMix | None,
    n_searches: int,
    common: dict[str, Any],
) -> list[Score]:
    if not test.attained_alpha:
        reason = f"nothing can be flagged: {test.note or 'the smallest null ratios are all equal'}"
        return nulls((SHARE, EXCESS), "undefined", reason)
    rate, share = test.attained_alpha, test.n_flagged / len(test.ratio)
    n = independent_n(test.flagged, prompts, groups)
    m = float(test.calibration.n_patients or effective_n(test.null_ratio <= test.threshold, subjects))
    alarm = raise_alarm(test, subjects, prompts, n_searches, groups)
    params: dict[str, Any] = {
        **common,
        "attained_alpha": rate,
        "n_flagged": test.n_flagged,
        "n_expected": test.expected,
        "threshold_ratio": test.threshold,
        "n_below_all_null": int((test.ratio < test.null_ratio.min()).sum()),
        "lowest_ratio": _finite(test.ratio.min()),
        "lowest_null_ratio": _finite(test.null_ratio.min()),
        "smallest_share_noticed": alarm.smallest_share,
        **_outlier(test, mix, n_searches),
    }
    if groups is not None and test.n_flagged:
        params["n_flagged_events"] = len(np.unique(groups[test.flagged]))
    if test.note:
        params["note"] = test.note
    method = {"ci_effective_n": n, "ci_effective_n_null": m}
    low, high = excess_interval(share, n, rate, m)
    least, most = rate_interval(rate, m)
    verdict = _allowing_for(mix, alarm, subjects, prompts, groups, n_searches)
    return [
        _with_interval(SHARE, share, share_interval(share, n), "clopper_pearson", rate, **params, **method),
        _with_interval(
            EXCESS, share - rate, (low, high), "mover", 0.0, **params, **method,
            ci_attained_alpha=[least, most],
            **verdict,
            n_searches=n_searches,
        ),
    ]  # fmt: skip


def _outlier(test: RatioTest, mix: CaseMix | None, n_searches: int) -> dict[str, Any]:
    """Whether the smallest ratio is smaller than chance makes it, as it is and brought to one dimension, and the bound
    on the former."""
    tests = [test] if mix is None else [test, mix.test]
    bounds = [lowest_by_chance(each.null_ratio, len(each.ratio), FALSE_ALARM / n_searches) for each in tests]
    found = all(
        bound is not None and float(each.ratio.min()) < bound for each, bound in zip(tests, bounds, strict=True)
    )
    return {"outlier": found, "lowest_ratio_by_chance": bounds[0]}


def _allowing_for(
    mix: CaseMix | None,
    alarm: Alarm,
    subjects: np.ndarray | None,
    prompts: np.ndarray | None,
    groups: np.ndarray | None,
    n_searches: int,
) -> dict[str, Any]:
    """The verdict as params. A shift of case mix cannot make it, only unmake it: the larger p-value counts."""
    found: dict[str, Any] = {"significant": alarm.significant, "p_value": alarm.p_value}
    if mix is None:
        return found
    found |= {"local_dimension": mix.synthetic, "local_dimension_null": mix.null, "case_mix_z": mix.z}
    if not mix.shifted:
        return found
    allowed = raise_alarm(mix.test, subjects, prompts, n_searches, groups)
    p_value = max(alarm.p_value, allowed.p_value)
    return found | {
        "case_mix_shifted": True,
        "p_value_as_if_alike": alarm.p_value,
        "p_value": p_value,
        "significant": p_value <= FALSE_ALARM,
    }


def _finite(ratio: float) -> float | None:
    return float(ratio) if math.isfinite(ratio) else None


def _closer(test: RatioTest, matched: MatchedReferences | None, prompts: np.ndarray | None) -> Score:
    if matched is None:
        reason = "no held-out images" if test.null != HELD_OUT else "no distances to reference sets of equal size"
        return nulls([CLOSER], "undefined", reason)[0]
    if matched.n_training != matched.n_heldout:
        reason = (
            f"{matched.n_training} training and {matched.n_heldout} held-out images: the larger set would win without "
            "any copy, subsample it"
        )
        return nulls([CLOSER], "undefined", reason)[0]
    near, far = (np.asarray(side, dtype=np.float64) for side in (matched.to_training, matched.to_heldout))
    closer = (near < far) + 0.5 * (near == far)
    value, n = float(closer.mean()), len(closer)
    errors = [math.sqrt(max(value * (1 - value), 0.25 / n) / n)]
    at_half, method = [math.sqrt(0.25 / n)], "binomial"
    if matched.training_row is not None and matched.heldout_row is not None:
        nearer = np.where(near <= far, matched.training_row, -1 - matched.heldout_row)
        errors.append(clustered_std_error(closer, nearer))
        sums = np.unique(nearer, return_inverse=True)[1].reshape(-1)
        at_half.append(math.sqrt(float(np.sum(np.bincount(sums, weights=closer - 0.5) ** 2))) / n)
        method = "clustered"
    if prompts is not None:
        errors.append(clustered_std_error(closer, prompts))
        method = "clustered"
    error = Error.of(float(np.nanmax(errors)), method)
    return measured(
        CLOSER, value, error, Floor(0.5), low=0.0, high=1.0,
        cannot_see=CANNOT_SEE[CLOSER], n_reference=matched.n_training, z=(value - 0.5) / max(at_half),
    )  # fmt: skip


def _quantile(
    output: Output,
    q: float,
    distances: np.ndarray,
    null: np.ndarray,
    subjects: np.ndarray | None,
    prompts: np.ndarray | None,
    common: dict[str, Any],
) -> Score:
    ordered = np.sort(np.asarray(distances, dtype=np.float64))
    value = float(np.quantile(ordered, q))
    n = effective_n(distances < value, prompts)
    low, high = quantile_interval(ordered, q, n)
    params: dict[str, Any] = {**common, "quantile": q, "floor_method": f"{common['null']} images to training"}
    if len(ordered) * q < 1:
        params["note"] = f"{len(ordered)} images are too few for a {q:.0%} quantile: this is near the smallest distance"
    interval = None if high is None else (min(low, value), max(high, value))
    return _with_interval(
        output, value, interval, "order_statistics", _quantile_of_patients(null, q, subjects), **params
    )


def _quantile_of_patients(values: np.ndarray, q: float, subjects: np.ndarray | None) -> float:
    """The q-quantile of (m,) values where each patient weighs the same, however many images it has: NumPy's (linear)
    with one image a patient."""
    if subjects is None:
        return float(np.quantile(values, q))
    _, codes, sizes = np.unique(subjects, return_inverse=True, return_counts=True)
    order = np.argsort(values, kind="stable")
    weight = (1 / sizes[codes.reshape(-1)[order]]) / len(sizes)
    # Each value sits in the middle of its weight, the first and the last at the ends: for equal weights, i / (m - 1).
    place = np.cumsum(weight) - 0.5 * weight
    place = (place - place[0]) / (place[-1] - place[0]) if len(values) > 1 else place
    return float(np.interp(q, place, values[order]))


def _below(
    test: RatioTest,
    distances: np.ndarray,
    null: np.ndarray,
    subjects: np.ndarray | None,
    prompts: np.ndarray | None,
    common: dict[str, Any],
) -> Score:
    found = calibrated(np.asarray(distances, dtype=np.float64), null, test.alpha_asked, subjects)
    share = float(found.flagged.mean())
    interval = share_interval(share, effective_n(found.flagged, prompts))
    return _with_interval(
        BELOW, share, interval, "clopper_pearson", found.attained_alpha, **common,
        attained_alpha=found.attained_alpha, threshold_distance=found.threshold,
    )  # fmt: skip


def _with_interval(
    output: Output, value: float, interval: tuple[float, float] | None, method: str, floor: float, **params: Any
) -> Score:
    low, high = interval or (None, None)
    return Score(
        output.name, value, output.better,
        ci_low=low, ci_high=high, std_error_method=method if interval else "", real_floor=floor,
        params={"cannot_see": CANNOT_SEE[output], **params},
    )  # fmt: skip
