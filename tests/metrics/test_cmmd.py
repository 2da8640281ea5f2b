"""CMMD as a metric: value by its definition, error, floor, and bad input in words."""

from __future__ import annotations

import numpy as np
import pytest

from chexray import registry
from chexray.errors import MetricError
from chexray.metrics.base import Rows, serial
from chexray.metrics.cmmd import CMMD


def rows(n: int, d: int = 32, seed: int = 0, *, shift: float = 0.0) -> Rows:
    x = np.random.default_rng(seed).normal(size=(n, d)) + shift
    return Rows(np.array([f"id{i:05d}" for i in range(n)]), x.astype(np.float32))


def definition(real: Rows, synthetic: Rows, sigma: float = 10.0) -> float:
    """1000 times the V-statistic, in float64 from differences."""
    x, y = (r.features.astype(np.float64) for r in (real, synthetic))
    x, y = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (x, y))

    def mean(a, b):
        return np.exp(-((a[:, None] - b[None]) ** 2).sum(2) / (2 * sigma**2)).mean()

    return 1000 * (mean(x, x) + mean(y, y) - 2 * mean(x, y))


def test_it_is_found_by_name():
    assert registry.find("metrics", "cmmd") is CMMD
    assert [(o.name, o.better) for o in CMMD().outputs] == [("cmmd", "lower")]


@pytest.mark.parametrize("sigma", [10.0, 1.0])
def test_a_score_is_complete_and_follows_the_definition(sigma):
    real, synthetic = rows(90), rows(70, seed=1, shift=0.2)
    (score,), images = CMMD(sigma).score_images(real, synthetic)
    assert score.value == pytest.approx(definition(real, synthetic, sigma), rel=2e-6)
    assert 0 <= score.ci_low < score.value < score.ci_high
    assert score.std_error_method == "jackknife"
    assert images == {}
    assert CMMD(sigma).score(real, synthetic, mapper=serial) == [score]


def test_only_the_direction_of_features_counts():
    real, synthetic = rows(40), rows(30, seed=1)
    longer = Rows(real.ids, real.features * np.float32(1e6))
    assert CMMD().score(longer, synthetic)[0].value == pytest.approx(CMMD().score(real, synthetic)[0].value, rel=1e-4)


def test_the_floor_is_what_a_perfect_generator_gets():
    found = [CMMD().score(rows(100, seed=i), rows(60, seed=i + 50))[0] for i in range(20)]
    assert np.mean([s.real_floor for s in found]) == pytest.approx(np.mean([s.value for s in found]), rel=0.1)
    assert found[0].params["floor_method"] == "real_pairs"


def test_an_offset_costs_no_digits():
    """1e3 on unit noise: unit rows differ by 1e-3 then, which float32 products round to 24 % of the value."""
    real, synthetic = (Rows(r.ids, r.features + np.float32(1e3)) for r in (rows(90), rows(70, seed=1, shift=0.2)))
    assert CMMD().score(real, synthetic)[0].value == pytest.approx(definition(real, synthetic), rel=1e-3)


@pytest.mark.calibration
def test_the_error_is_near_that_of_new_draws():
    found = [CMMD().score(rows(80, seed=i), rows(80, seed=i + 500, shift=0.3), floor=False)[0] for i in range(80)]
    ratio = np.sqrt(np.mean([s.std_error**2 for s in found])) / np.std([s.value for s in found], ddof=1)
    assert 0.8 < ratio < 1.4


def test_intervals_rank_two_generators():
    real = rows(300)
    near, far = (CMMD().score(real, rows(300, seed=s, shift=t), floor=False)[0] for s, t in ((1, 0.1), (2, 0.6)))
    assert near.ci_high < far.ci_low


def test_identical_sets_are_zero():
    same = rows(40)
    (score,) = CMMD().score(same, same)
    assert score.value == pytest.approx(0, abs=1e-6)
    assert "same features" in score.params["note"]


@pytest.mark.parametrize(
    ("real", "synthetic", "status", "words"),
    [
        (rows(1), rows(5), "too_few", "1 real image"),
        (rows(5), rows(5, shift=np.nan), "undefined", "NaN"),
        (rows(5), Rows(rows(5).ids, np.zeros((5, 32), dtype=np.float32)), "undefined", "zero"),
    ],
)
def test_bad_input_is_a_null_with_a_reason(real, synthetic, status, words):
    (score,) = CMMD().score(real, synthetic)
    assert (score.value, score.status) == (None, status)
    assert words in score.reason


def test_a_wrong_width_is_refused():
    with pytest.raises(MetricError, match="sigma"):
        CMMD(sigma=0)
