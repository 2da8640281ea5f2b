"""Intervals from what units add: parity with scipy, exact cases, and coverage where normal intervals fail."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from chexray.stats.intervals import (
    Spread,
    added_by_block,
    added_by_unit,
    effective_units,
    interval,
    student,
)
from chexray.stats.resampling import clustered_std_error, jackknife_std_error


def test_the_error_is_the_clustered_one():
    rng = np.random.default_rng(0)
    x, subjects = rng.normal(size=60), rng.integers(0, 17, 60)
    assert added_by_unit(x, subjects).sum() == pytest.approx(0, abs=1e-12)
    assert Spread.of(added_by_unit(x, subjects)).std_error == pytest.approx(clustered_std_error(x, subjects), rel=1e-12)
    both = Spread.of(added_by_unit(x, subjects), added_by_unit(x[:30]))
    expected = math.hypot(clustered_std_error(x, subjects), clustered_std_error(x[:30]))
    assert both.std_error == pytest.approx(expected, rel=1e-12)


def test_skewness_and_kurtosis_are_those_of_scipy():
    x = np.random.default_rng(1).exponential(size=40)
    n, found = len(x), Spread.of(added_by_unit(x))
    assert found.skewness == pytest.approx(scipy.stats.skew(x, bias=False) / math.sqrt(n), rel=1e-9)
    relative_variance = scipy.stats.kurtosis(x, bias=False) / n + 2 / (n - 1)  # of the variance, squared
    assert found.freedom == pytest.approx(2 / relative_variance, rel=1e-9)


def test_normal_units_give_the_interval_of_student():
    x = np.random.default_rng(2).normal(size=4000) + 3
    found = interval(x.mean(), Spread.of(added_by_unit(x)))
    expected = scipy.stats.t.interval(0.95, len(x) - 1, x.mean(), scipy.stats.sem(x))
    assert found == pytest.approx(expected, rel=1e-3)
    assert student(math.inf) == pytest.approx(scipy.stats.norm.ppf(0.975))
    assert student(3) == pytest.approx(scipy.stats.t.ppf(0.975, 3))


def test_one_unit_leaves_two_degrees_of_freedom_and_no_unit_no_error():
    assert math.isnan(Spread.of(np.zeros(1)).std_error)
    assert math.isnan(Spread.of(np.zeros(5), np.zeros(1)).std_error)
    alone = Spread.of(added_by_unit(np.eye(50)[0]))
    assert alone.freedom == pytest.approx(2.0, rel=0.1)
    assert Spread.of(np.zeros(5)).std_error == 0
    assert interval(2.0, Spread.of(np.zeros(5)), "log") == (2.0, 2.0)


@pytest.mark.parametrize(("hits", "n"), [(0, 40), (1, 40), (7, 40), (40, 40), (300, 1000)])
def test_a_share_of_independent_images_has_the_interval_of_wilson(hits, n):
    share = hits / n
    spread = Spread(math.sqrt(share * (1 - share) / n))
    expected = scipy.stats.binomtest(hits, n).proportion_ci(method="wilson")
    found = interval(share, spread, "share", low=0.0, high=1.0, step=1 / n)
    assert found == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize("hits", [0, 1, 4, 25])
def test_a_count_of_independent_hits_is_near_the_exact_interval(hits):
    spread = Spread(math.sqrt(hits) / 100)
    low, high = interval(hits / 100, spread, "count", low=0.0, step=1 / 100)
    exact = scipy.stats.chi2.ppf([0.025, 0.975], [2 * hits, 2 * hits + 2]) / 200
    assert high == pytest.approx(exact[1], rel=0.06 if hits else 0.1)
    assert low == pytest.approx(exact[0] if hits else 0.0, abs=0.01)


def test_equal_blocks_are_the_jackknife_and_unequal_ones_forgive_a_bias_in_1_over_n():
    rng = np.random.default_rng(3)
    left_out = rng.normal(size=20)
    equal = Spread.of(added_by_block(0.3, left_out, np.full(20, 7)))
    assert equal.std_error == pytest.approx(jackknife_std_error(left_out), rel=1e-12)
    sizes = np.array([1] * 10 + [2] * 10)
    n = sizes.sum()
    biased = added_by_block(5 + 3 / n, 5 + 3 / (n - sizes), sizes)
    np.testing.assert_allclose(biased, 0, atol=1e-12)
    assert jackknife_std_error(5 + 3 / (n - sizes)) > 0.005, "what a plain jackknife takes for an error"


@pytest.mark.parametrize("scale", ["log", "signed"])
def test_an_interval_scales_with_the_features(scale):
    x = np.random.default_rng(4).exponential(size=50)
    tiny = 2.0**-80
    a, b = (interval(c * 0.7, Spread.of(c * added_by_unit(x)), scale) for c in (1.0, tiny))
    assert (a[0] * tiny, a[1] * tiny) == pytest.approx(b, rel=1e-12)
    assert a[0] < 0.7 < a[1]


def test_scales_keep_to_their_ranges_and_reach_farther_up():
    wide = Spread(1.0, 8.0)
    linear, signed, log = (interval(1.0, wide, scale) for scale in ("linear", "signed", "log"))
    assert linear[0] == signed[0] < 0 < log[0]
    assert linear[1] < signed[1] < log[1]
    assert interval(-1.0, wide, "signed") == interval(-1.0, wide, "linear")
    assert interval(0.0, Spread(1e300), "log")[1] < math.inf
    assert interval(1.0, wide, low=0.0, high=2.0) == (0.0, 2.0)
    skewed = interval(1.0, Spread(1.0, 8.0, 0.5))
    assert skewed[0] == linear[0]
    assert skewed[1] > linear[1]


def test_effective_patients():
    assert effective_units(7, None) == 7
    assert effective_units(9, np.array([0, 0, 0, 1, 1, 1, 2, 2, 2])) == pytest.approx(3)
    assert effective_units(10, np.array([0] * 9 + [1])) == pytest.approx(100 / 82)


@pytest.mark.calibration
@pytest.mark.parametrize("groups", [15, 40])
def test_the_mean_of_skewed_patients_of_unequal_size_is_covered(groups):
    """Patients of 1 to 16 images with a lognormal level: 1.96 standard errors cover 79 to 86 %."""
    rng, covered, before = np.random.default_rng(5), [], []
    truth = math.exp(0.5)
    for _ in range(300):
        subjects = np.repeat(np.arange(groups), rng.integers(1, 17, groups))
        x = np.exp(rng.normal(size=groups))[subjects]
        spread = Spread.of(added_by_unit(x, subjects))
        low, high = interval(x.mean(), spread, "log")
        covered.append(low <= truth <= high)
        before.append(abs(x.mean() - truth) <= 1.96 * spread.std_error)
    assert np.mean(before) < 0.89
    assert np.mean(covered) >= 0.90
