"""The Vendi score as a metric."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from chexray import registry
from chexray.metrics.base import Rows
from chexray.metrics.vendi import Vendi
from chexray.stats import moments
from chexray.stats.spectrum import vendi_score


def rows(n: int, d: int, seed: int, *, spread: float = 1.0, subjects: np.ndarray | None = None) -> Rows:
    x = np.random.default_rng(seed).normal(size=(n, d)) * spread + 1
    return Rows(np.array([f"id{i:04d}" for i in range(n)]), x.astype(np.float32), subjects)


def by_pickle(fn, items, *shared):
    return [pickle.loads(pickle.dumps(fn))(item, *pickle.loads(pickle.dumps(shared))) for item in items]


def test_it_is_found_by_name():
    assert registry.find("metrics", "vendi") is Vendi


@pytest.mark.parametrize(("n", "d"), [(200, 10), (15, 40)])
def test_a_score_is_complete(n, d):
    synthetic = rows(n, d, 0, spread=0.3)
    (score,), images = Vendi().score_images(rows(2 * n, d, 1), synthetic)
    assert images == {}
    assert score.value == pytest.approx(vendi_score(synthetic.features), rel=1e-9)
    assert 1 <= score.ci_low < score.value < score.ci_high <= min(n, d)
    assert score.real_floor > score.value, "the collapsed generator is below the real set"
    assert score.params == {"floor_method": "real_stand_ins"}
    assert score.beyond_floor == "worse"


@pytest.mark.calibration
@pytest.mark.parametrize(("n", "d"), [(20, 30), (80, 12)])
def test_the_error_is_the_monte_carlo_one_or_somewhat_wider(n, d):
    found = [Vendi().score(rows(2, d, 0), rows(n, d, i), floor=False)[0] for i in range(80)]
    true = np.std([score.value for score in found])
    claimed = np.sqrt(np.mean([score.std_error**2 for score in found]))
    assert 0.8 < claimed / true < 1.8


def test_who_computes_does_not_matter(monkeypatch):
    monkeypatch.setattr(moments, "SHARD_ROWS", 30)
    synthetic = rows(100, 8, 2)
    assert Vendi().score(synthetic, synthetic, mapper=by_pickle) == Vendi().score(synthetic, synthetic)


def test_the_law_of_summaries():
    metric, synthetic = Vendi(), rows(90, 12, 3)
    pieces = np.array_split(np.random.default_rng(0).permutation(90), 3)
    a, b, c = (metric.summarise(synthetic.take(i)) for i in pieces)
    value = metric.compute(None, c.merge(a).merge(b))["vendi"]
    assert value == pytest.approx(metric.score(synthetic, synthetic)[0].value, rel=1e-9)


def test_bad_input_is_answered_in_words():
    assert Vendi().score(rows(9, 4, 4), rows(1, 4, 5))[0].status == "too_few"
    blank = rows(9, 4, 6)
    blank.features[4] = 0
    assert "1 of 9 synthetic images, first id0004" in Vendi().score(rows(9, 4, 4), blank)[0].reason
    assert Vendi().score(blank, rows(9, 4, 4))[0].real_floor is None
    same = Rows(np.arange(9).astype(str), np.ones((9, 4), np.float32))
    assert Vendi().score(same, same)[0].value == pytest.approx(1)
    one = rows(9, 4, 7, subjects=np.zeros(9, dtype=np.int64))
    assert "one patient" in Vendi().score(one, one)[0].params["std_error_reason"]


@pytest.mark.parametrize(("n", "m"), [(200, 20), (40, 240)])
def test_the_floor_is_for_n_synthetic_images(n, m):
    """Of 100 real images the score is that of 100; 1000 synthetic ones of a perfect generator show more."""
    found = [Vendi().score(rows(n, 12, s), rows(m, 12, s + 500), seed=s)[0] for s in range(25)]
    values, floors = (np.array([getattr(s, name) for s in found]) for name in ("value", "real_floor"))
    assert abs(values.mean() - floors.mean()) < 3.5 * np.hypot(values.std(), floors.std()) / 5 + 0.02 * values.mean()
    assert np.mean([score.beyond_floor != "" for score in found]) <= 0.16


def test_images_of_one_patient_are_not_those_of_a_generator():
    """Ten images of each of 30 patients: 120 independent images differ more than any 120 of them."""
    rng = np.random.default_rng(0)
    x = np.repeat(rng.normal(size=(30, 40)), 10, axis=0) + 0.1 * rng.normal(size=(300, 40))
    real = Rows(np.arange(300).astype(str), x.astype(np.float32), np.repeat(np.arange(30), 10))
    independent = Rows(np.arange(120).astype(str), rng.normal(size=(120, 40)).astype(np.float32))
    (score,) = Vendi().score(real, independent)
    assert score.real_floor == pytest.approx(score.value, rel=0.1)
    assert score.params["floor_method"] == "real_stand_ins_extrapolated"
    assert score.real_floor > 1.15 * vendi_score(real.features)
