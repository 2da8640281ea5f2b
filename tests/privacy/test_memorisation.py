"""The ratio test: its exactness, the planted copies it finds and others miss, and the intervals of its scores."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chexray.errors import MetricError
from chexray.privacy.memorisation import memorisation_nulls, memorisation_scores
from chexray.privacy.ratio import calibrated, ratio_test

small = st.lists(st.integers(0, 6), min_size=1, max_size=30).map(lambda values: np.array(values, dtype=float))


@given(values=small, null=small, alpha=st.sampled_from([0.01, 0.05, 0.1, 0.3, 0.5, 0.9]))
@settings(max_examples=200, deadline=None)
def test_p_values_are_counts_and_flags_are_p_values(values: np.ndarray, null: np.ndarray, alpha: float) -> None:
    found = calibrated(values, null, alpha)
    expected = [(1 + sum(other <= value for other in null)) / (len(null) + 1) for value in values]
    np.testing.assert_allclose(found.p_value, expected)
    assert found.alpha == max(alpha, 1 / (len(null) + 1))
    np.testing.assert_array_equal(found.flagged, found.p_value <= found.alpha + 1e-12)
    np.testing.assert_array_equal(found.flagged, values < found.threshold)
    assert 0 <= found.attained_alpha <= found.alpha + 1e-12


@pytest.mark.parametrize("m", [10, 99, 100, 250, 1999])
def test_attained_alpha_without_ties_is_the_largest_rank_below_alpha(m: int) -> None:
    found = calibrated(np.zeros(1), np.arange(1.0, m + 1))
    assert found.attained_alpha == max(1, (m + 1) // 100) / (m + 1)


@pytest.mark.parametrize(("levels", "m"), [(10**9, 60), (40, 60), (12, 60), (12, 200)])
def test_attained_alpha_is_the_rate_of_false_flags(levels: int, m: int) -> None:
    """Exchangeable draws from a grid: with ties the attained rate falls below alpha, and is said."""
    rng = np.random.default_rng(levels + m)
    found = [calibrated(*np.split(rng.integers(0, levels, 40 + m).astype(float), [40]), 0.1) for _ in range(1500)]
    rate, said = (np.mean([getattr(one, name) for one in found]) for name in ("flagged", "attained_alpha"))
    assert rate <= 0.1 + 0.005
    assert said == pytest.approx(rate, abs=0.006)


def test_nothing_to_divide() -> None:
    test = ratio_test(np.array([0.0, 0, 2]), np.array([0.0, 3, 0]), np.array([1.0, 1, 5]), np.array([2.0, np.inf, 4]))
    np.testing.assert_array_equal(test.ratio, [1, 0, np.inf])
    np.testing.assert_array_equal(test.null_ratio, [0.5, 1.25])
    np.testing.assert_array_equal(test.null_kept, [True, False, True])
    np.testing.assert_array_equal(test.flagged, [False, True, False])
    np.testing.assert_array_equal(test.ranking, [1, 0, 2])
    assert (test.n_flagged, test.expected, test.excess) == (1, pytest.approx(1.0), pytest.approx(0.0))
    assert "2 baseline images support no false-positive rate below 0.33" in test.note


def test_held_out_copies_of_training_images_leave_nothing_to_flag() -> None:
    null = np.concatenate([np.zeros(5), np.ones(95)])
    test = ratio_test(np.zeros(3), np.ones(3), null, np.ones(100))
    assert not test.flagged.any()
    share, excess = memorisation_scores(test, np.zeros(3), null)[:2]
    assert share.status == excess.status == "undefined"
    assert "5 of 100 baseline images equal a training image" in share.reason


@pytest.mark.parametrize("alpha", [0.0, 1.0, -1, math.nan])
def test_alpha_is_a_share(alpha: float) -> None:
    with pytest.raises(MetricError, match="alpha is"):
        ratio_test(np.ones(3), np.ones(3), np.ones(3), np.ones(3), alpha=alpha)


def test_no_null_and_bad_distances() -> None:
    with pytest.raises(MetricError, match="has no ratio"):
        ratio_test(np.ones(3), np.ones(3), np.ones(2), np.full(2, np.inf))
    with pytest.raises(MetricError, match="a reference set is empty"):
        ratio_test(np.ones(3), np.full(3, np.inf), np.ones(2), np.ones(2))
    with pytest.raises(ValueError, match="negative or NaN"):
        ratio_test(np.array([np.nan]), np.ones(1), np.ones(2), np.ones(2))
    with pytest.raises(ValueError, match="shapes"):
        ratio_test(np.ones(3), np.ones(2), np.ones(2), np.ones(2))


def test_prompts_widen_the_interval() -> None:
    rng = np.random.default_rng(1)
    near = np.where(np.repeat(rng.random(30) < 0.2, 10), 0.01, 1 + 0.1 * rng.random(300))
    null = 0.9 + 0.2 * rng.random(500)
    test = ratio_test(near, np.ones(300), null, np.ones(500))
    alone = memorisation_scores(test, near, null)
    grouped = memorisation_scores(test, near, null, prompts=np.repeat(np.arange(30), 10))
    for i in (0, 1, 5):
        assert grouped[i].value == alone[i].value
        assert grouped[i].ci_high - grouped[i].ci_low > 2 * (alone[i].ci_high - alone[i].ci_low)


def test_nulls_and_small_sets() -> None:
    assert [score.status for score in memorisation_nulls("too_few", "none")] == ["too_few"] * 6
    empty, null = np.empty(0), np.ones(5)
    assert memorisation_scores(ratio_test(empty, empty, null, null), empty, null)[0].status == "too_few"
    one = memorisation_scores(ratio_test(null[:1], null[:1], null, null), null[:1], null)
    assert "too few for a 1% quantile" in one[3].params["note"]
    assert one[0].real_floor is None or one[0].ci_high == pytest.approx(0.975)
