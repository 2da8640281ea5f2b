"""What the search for copies of training images found, as numbers with intervals and their blind spots."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from chexray.metrics.base import Score
from chexray.metrics.common import nulls
from chexray.privacy.alarm import FALSE_ALARM, Alarm, independent_n, raise_alarm
from chexray.privacy.baseline import Baseline
from chexray.privacy.case_mix import CaseMix, Dimensions, case_mix
from chexray.privacy.distances import (
    MatchedReferences,
    below_null,
    closer_to_training,
    distance_quantile,
    with_interval,
)
from chexray.privacy.outliers import lowest_by_chance
from chexray.privacy.outputs import EXCESS, MEMORISATION, Q01, Q05, SHARE
from chexray.privacy.ratio import RatioTest
from chexray.privacy.shares import effective_n, excess_interval, rate_interval, share_interval


def memorisation_nulls(status: str, reason: str) -> list[Score]:
    """All scores of `memorisation_scores` as nulls with one reason, where there is no test to score."""
    return nulls(MEMORISATION, status, reason)


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
    """The numbers of MEMORISATION, in order. Lower is better, but for the distance quantiles.

    memorised_share: share of synthetic images flagged by `test`; its floor is the rate of false flags.
    memorised_excess: what it exceeds that rate by. The interval holds both uncertainties, of the share and of the
    threshold, which comes from a finite null.
    closer_to_training: share nearer to a training image than to a held-out one, of `matched`; .5 without copies.
    dcr_q01, dcr_q05: quantiles of the distance to the nearest training image (distance to closest record), in feature
    units; floor: the same of unseen real images. dcr_below_null: share nearer to training than all but alpha of them.

    to_training: (n,) distances to the whole training set; null_to_training: the same of all images the null of `test`
    was made of, in its order. null_subjects: their patient codes. prompts: (n,) int64 codes, equal for synthetic images
    of one prompt. Both widen the intervals to what patients and prompts, rather than images, are worth.
    n_searches: searches of the same audit (encoders times sets). about["significant"] is the alarm: an exact test
    (alarm.py) corrected for all of them (Bonferroni), so that at most 2.5 % of audits without a copy alarm.
    groups: (n,) codes of synthetic images that repeat one another (repeats.py): they count once. dimensions: of all
    images of both sides, in their order (case_mix.py): where the case mix differs, the alarm must also hold with
    ratios brought to one dimension. baseline: where it has a `problem`, share and excess are null for that reason.
    about["outlier"]: whether the smallest ratio lies below what chance gives in 2.5 % of audits (outliers.py).

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
    method = {"null": test.null, "alpha": test.alpha_asked}
    if not len(test.ratio):
        return nulls(MEMORISATION, "too_few", "0 synthetic images, and at least 1 is needed")
    if baseline is not None and baseline.problem:
        first = nulls((SHARE, EXCESS), "undefined", baseline.problem)
    else:
        of_null = None if dimensions is None else Dimensions(dimensions.synthetic, dimensions.null[kept])
        mix = None if of_null is None else case_mix(test, of_null, subjects, [groups, prompts])
        first = _flagged(test, subjects, prompts, groups, mix, n_searches, method)
    return [
        *first,
        closer_to_training(test, matched, prompts),
        *(
            distance_quantile(output, q, to_training, null, subjects, prompts, method)
            for output, q in ((Q01, 0.01), (Q05, 0.05))
        ),
        below_null(test, to_training, null, subjects, prompts, method),
    ]


def _flagged(
    test: RatioTest,
    subjects: np.ndarray | None,
    prompts: np.ndarray | None,
    groups: np.ndarray | None,
    mix: CaseMix | None,
    n_searches: int,
    method: dict[str, Any],
) -> list[Score]:
    """Share and excess, with the verdict on the excess."""
    if not test.attained_alpha:
        reason = f"nothing can be flagged: {test.note or 'the smallest ratios of the baseline are all equal'}"
        return nulls((SHARE, EXCESS), "undefined", reason)
    rate, share = test.attained_alpha, test.n_flagged / len(test.ratio)
    n = independent_n(test.flagged, prompts, groups)
    m = float(test.calibration.n_patients or effective_n(test.null_ratio <= test.threshold, subjects))
    alarm = raise_alarm(test, subjects, prompts, n_searches, groups)
    about: dict[str, Any] = {
        "n_null": len(test.null_ratio), "attained_alpha": rate, "n_flagged": test.n_flagged,
        "n_expected": test.expected, "threshold_ratio": test.threshold,
        "n_below_all_null": int((test.ratio < test.null_ratio.min()).sum()),
        "lowest_ratio": _finite(test.ratio.min()), "lowest_null_ratio": _finite(test.null_ratio.min()),
        "smallest_share_noticed": alarm.smallest_share, **_outlier(test, mix, n_searches), "ci_effective_n": n,
        "ci_effective_n_null": m,
    }  # fmt: skip
    if groups is not None and test.n_flagged:
        about["n_flagged_events"] = len(np.unique(groups[test.flagged]))
    if test.note:
        about["note"] = test.note
    verdict = _allowing_for(mix, alarm, subjects, prompts, groups, n_searches)
    verdict |= {"ci_attained_alpha": list(rate_interval(rate, m)), "n_searches": n_searches}
    of_excess = excess_interval(share, n, rate, m)
    return [
        with_interval(SHARE, share, share_interval(share, n), "clopper_pearson", rate, method, about),
        with_interval(EXCESS, share - rate, of_excess, "mover", 0.0, method, about | verdict),
    ]


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
    """The verdict, for `about`. A shift of case mix cannot make it, only unmake it: the larger p-value counts."""
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
