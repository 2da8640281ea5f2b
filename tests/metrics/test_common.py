"""Saying no in words, and the real-against-real floor."""

from __future__ import annotations

import numpy as np
import pytest

from chexray.errors import MetricError
from chexray.metrics.base import Output, Rows
from chexray.metrics.common import Error, inverse_n, measured, nulls, real_floor, real_reference, refusal
from chexray.stats.frechet import frechet_distance_small

OUT = (Output("a", better="lower"), Output("b"))


def rows(n: int, d: int = 4, seed: int = 0, subjects: np.ndarray | None = None) -> Rows:
    x = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    return Rows(np.array([f"id{i:04d}" for i in range(n)]), x, subjects)


def spoilt(value: float) -> Rows:
    good = rows(6)
    x = good.features.copy()
    x[2:4, 1] = value
    return Rows(good.ids, x)


def test_healthy_rows_are_not_refused():
    assert refusal(OUT, rows(5), rows(5), 5) is None
    assert refusal(OUT, rows(0), rows(5), 5, needs_real=False) is None


def test_too_few_names_the_side_and_both_numbers():
    found = refusal(OUT, rows(5), rows(1), 2)
    assert found is not None
    assert [score.metric for score in found] == ["a", "b"]
    assert found[0].status == "too_few"
    assert found[0].better == "lower"
    assert found[0].reason == "1 synthetic image, and at least 2 are needed"
    found = refusal(OUT, rows(0), rows(5), 2)
    assert found is not None
    assert "0 real images" in found[0].reason


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_bad_features_are_counted_and_the_first_named(value):
    found = refusal(OUT, spoilt(value), rows(5), 2)
    assert found is not None
    assert found[0].status == "undefined"
    assert found[0].reason == "NaN or infinite features in 2 of 6 real images, first id0002"


def test_opposite_infinities_do_not_cancel():
    x = rows(4).features.copy()
    x[0, 0], x[1, 0] = np.inf, -np.inf
    found = refusal(OUT, Rows(rows(4).ids, x), rows(5), 2)
    assert found is not None
    assert "2 of 4" in found[0].reason


def test_constant_and_zero_rows_are_refused_only_on_request():
    flat = Rows(rows(5).ids, np.ones((5, 4), np.float32))
    assert refusal(OUT, flat, rows(5), 2) is None
    found = refusal(OUT, flat, rows(5), 2, refuse_constant=True)
    assert found is not None
    assert found[0].reason == "all 5 real images have the same features"
    empty = Rows(rows(5).ids, np.zeros((5, 4), np.float32))
    found = refusal(OUT, rows(5), empty, 2, refuse_zero_rows=True)
    assert found is not None
    assert found[0].reason == "features all zero in 5 of 5 synthetic images, first id0000"


def test_features_of_two_encoders_are_an_error():
    with pytest.raises(MetricError, match="4 wide and synthetic ones 5"):
        refusal(OUT, rows(5), rows(5, d=5), 2)


def test_a_floor_compares_patient_disjoint_halves():
    subjects = np.arange(40) // 4
    seen = []

    def values(a: Rows, b: Rows) -> dict[str, float]:
        assert a.subjects is not None
        assert b.subjects is not None
        assert not set(a.subjects.tolist()) & set(b.subjects.tolist())
        seen.append((len(a), len(b)))
        return {"a": 2.0}

    assert real_floor(values, rows(40, subjects=subjects), 100, seed=0) == ({"a": 2.0}, "real_halves")
    assert seen == [(20, 20)] * 3
    found, method = real_floor(values, rows(40, subjects=subjects), 40, seed=0, scale=inverse_n)
    assert found == {"a": pytest.approx(1.0)}, "twice the images, half the bias"
    assert method == "real_halves_scaled"


def test_there_is_no_floor_without_enough_reals():
    def never(a: Rows, b: Rows) -> dict[str, float]:
        raise AssertionError

    assert real_floor(never, rows(3), 10, seed=0, min_samples=2) == ({}, "")
    assert real_floor(never, rows(0), 10, seed=0) == ({}, "")
    assert real_floor(never, rows(9, subjects=np.zeros(9, dtype=np.int64)), 10, seed=0) == ({}, "")
    assert real_reference(lambda r: {"a": 1.0}, rows(1), 10, seed=0) == ({}, "")


@pytest.mark.parametrize(("n", "d", "scale"), [(120, 20, inverse_n), (40, 20, inverse_n), (30, 100, "rate")])
def test_the_floor_is_what_other_real_images_would_get(n, d, scale):
    spectrum = np.arange(1, d + 1) ** -0.5

    def draw(seed: int) -> Rows:
        return Rows(np.arange(n).astype(str), rows(n, d, seed).features * spectrum.astype(np.float32))

    def values(a: Rows, b: Rows) -> dict[str, float]:
        return {"a": frechet_distance_small(a.features, b.features)}

    truth = np.mean([values(draw(i), draw(i + 500))["a"] for i in range(12)])
    floors = [real_floor(values, draw(i), n, seed=i, scale=scale)[0]["a"] for i in range(12)]
    assert np.mean(floors) == pytest.approx(truth, rel=0.15)


def test_the_floor_of_one_sided_metrics_is_the_real_set_at_the_same_n():
    sizes = []

    def values(r: Rows) -> dict[str, float]:
        sizes.append(len(r))
        return {"a": float(len(r))}

    assert real_reference(values, rows(50), 20, seed=0) == ({"a": 20.0}, "real_subsample")
    assert real_reference(values, rows(10), 20, seed=0) == ({"a": 10.0}, "all_real")
    assert sizes == [20, 20, 20, 10]


def test_a_number_gets_its_interval_and_a_missing_error_its_reason():
    score = measured(OUT[0], 1.0, Error.of(1.0, "jackknife"), 0.5, low=0.0, note=None, k=3)
    assert (score.ci_low, score.std_error_method, score.real_floor, score.params) == (0.0, "jackknife", 0.5, {"k": 3})
    score = measured(OUT[0], 1.0, Error.of(float("nan"), "jackknife"))
    assert score.std_error is None
    assert score.std_error_method == ""
    assert "one patient" in score.params["std_error_reason"]
    assert measured(OUT[0], float("inf"), Error()).status == "undefined"
    assert nulls(OUT, "failed", "because")[1].reason == "because"
