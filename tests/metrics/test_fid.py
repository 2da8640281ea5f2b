"""FID as a metric: value, error, floor, per-image influence, and bad input in words."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from chexray import registry
from chexray.errors import MetricError
from chexray.metrics.base import Rows, serial
from chexray.metrics.fid import FID
from chexray.stats import moments
from chexray.stats.frechet import frechet_distance_small


def rows(n: int, d: int, seed: int, *, shift: float = 0.0, subjects: np.ndarray | None = None) -> Rows:
    spectrum = np.arange(1, d + 1) ** -0.5
    x = (np.random.default_rng(seed).normal(size=(n, d)) + shift) * spectrum
    return Rows(np.array([f"id{i:04d}" for i in range(n)]), x.astype(np.float32), subjects)


def by_pickle(fn, items, *shared):
    """A mapper that sends everything through pickle, as a cluster does."""
    return [pickle.loads(pickle.dumps(fn))(item, *pickle.loads(pickle.dumps(shared))) for item in items]


def test_it_is_found_by_name():
    assert registry.find("metrics", "fid") is FID
    assert (FID().reads, FID().needs_real, FID().outputs[0].better) == ("features", True, "lower")


@pytest.mark.parametrize(
    ("n", "d", "method"), [(200, 16, "influence"), (32, 16, "influence"), (24, 16, "jackknife"), (12, 16, "jackknife")]
)
def test_a_score_is_complete(n, d, method):
    real, synthetic = rows(n, d, 0), rows(n + 5, d, 1, shift=1.0)
    (score,), images = FID().score_images(real, synthetic)
    assert score.value == pytest.approx(frechet_distance_small(real.features, synthetic.features), rel=1e-9)
    assert score.std_error is not None
    assert score.ci_low is not None
    assert score.ci_high is not None
    assert 0 <= score.ci_low < score.value < score.ci_high
    assert score.std_error_method == method
    assert score.real_floor is not None
    assert 0 < score.real_floor < score.value
    assert score.params.get("bias_dominated", False) is (n < 2 * d)
    assert ("fid_influence" in images) is (method == "influence")
    assert FID().score(real, synthetic) == [score], "the same seed gives the same numbers"
    (bare,) = FID().score(real, synthetic, floor=False)
    assert (bare.value, bare.std_error, bare.real_floor) == (score.value, score.std_error, None)


def test_the_interval_holds_the_mean_of_the_estimator():
    found = [FID().score(rows(60, 10, i), rows(60, 10, i + 900, shift=0.3), floor=False)[0] for i in range(80)]
    mean = np.mean([score.value for score in found])
    covered = [score.ci_low <= mean <= score.ci_high for score in found]
    assert np.mean(covered) >= 0.9


@pytest.mark.parametrize("n", [120, 20])
def test_errors_count_patients_not_images(n):
    subjects = np.repeat(np.arange(n), 3)

    def triple(r: Rows) -> Rows:
        x = np.repeat(r.features, 3, axis=0)
        return Rows(np.array([f"{i:04d}" for i in range(3 * n)]), x, subjects)

    real, synthetic = triple(rows(n, 16, 2)), triple(rows(n, 16, 3, shift=0.3))
    (clustered,) = FID(error="jackknife").score(real, synthetic, floor=False)
    (naive,) = FID(error="jackknife").score(Rows(real.ids, real.features), synthetic, floor=False)
    assert clustered.std_error is not None
    assert naive.std_error is not None
    assert clustered.std_error > 1.1 * naive.std_error


def test_the_influence_column_points_at_the_odd_images():
    real, synthetic = rows(200, 8, 4), rows(150, 8, 5)
    synthetic.features[[7, 90]] += 3
    columns = FID().score_images(real, synthetic)[1]
    assert set(np.argsort(columns["fid_influence"])[-2:].tolist()) == {7, 90}
    assert columns["fid_influence"].shape == (150,)


def test_the_law_of_summaries():
    metric, real, synthetic = FID(), rows(90, 12, 6), rows(70, 12, 7)
    order = np.random.default_rng(0).permutation(90)
    parts = [metric.summarise(real.take(piece)) for piece in np.array_split(order, 4)]
    merged = parts[3].merge(parts[1]).merge(parts[0].merge(parts[2]))
    value = metric.compute(merged, metric.summarise(synthetic))["fid"]
    assert value == pytest.approx(metric.score(real, synthetic)[0].value, rel=1e-9)


@pytest.mark.parametrize(("n", "error"), [(90, "auto"), (90, "jackknife"), (10, "auto")])
def test_who_computes_does_not_matter(n, error, monkeypatch):
    monkeypatch.setattr(moments, "SHARD_ROWS", 20)
    monkeypatch.setattr("chexray.metrics.fid.MAPPED_FROM_S", 0.0)
    real, synthetic = rows(n, 12, 8), rows(n, 12, 9, shift=0.2)
    assert FID(error=error).score(real, synthetic, mapper=by_pickle) == FID(error=error).score(
        real, synthetic, mapper=serial
    )


@pytest.mark.parametrize(("n", "d"), [(100, 8), (20, 30), (30, 20)])
def test_identical_sets_are_at_zero_and_said_to_be(n, d):
    real = rows(n, d, 10)
    (score,) = FID().score(real, real.take(np.arange(n)[::-1]))
    assert score.value is not None
    assert 0 <= score.value < 1e-9
    assert score.params["note"] == "both sides have the same moments"
    assert score.status == "ok"


def test_constant_features_and_dead_features_have_a_distance():
    ones = Rows(np.arange(60).astype(str), np.ones((60, 8), np.float32))
    (score,) = FID().score(ones, rows(60, 8, 11))
    assert score.value is not None
    assert score.value > 0
    assert score.std_error_method == "jackknife"
    assert FID().score(ones, ones)[0].value == 0


def test_nothing_to_compute_is_said_in_words():
    real = rows(20, 6, 12)
    assert FID().score(real, rows(1, 6, 13))[0].status == "too_few"
    bad = rows(20, 6, 14)
    bad.features[3, 2] = np.nan
    (score,), images = FID().score_images(real, bad)
    assert score.value is None
    assert "1 of 20 synthetic images, first id0003" in score.reason
    assert images == {}
    two = FID().score(rows(2, 6, 15), rows(2, 6, 16))[0]
    assert two.value is not None
    assert "too few" in two.params["std_error_reason"]


def test_a_missing_error_has_its_reason():
    real, synthetic = rows(50, 6, 17, subjects=np.zeros(50, dtype=np.int64)), rows(50, 6, 18)
    assert "one patient" in FID().score(real, synthetic)[0].params["std_error_reason"]
    cheap = FID(max_error_seconds=0).score(rows(5, 6, 19), synthetic)[0]
    assert cheap.value is not None
    assert "more than max_error_seconds: 0" in cheap.params["std_error_reason"]
    assert "full rank" in FID(error="influence").score(rows(5, 6, 19), synthetic)[0].params["std_error_reason"]
    silent, images = FID(error="none").score_images(synthetic, synthetic)
    assert (silent[0].std_error, images) == (None, {})


def test_wrong_parameters_are_refused():
    with pytest.raises(MetricError, match="expected one of auto"):
        FID(error="bootstrap")
    with pytest.raises(MetricError, match="at least 2"):
        FID(groups=1)
