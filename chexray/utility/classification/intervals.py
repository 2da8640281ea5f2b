"""A standard error and a 95 % interval from bootstrap replicates of whole patients and from several trainings.

Chosen by simulation (tests/utility/test_score_coverage.py): with 300 images of 180 patients, 12 % positives and AUROC
0.7 to 0.9, percentile and normal intervals of an AUROC cover 0.88, since some 20 effective patients with the finding
make the bootstrap variance too small and its estimate uncertain. So here the variance is scaled by m / (m - 1), the
quantile is Student's with m - 1 degrees of freedom, m the effective number of patients (`measuring.effective`), and
scores between 0 and 1 are taken to the logit scale, where their distribution is closer to normal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit, stdtr, stdtrit

LEVEL = 0.95
Z2 = 1.959963984540054**2


@dataclass(frozen=True)
class Interval:
    """std_error in units of the score; low and high of the 95 % interval; all None, and why, where there is none.

    p_value: two-sided, of the true value being 0; of differences alone, None for other scores.
    """

    std_error: float | None = None
    low: float | None = None
    high: float | None = None
    method: str = ""
    reason: str = ""
    p_value: float | None = None


def interval(
    per_seed: np.ndarray,
    replicates: np.ndarray,
    units: float,
    unit: str,
    *,
    inflation: float | None = None,
    bounded: bool = True,
    against: np.ndarray | None = None,
) -> Interval:
    """Of the mean over trainings, (S,) values each, from its replicates (B,), NaN where a resample leaves it undefined.

    units: effective independent contributions m. inflation: of the variance, m / (m - 1) if not given. bounded: a score
    between 0 and 1; False for a difference. against: (S',) values of the baseline that is subtracted, when `replicates`
    are those of the difference.
    With several trainings their variance / S is added, for both sides of a difference, with the degrees of freedom of
    Welch and Satterthwaite: the replicates hold the models fixed, so these parts are of different origin.
    A score of exactly 0 or 1 is so in every resample: the interval is then Wilson's for `units` successes or failures
    out of as many, conservative for an AUROC, and the standard error None.
    """
    sides = [per_seed] if against is None else [per_seed, against]
    value = float(per_seed.mean()) - (0.0 if against is None else float(against.mean()))
    bounded, known = bounded and against is None, replicates[np.isfinite(replicates)]
    if units < 1 + 1e-9 or len(known) < 2:
        return Interval(reason=f"it rests on a single {unit}: there is nothing to estimate an error from")
    if bounded and not 1e-12 < value < 1 - 1e-12:
        far = Z2 / (units + Z2)
        low, high = (0.0, far) if value < 0.5 else (1 - far, 1.0)
        return Interval(None, low, high, f"wilson, {unit}s", f"the score is {value:.0f} in every resample")
    m = max(units, 2.0)
    parts = [(float(known.var(ddof=1)) * (m / (m - 1) if inflation is None else inflation), m - 1)]
    parts += [(float(np.var(side, ddof=1)) / len(side), len(side) - 1.0) for side in sides if len(side) > 1]
    method = f"{unit} bootstrap" + (" + seeds" if len(parts) > 1 else "")
    total = sum(variance for variance, _ in parts)
    if total == 0:
        return Interval(0.0, value, value, method, p_value=None if against is None else float(value == 0))
    freedom = total**2 / sum(variance**2 / degrees for variance, degrees in parts)
    error, quantile = math.sqrt(total), float(stdtrit(freedom, 0.5 + LEVEL / 2))
    if not bounded:
        p_value = None if against is None else 2 * float(stdtr(freedom, -abs(value) / error))
        low, high = max(-1.0, value - quantile * error), min(1.0, value + quantile * error)
        return Interval(error, low, high, method, p_value=p_value)
    centre, half = logit(value), quantile * error / (value * (1 - value))
    return Interval(error, float(expit(centre - half)), float(expit(centre + half)), method)


def pooled_units(replicates: np.ndarray, units: np.ndarray) -> tuple[float, float]:
    """(m, inflation) of the mean over F findings, from their replicates (B, F) and units (F,).

    The findings' variances v pool as in Satterthwaite: m - 1 = (sum v)^2 / sum(v^2 / (m_f - 1)), and the inflation is
    the mean of m_f / (m_f - 1), weighted by v.
    """
    m = np.maximum(units, 2.0)
    known = np.isfinite(replicates)
    count = known.sum(axis=0)
    centred = np.where(known, replicates, 0.0)
    means = centred.sum(axis=0) / np.maximum(count, 1)
    v = np.where(known, (replicates - means) ** 2, 0.0).sum(axis=0) / np.maximum(count - 1, 1)
    if not v.sum() > 0:
        return float(units.min()), 1.0
    freedom = float(v.sum() ** 2 / (v**2 / (m - 1)).sum())
    return 1 + freedom, float((v * m / (m - 1)).sum() / v.sum())
