"""Intervals of shares, excesses and quantiles: against scipy and by their coverage in Monte Carlo."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from chexray.privacy.ratio import calibrated
from chexray.privacy.shares import (
    effective_n,
    excess_interval,
    quantile_interval,
    rate_interval,
    share_interval,
)


@pytest.mark.parametrize(
    ("k", "n"), [(0, 1), (0, 40), (0, 50), (1, 50), (3, 40), (7, 20), (15, 1500), (49, 50), (50, 50), (3, 100_000)]
)
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_shares_have_the_interval_of_clopper_and_pearson(k: int, n: int, level: float) -> None:
    """scipy's search for the ends stops at 2e-12, and takes 15 ms where the quantiles of the beta law take 0.3."""
    expected = binomtest(k, n).proportion_ci(level, "exact")
    assert share_interval(k / n, n, level) == pytest.approx((expected.low, expected.high), rel=1e-8, abs=1e-12)


@pytest.mark.calibration
@pytest.mark.parametrize(("n", "m", "copies", "images"), [
    (1500, 1500, 0.0, 1), (300, 300, 0.05, 1), (80, 222, 0.0, 1), (80, 222, 0.05, 1), (1000, 100, 0.0, 1),
    (600, 800, 0.0, 5),
])  # fmt: skip
def test_the_excess_interval_covers(n: int, m: int, copies: float, images: int) -> None:
    """Monte Carlo on drawn ratios, `images` of each held-out patient correlated at .8. A bootstrap of both sides covers
    71 % at n = 2000, m = 100 and 83 % at n = 80, m = 222: the smallest of few values hardly moves in it."""
    rng = np.random.default_rng([n, m, images])
    codes = np.arange(m) // images if images > 1 else None
    covered, alarms, runs = 0, 0, 300
    for _ in range(runs):
        shared = rng.standard_normal(m // images + 1)[np.arange(m) // images]
        null = math.sqrt(0.8) * shared + math.sqrt(0.2) * rng.standard_normal(m) if images > 1 else shared
        values = np.where(rng.random(n) < copies, -99.0, rng.standard_normal(n))
        found = calibrated(values, null)
        effective = effective_n(null <= found.threshold, codes)
        low, high = excess_interval(float(found.flagged.mean()), n, found.attained_alpha, effective)
        covered += low <= copies * norm.sf(found.threshold) <= high
        alarms += low > 0
    assert covered / runs > 0.915
    if not copies:
        assert alarms / runs < 0.06


def test_the_rate_of_a_calibration_is_beta() -> None:
    rng = np.random.default_rng(0)
    rates = np.array([np.partition(rng.random(150), 2)[2] for _ in range(4000)])
    low, high = rate_interval(3 / 151, 150)
    assert np.mean((rates >= low) & (rates <= high)) == pytest.approx(0.95, abs=0.012)


def test_patients_count_as_one_where_their_images_agree() -> None:
    hit = np.repeat(np.random.default_rng(0).random(400) < 0.1, 5)
    codes = np.repeat(np.arange(400), 5)
    assert effective_n(hit, codes) == pytest.approx(400, rel=0.02)
    assert effective_n(hit, None) == 2000
    assert effective_n(np.zeros(2000, dtype=bool), codes) == 400
    assert effective_n(hit, np.zeros(2000, dtype=int)) == 1


@pytest.mark.calibration
def test_quantile_intervals_cover() -> None:
    rng = np.random.default_rng(2)
    for n, q in [(1500, 0.01), (1500, 0.05), (150, 0.05)]:
        intervals = [quantile_interval(np.sort(rng.random(n)), q, n) for _ in range(500)]
        assert 0.94 < np.mean([low <= q <= high for low, high in intervals]) <= 0.995
    assert quantile_interval(np.array([1.0, 2.0]), 0.5, 2) == (0.0, None)
    assert quantile_interval(np.arange(1.0, 41), 0.01, 40)[0] == 0.0
