"""ROC, thresholds and their errors against scikit-learn, scipy, counting and Monte Carlo."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from chexray.stats.ranking import (
    auc_std_error,
    false_positive_rate,
    mann_whitney_z,
    roc_auc,
    roc_curve,
    threshold_at_fpr,
)


def scores(n: int, m: int, seed: int, step: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Positives and negatives one standard deviation apart, on a grid of `step` where it is not 0."""
    rng = np.random.default_rng(seed)
    positive, negative = rng.normal(size=n) + 1, rng.normal(size=m)
    return (np.round(positive / step) * step, np.round(negative / step) * step) if step else (positive, negative)


sizes = {"n": st.integers(1, 60), "m": st.integers(1, 60), "seed": st.integers(0, 99)}
steps = st.sampled_from([0.0, 0.3, 2.0])


@settings(max_examples=60, deadline=None)
@given(**sizes, step=steps)
def test_area_and_curve_equal_scikit_learn(n, m, seed, step):
    metrics = pytest.importorskip("sklearn.metrics")
    positive, negative = scores(n, m, seed, step)
    truth, values = np.repeat([1, 0], [n, m]), np.concatenate([positive, negative])
    assert roc_auc(positive, negative) == pytest.approx(metrics.roc_auc_score(truth, values), abs=1e-12)
    curve = roc_curve(positive, negative)
    false, true, _ = metrics.roc_curve(truth, values, drop_intermediate=False)
    np.testing.assert_allclose(curve.false_positive_rate, false, atol=1e-15)
    np.testing.assert_allclose(curve.true_positive_rate, true, atol=1e-15)
    for share, z in ((curve.false_positive_rate, negative), (curve.true_positive_rate, positive)):
        np.testing.assert_array_equal(share, [np.mean(z > t) for t in curve.threshold])


def test_area_counts_pairs_and_ties_as_half():
    assert roc_auc([1.0, 2.0], [0.0, 1.0, 2.0, 5.0]) == (1.5 + 2.5) / 8
    assert roc_auc([np.inf], [0.0]) == 1
    assert roc_auc([0.5] * 3, [0.5] * 4) == 0.5


def test_a_thinned_curve_keeps_its_ends_its_area_and_the_small_rates():
    positive, negative = scores(30_000, 50_000, 0)
    whole = roc_curve(positive, negative, n_points=10**6)
    assert len(whole.threshold) == 80_001
    thin = roc_curve(positive, negative, n_points=200)
    assert 150 < len(thin.threshold) <= 200
    for curve in (thin, roc_curve(positive, negative, n_points=4)):
        assert (curve.false_positive_rate[0], curve.true_positive_rate[0]) == (0, 0)
        assert (curve.false_positive_rate[-1], curve.true_positive_rate[-1]) == (1, 1)
        assert np.isin(curve.threshold, whole.threshold).all()
        assert (np.diff(curve.threshold) < 0).all()
    area = integrate.trapezoid(thin.true_positive_rate, thin.false_positive_rate)
    assert area == pytest.approx(roc_auc(positive, negative), abs=1e-3)
    assert ((thin.false_positive_rate > 0) & (thin.false_positive_rate < 1e-2)).sum() > 30


@settings(max_examples=100, deadline=None)
@given(m=st.integers(1, 80), seed=st.integers(0, 99), step=steps, fpr=st.floats(0, 1))
def test_the_threshold_is_the_smallest_that_keeps_the_rate(m, seed, step, fpr):
    _, negative = scores(1, m, seed, step)
    threshold, attained = threshold_at_fpr(negative, fpr)
    allowed = max(fpr, 1 / m) + 1e-9
    assert attained == false_positive_rate(negative, threshold) <= allowed
    smaller = [np.mean(negative > t) for t in (-np.inf, *negative) if t < threshold]
    assert all(share > allowed for share in smaller)


def test_thresholds_by_hand():
    negative = np.arange(1, 101) / 100
    assert threshold_at_fpr(negative, 0.05) == (0.95, 0.05)
    assert threshold_at_fpr(negative, 0.29) == (0.71, 0.29)
    assert threshold_at_fpr(negative, 1e-3) == (0.99, 0.01)  # 100 negatives support no rate below 1 %
    assert threshold_at_fpr(np.ones(50), 0.1) == (1.0, 0.0)
    assert threshold_at_fpr([0.3], 0.1) == (-math.inf, 1.0)


@settings(max_examples=60, deadline=None)
@given(n=st.integers(2, 60), m=st.integers(2, 60), seed=st.integers(0, 99), step=steps)
def test_mann_whitney_equals_scipy(n, m, seed, step):
    a, b = scores(n, m, seed, step)
    if len(np.unique([*a, *b])) == 1:
        assert mann_whitney_z(a, b) == 0
        return
    z = mann_whitney_z(a, b)
    for alternative, tail in (("greater", stats.norm.sf(z)), ("less", stats.norm.cdf(z))):
        expected = stats.mannwhitneyu(a, b, alternative=alternative, method="asymptotic", use_continuity=False)
        assert tail == pytest.approx(expected.pvalue, rel=1e-9)
    assert mann_whitney_z(b, a) == pytest.approx(-z, abs=1e-12)


