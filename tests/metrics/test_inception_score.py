"""The inception score as a metric."""

from __future__ import annotations

import numpy as np
import pytest

from chexray import registry
from chexray.errors import MetricError
from chexray.metrics.base import Rows
from chexray.metrics.inception_score import InceptionScore
from chexray.stats.entropy import EntropyState, inception_score, split_ids

CENTRES = np.random.default_rng(7).normal(size=(9, 50)) * 3


def rows(n: int, seed: int, *, kinds: int = 9, subjects: np.ndarray | None = None) -> Rows:
    rng = np.random.default_rng(seed)
    x = CENTRES[rng.integers(0, kinds, n)] + rng.normal(size=(n, 50)) * 1.5
    return Rows(np.array([f"id{i:04d}" for i in range(n)]), x.astype(np.float32), subjects)


def test_it_is_found_by_name():
    assert registry.find("metrics", "inception_score") is InceptionScore


def test_agrees_with_torch_fidelity():
    torch = pytest.importorskip("torch")
    module = pytest.importorskip("torch_fidelity.metric_isc")
    synthetic = rows(203, 0)
    expected = module.isc_features_to_metric(torch.from_numpy(synthetic.features))["inception_score_mean"]
    assert InceptionScore().score(rows(50, 1), synthetic)[0].value == pytest.approx(expected, rel=1e-12)


def test_a_score_is_complete():
    (score,), images = InceptionScore().score_images(rows(400, 2), rows(200, 3, kinds=3))
    assert images == {}
    assert score.better == "higher"
    assert score.std_error is not None
    assert score.ci_low is not None
    assert 1 <= score.ci_low < score.value < score.ci_high <= 50
    assert score.real_floor > score.value, "nine kinds of real images against three"
    assert score.params == {"input": "logits", "floor_method": "real_stand_ins"}
    assert score.beyond_floor == "worse"


@pytest.mark.calibration
@pytest.mark.parametrize("n", [60, 300])
def test_the_error_is_the_monte_carlo_one(n):
    found = [InceptionScore().score(rows(2, 0), rows(n, i), floor=False)[0] for i in range(80)]
    true = np.std([score.value for score in found])
    claimed = np.sqrt(np.mean([score.std_error**2 for score in found]))
    assert 0.75 < claimed / true < 1.4


def test_errors_count_patients():
    subjects = np.repeat(np.arange(50), 4)
    one = rows(50, 4)
    copies = Rows(np.arange(200).astype(str), np.repeat(one.features, 4, axis=0), subjects)
    (clustered,) = InceptionScore(splits=1).score(one, copies)
    (naive,) = InceptionScore(splits=1).score(one, Rows(copies.ids, copies.features))
    assert clustered.std_error > 1.4 * naive.std_error


def test_upstreams_input_is_a_setting_and_is_named():
    metric = InceptionScore(source="features")
    assert (metric.reads, InceptionScore().reads) == ("features", "logits")
    (score,) = metric.score(rows(40, 5), rows(40, 6))
    assert score.metric == "inception_score"
    assert score.params["input"] == "pool3_upstream"


def test_the_law_of_summaries():
    synthetic, split = rows(90, 7), split_ids(90, 10)
    pieces = np.array_split(np.random.default_rng(0).permutation(90), 4)
    a, b, c, d = (EntropyState.of(synthetic.features[i], split[i], 10) for i in pieces)
    value = InceptionScore().compute(None, d.merge(b).merge(a.merge(c)))["inception_score"]
    assert value == pytest.approx(inception_score(synthetic.features), rel=1e-9)


def test_bad_input_is_answered_in_words():
    assert InceptionScore().score(rows(50, 8), rows(19, 9))[0].reason.startswith("19 synthetic images, and at least 20")
    bad = rows(40, 10)
    bad.features[1, 1] = np.inf
    assert InceptionScore().score(rows(40, 11), bad)[0].status == "undefined"
    no_floor = InceptionScore().score(bad, rows(40, 11))[0]
    assert no_floor.value is not None
    assert no_floor.real_floor is None
    assert InceptionScore().score(rows(0, 8), rows(40, 9))[0].value is not None
    same = Rows(np.arange(40).astype(str), np.ones((40, 50), np.float32))
    assert InceptionScore().score(same, same)[0].value == pytest.approx(1)
    one = rows(40, 12, subjects=np.zeros(40, dtype=np.int64))
    assert "one patient" in InceptionScore().score(one, one)[0].params["std_error_reason"]
    with pytest.raises(MetricError, match="expected one of logits, features"):
        InceptionScore(source="pool3")
    with pytest.raises(MetricError, match="at least 1"):
        InceptionScore(splits=0)
