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
