"""Do more synthetic images lie below the null than chance would put there? An exact test, at any number of images.

The precedence test (Epstein 1954; Balakrishnan and Ng 2006): without copies, synthetic and null ratios are draws of one
distribution, so every order of them is equally likely, and how many synthetic ones come before the r-th null one is a
matter of counting. It asks at two places: before the smallest null value, where a few copies stand out beside a small
null, and before the threshold, where many weak ones add up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import hypergeom

from chexray.privacy.ratio import RatioTest
from chexray.privacy.shares import distinct_n, effective_n

FALSE_ALARM = 0.025
"""Share of audits without a copy that may alarm, over all their searches together."""


@dataclass(frozen=True)
class Alarm:
    """p_value: after correction for both places and all searches of the audit, at most 1. smallest_share: of copies,
    each below every null value, that this test is certain to notice; None where even n copies would not do."""

    p_value: float
    smallest_share: float | None

    @property
    def significant(self) -> bool:
        return self.p_value <= FALSE_ALARM


def precedence_p_value(k: int, rank: int, n: int, m: int) -> float:
    """P(at least k of n values come before the `rank`-th smallest of m others), all orders equally likely.

    That is: of the first k + rank - 1 of all n + m, at least k are of the n.
    """
    if k <= 0:
        return 1.0
    if k > n or rank > m:
        return 0.0 if k > n else 1.0
    return float(hypergeom.sf(k - 1, n + m, n, k + rank - 1))


def raise_alarm(
    test: RatioTest,
    subjects: np.ndarray | None,
    prompts: np.ndarray | None,
    n_searches: int = 1,
    groups: np.ndarray | None = None,
) -> Alarm:
    """The verdict on a whole set. subjects: patient codes of the null images; prompts: codes of the synthetic ones;
    groups: (n,) codes of synthetic images that repeat each other (repeats.py).

    Images of one patient, prompt or group resemble each other: counts are scaled to as many images as they are worth,
    and before the smallest null value, where no spread can be seen, to the number of patients.
    """
    below_all = test.ratio < test.null_ratio.min()
    n_patients = len(test.null_ratio) if subjects is None else len(np.unique(subjects))
    at_minimum = _p_value(below_all, prompts, groups, 1, n_patients)
    places, at_threshold = _at_threshold(test, subjects, prompts, groups)
    correction = places * n_searches
    p_value = min(1.0, correction * min(at_minimum, at_threshold))
    n = max(1, int(independent_n(below_all, prompts, groups)))
    return Alarm(p_value, _smallest_share(n, n_patients, FALSE_ALARM / correction))


def independent_n(hit: np.ndarray, prompts: np.ndarray | None, groups: np.ndarray | None) -> float:
    """How many independent synthetic images a share of `hit`, (n,) bool, is worth."""
    return min(effective_n(hit, prompts), distinct_n(hit, groups))


def _at_threshold(
    test: RatioTest, subjects: np.ndarray | None, prompts: np.ndarray | None, groups: np.ndarray | None
) -> tuple[int, float]:
    """(places, p): of the count before the threshold; 1 place where that is the smallest null value itself."""
    found = test.calibration
    if found.rank == 1:
        return 1, 1.0
    if found.n_patients is None:
        m = effective_n(test.null_ratio <= test.threshold, subjects)
        rank = max(1, math.ceil(found.rank * m / len(test.null_ratio)))
        return 2, _p_value(test.flagged, prompts, groups, rank, int(m))
    # One image of each patient, drawn at random, has `patients_below` of them below on average.
    whole = math.floor(found.patients_below)
    ends = [_p_value(test.flagged, prompts, groups, whole + more, found.n_patients) for more in (1, 2)]
    return 2, ends[0] + (found.patients_below - whole) * (ends[1] - ends[0])


def _p_value(hit: np.ndarray, prompts: np.ndarray | None, groups: np.ndarray | None, rank: int, m: int) -> float:
    n = independent_n(hit, prompts, groups)
    return precedence_p_value(int(float(hit.mean()) * n + 1e-9), rank, max(1, int(n)), m)


def _smallest_share(n: int, m: int, level: float) -> float | None:
    if precedence_p_value(n, 1, n, m) > level:
        return None
    low, high = 1, n
    while low < high:
        middle = (low + high) // 2
        if precedence_p_value(middle, 1, n, m) <= level:
            high = middle
        else:
            low = middle + 1
    return low / n
