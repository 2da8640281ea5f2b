"""FD-infinity: less biased than FID, with an error that a Monte Carlo confirms."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from chexray import registry
from chexray.errors import MetricError
from chexray.metrics.base import Rows
from chexray.metrics.fid import FID
from chexray.metrics.fid_infinity import FIDInfinity

D = 12
SHIFT = 0.3
TRUTH = D * SHIFT**2


def rows(n: int, seed: int, *, shift: float = 0.0, subjects: np.ndarray | None = None) -> Rows:
    x = np.random.default_rng(seed).normal(size=(n, D)) + shift
    return Rows(np.array([f"id{i:04d}" for i in range(n)]), x.astype(np.float32), subjects)


def by_pickle(fn, items, *shared):
    return [pickle.loads(pickle.dumps(fn))(item, *pickle.loads(pickle.dumps(shared))) for item in items]


def test_it_is_found_by_name():
    assert registry.find("metrics", "fid_infinity") is FIDInfinity


@pytest.mark.parametrize(("n", "method"), [(48, "jackknife"), (200, "influence")])
def test_it_loses_the_bias_and_its_error_holds(n, method):
    found = [FIDInfinity().score(rows(n, i), rows(n + 10, i + 5000, shift=SHIFT), floor=False)[0] for i in range(60)]
    values = np.array([score.value for score in found])
    errors = np.array([score.std_error for score in found])
    plain = [
        FID(error="none").score(rows(n, i), rows(n + 10, i + 5000, shift=SHIFT), floor=False)[0].value
        for i in range(60)
    ]
    bias, plain_bias = abs(values.mean() - TRUTH), abs(np.mean(plain) - TRUTH)
    assert bias < 0.25 * plain_bias
    assert {score.std_error_method for score in found} == {method}
    assert 0.75 < np.sqrt(np.mean(errors**2)) / values.std() < 2.2
    covered = [score.ci_low <= TRUTH <= score.ci_high for score in found]
    assert np.mean(covered) >= 0.85


def test_a_score_is_complete_and_seeded():
    real, synthetic = rows(150, 0), rows(100, 1, shift=0.5)
    (score,), images = FIDInfinity().score_images(real, synthetic, seed=4)
    assert images == {}
    assert score.std_error is not None
    assert score.real_floor is not None
    assert abs(score.real_floor) < 0.5 * score.value
    assert FIDInfinity().score(real, synthetic, seed=4) == [score]
    assert FIDInfinity().score(real, synthetic, seed=5)[0].value != score.value


def test_who_computes_does_not_matter(monkeypatch):
    monkeypatch.setattr("chexray.metrics.fid_infinity.MAPPED_FROM_S", 0.0)
    real, synthetic = rows(60, 2), rows(70, 3)
    metric = FIDInfinity(error="jackknife")
    assert metric.score(real, synthetic, mapper=by_pickle) == metric.score(real, synthetic)


def test_patients_stay_together_and_few_of_them_give_no_error():
    subjects = np.arange(90) // 3
    real, synthetic = rows(90, 4, subjects=subjects), rows(90, 5, shift=SHIFT)
    assert FIDInfinity().score(real, synthetic, floor=False)[0].std_error_method == "jackknife"
    few = FIDInfinity().score(rows(90, 4, subjects=np.arange(90) // 9), synthetic, floor=False)[0]
    assert few.value is not None
    assert "fewer than 4 patients" in few.params["std_error_reason"]


def test_bias_that_stays_is_marked():
    score = FIDInfinity().score(rows(30, 6), rows(20 + 10, 7), floor=False)[0]
    assert "bias_dominated" not in score.params
    wide = Rows(np.arange(30).astype(str), np.random.default_rng(0).normal(size=(30, 40)).astype(np.float32))
    assert FIDInfinity().score(wide, wide)[0].params["bias_dominated"] is True


def test_bad_input_is_answered_in_words():
    assert FIDInfinity().score(rows(29, 8), rows(60, 9))[0].status == "too_few"
    ones = Rows(np.arange(60).astype(str), np.ones((60, D), np.float32))
    assert FIDInfinity().score(ones, ones)[0].value == pytest.approx(0, abs=1e-12)
    cheap = FIDInfinity(max_error_seconds=0).score(rows(60, 8), rows(60, 9))[0]
    assert "max_error_seconds" in cheap.params["std_error_reason"]
    with pytest.raises(MetricError, match="first_block < blocks"):
        FIDInfinity(blocks=3, first_block=3)
    with pytest.raises(MetricError, match="expected one of"):
        FIDInfinity(error="guess")


@pytest.mark.parametrize(("n", "m"), [(30, 300), (300, 30)])
def test_at_unequal_n_no_bias_is_left_that_its_error_hides(n, m):
    """With both sides at all their rows the mean is below the truth of 0: at d = 48, 2 d / 20 d by 2.4 deviations."""
    metric = FIDInfinity(error="none", blocks=6)
    found = [metric.score(rows(n, i), rows(m, i + 900), seed=i)[0] for i in range(40)]
    values = np.array([score.value for score in found])
    assert abs(values.mean()) < 0.6 * values.std()
    floors = np.array([score.real_floor for score in found])
    assert abs(floors.mean() - values.mean()) < 3.5 * np.hypot(values.std(), floors.std()) / np.sqrt(40)
    assert {score.params["n_used"] for score in found} == {30}


def test_a_bias_beyond_the_error_is_marked_and_moves_with_n():
    subjects = np.arange(192) // 16
    x = np.repeat(np.random.default_rng(1).normal(size=(12, D)), 16, axis=0)
    x += 0.2 * np.random.default_rng(2).normal(size=x.shape)
    real = Rows(np.arange(192).astype(str), x.astype(np.float32), subjects)
    score = FIDInfinity().score(real, rows(192, 3))[0]
    assert (score.params["bias_dominated"], score.params["moves_with_n"]) == (True, True)
    assert score.real_floor > 2 * score.real_floor_std_error
