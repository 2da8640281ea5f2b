"""PRDC as a metric: the four numbers, what their errors cover, per-image columns, and bad input in words."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest

from chexray import registry
from chexray.errors import MetricError
from chexray.metrics.base import Rows, serial
from chexray.metrics.prdc import PRDC

NAMES = ("precision", "recall", "density", "coverage")


def rows(n: int, d: int = 16, seed: int = 0, *, spread: float = 1.0, shift: float = 0.0) -> Rows:
    x = np.random.default_rng(seed).normal(size=(n, d)) * spread + shift
    return Rows(np.array([f"id{i:05d}" for i in range(n)]), x.astype(np.float32))


def test_it_is_found_by_name_and_says_what_it_returns():
    assert registry.find("metrics", "prdc") is PRDC
    assert [(o.name, o.better) for o in PRDC().outputs] == [(name, "higher") for name in NAMES]


def test_scores_are_complete_and_equal_the_prdc_package():
    package = pytest.importorskip("prdc")
    real, synthetic = rows(200), rows(150, seed=1, spread=0.8, shift=0.3)
    scores, images = PRDC().score_images(real, synthetic)
    with contextlib.redirect_stdout(io.StringIO()):
        expected = package.compute_prdc(real.features.astype(float), synthetic.features.astype(float), 5)
    for name, score in zip(NAMES, scores, strict=True):
        assert score.metric == name
        assert score.value == pytest.approx(expected[name], abs=1e-12)
        assert score.ci_low < score.value < score.ci_high
        assert score.params.get("std_error_conditional_on") == ("radii" if name == "coverage" else None)
        assert score.real_floor > 0.8
    assert PRDC().score(real, synthetic, mapper=serial) == scores
    assert set(images) == {"nearest_real_index", "nearest_real_distance", "realism", "rarity"}
    assert images["nearest_real_index"].dtype == np.int64
    distance = np.linalg.norm(synthetic.features - real.features[images["nearest_real_index"]], axis=1)
    np.testing.assert_allclose(images["nearest_real_distance"], distance, rtol=1e-5)
    assert np.isnan(images["rarity"]).mean() == pytest.approx(1 - scores[0].value)


@pytest.mark.calibration
def test_the_error_is_near_that_of_new_draws():
    """Both sides are drawn again each time, radii included, so this is what the errors are for, not what they assume.

    They come out 0.9 to 1.6 times the true error: precision and coverage are given too wide an error where they are
    near 1.
    """
    values, errors = [], []
    for seed in range(60):
        real, synthetic = rows(120, seed=2 * seed), rows(120, seed=2 * seed + 1, spread=0.8, shift=0.3)
        scores = PRDC().score(real, synthetic, floor=False)
        values.append([score.value for score in scores])
        errors.append([score.std_error for score in scores])
    values, errors = np.array(values), np.array(errors)
    ratio = np.sqrt((errors**2).mean(0)) / values.std(0, ddof=1)
    assert (ratio > 0.75).all()
    assert (ratio < 2.0).all()
    covered = np.abs(values - values.mean(0)) <= 1.96 * errors
    assert (covered.mean(0) >= 0.88).all()


def test_coverage_ranks_two_generators():
    real = rows(400)
    good, bad = (PRDC().score(real, rows(400, seed=s, shift=t), floor=False)[3] for s, t in ((1, 0.0), (2, 0.7)))
    assert good.ci_low > bad.ci_high


def test_patients_widen_the_interval():
    rng = np.random.default_rng(0)
    subjects = np.repeat(np.arange(30), 8)
    near_or_far = np.where(rng.random(30) < 0.5, 0.0, 6.0)[subjects, None]
    x = (rng.normal(size=(240, 8)) + near_or_far).astype(np.float32)
    ids = np.array([f"id{i:05d}" for i in range(240)])
    synthetic = rows(200, 8, 1)
    alone, clustered = (PRDC().score(Rows(ids, x, s), synthetic, floor=False) for s in (None, subjects))
    assert clustered[1].value == alone[1].value
    assert clustered[1].std_error > 1.5 * alone[1].std_error


def test_identical_sets_are_perfect_and_not_certain():
    real = rows(100)
    for score in PRDC().score(real, real):
        assert score.value >= 1
        assert "same features" in score.params["note"]
        assert score.std_error > 0


@pytest.mark.parametrize(
    ("real", "synthetic", "status", "words"),
    [
        (rows(5), rows(50), "too_few", "5 real images, and at least 6"),
        (rows(50), rows(1), "too_few", "1 synthetic image"),
        (rows(50), rows(50, shift=np.inf), "undefined", "infinite"),
        (rows(50, spread=0), rows(50), "undefined", "same features"),
    ],
)
def test_bad_input_is_four_nulls_with_a_reason(real, synthetic, status, words):
    scores, images = PRDC().score_images(real, synthetic)
    assert [score.metric for score in scores] == list(NAMES)
    assert all((score.value, score.status) == (None, status) and words in score.reason for score in scores)
    assert images == {}


def test_as_few_images_as_k_allows():
    scores = PRDC().score(rows(6), rows(6, seed=1))
    assert all(score.value is not None and score.real_floor is None for score in scores)


@pytest.mark.parametrize("k", [0, -1, 2.5])
def test_a_wrong_k_is_refused(k):
    with pytest.raises(MetricError, match="neighbours"):
        PRDC(k=k)


@pytest.mark.calibration
@pytest.mark.parametrize(("n", "m"), [(240, 24), (24, 240), (120, 120)])
def test_floors_are_for_the_n_of_both_sets(n, m):
    """Coverage at 1000 / 100 is 0.37 for a perfect generator; halves of the real set said 0.97."""
    draws = [PRDC().score(rows(n, seed=s), rows(m, seed=s + 500), seed=s) for s in range(25)]
    for scores in zip(*draws, strict=True):
        values, floors = (np.array([getattr(s, name) for s in scores]) for name in ("value", "real_floor"))
        spread = np.hypot(values.std(), floors.std()) / 5
        assert abs(values.mean() - floors.mean()) < 3.5 * spread + 0.01, scores[0].metric
        if scores[0].metric != "density":
            assert np.mean([score.beyond_floor != "" for score in scores]) <= 0.2


def test_a_worse_generator_is_said_to_be_worse():
    collapsed, blown = (PRDC().score(rows(200), rows(200, seed=1, spread=s)) for s in (0.6, 1.6))
    assert collapsed[1].beyond_floor == "worse"
    assert blown[0].beyond_floor == "worse"


def test_few_patients_are_a_reason_for_no_floor():
    real = Rows(rows(60).ids, rows(60).features, np.arange(60) // 20)
    for score in PRDC().score(real, rows(60, seed=1)):
        assert score.real_floor is None
        assert "patients" in score.params["floor_reason"]
        assert score.beyond_floor == ""