def test_the_error_without_clusters_is_delongs():
    positive, negative = scores(80, 120, 3, 0.3)
    above = np.array([np.mean(p > negative) + np.mean(p == negative) / 2 for p in positive])
    below = np.array([np.mean(q < positive) + np.mean(q == positive) / 2 for q in negative])
    expected = math.sqrt(above.var(ddof=1) / 80 + below.var(ddof=1) / 120)
    assert auc_std_error(positive, negative, np.arange(80), 80 + np.arange(120)) == pytest.approx(expected, rel=5e-3)


def test_each_way_of_sharing_patients_is_counted_once():
    """sum of psi_u psi_v over every two scores that have a patient in common, counted by a double loop."""
    rng = np.random.default_rng(5)
    positive, negative = scores(40, 70, 5)
    groups = rng.integers(0, 25, 40), rng.integers(0, 25, (70, 2))
    pairs = [{g} for g in groups[0]] + [set(pair) for pair in groups[1]]
    above = np.array([np.mean(p > negative) for p in positive])
    below = np.array([np.mean(q < positive) for q in negative])
    psi = np.concatenate([(above - above.mean()) / 40, (below - below.mean()) / 70])
    total = sum(psi[u] * psi[v] for u in range(110) for v in range(110) if pairs[u] & pairs[v])
    n_patients = len(set().union(*pairs))
    assert total > 0
    got = auc_std_error(positive, negative, *groups)
    assert got == pytest.approx(math.sqrt(n_patients / (n_patients - 1) * total), rel=1e-12)
    assert auc_std_error(positive, negative, groups[0], groups[1][:, ::-1]) == pytest.approx(got, rel=1e-12)
    as_pairs = np.stack([groups[0], groups[0]], axis=1)
    assert auc_std_error(positive, negative, as_pairs, groups[1]) == pytest.approx(got, rel=1e-12)


def _pairs_of_patients(rng: np.random.Generator, n_patients: int, effect_within: float) -> tuple[np.ndarray, ...]:
    """Scores of image pairs as a re-identification network gives them: some patients look like everybody.

    Three same-patient pairs a patient and four different-patient pairs. A pair's score is the sum of its patients'
    effects and noise; within a patient the effect is `effect_within` times that, and the score 1.5 higher.
    """
    effect = rng.normal(size=n_patients)
    same = np.repeat(np.arange(n_patients), 3)
    first, second = rng.integers(0, n_patients, (2, 4 * n_patients))
    second = np.where(first == second, (first + 1) % n_patients, second)
    positive = effect_within * effect[same] + 1.5 + rng.normal(size=len(same))
    negative = effect[first] + effect[second] + rng.normal(size=len(first))
    return positive, negative, same, np.stack([first, second], axis=1)


@pytest.mark.calibration
@pytest.mark.parametrize(("effect_within", "ratio_of_naive"), [(2.0, (1.05, 1.5)), (-2.0, (0.4, 0.65))])
def test_the_clustered_error_is_the_spread_over_sets_of_patients(effect_within, ratio_of_naive):
    """Monte Carlo over 600 sets of 60 patients. Taken as independent, the pairs give an error too large where a
    patient's effect moves both classes alike, and too small where it moves them apart."""
    rng = np.random.default_rng(7)
    areas, errors, naive = [], [], []
    for _ in range(600):
        positive, negative, same, pairs = _pairs_of_patients(rng, 60, effect_within)
        areas.append(roc_auc(positive, negative))
        errors.append(auc_std_error(positive, negative, same, pairs))
        n, m = len(positive), len(negative)
        naive.append(auc_std_error(positive, negative, np.arange(n), n + np.arange(m)))
    spread = float(np.std(areas, ddof=1))
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(spread, rel=0.15)
    assert np.median(errors) == pytest.approx(spread, rel=0.25)
    assert ratio_of_naive[0] < np.mean(naive) / spread < ratio_of_naive[1]


def test_errors_of_too_little():
    assert math.isnan(auc_std_error([1.0, 2.0], [0.0], [3, 3], [3]))
    assert auc_std_error([1.0, 2.0], [0.0, 0.5], [0, 1], [2, 3]) == 0
    # Two scores of the same two patients that deviate in opposite directions: never the root of a negative number.
    assert auc_std_error([1.0, 0.0], [0.5, 0.5], [[0, 1], [0, 2]], [[1, 2], [1, 2]]) >= 0


@pytest.mark.parametrize(
    "call",
    [
        lambda: roc_auc([], [1.0]),
        lambda: roc_auc([1.0], [np.nan]),
        lambda: roc_curve([1.0], [0.0], n_points=3),
        lambda: threshold_at_fpr([1.0], 1.5),
        lambda: false_positive_rate([], 0.5),
        lambda: auc_std_error([1.0, 2.0], [0.0], [1], [2]),
    ],
)
def test_what_makes_no_sense_is_refused(call):
    with pytest.raises(ValueError):
        call()
