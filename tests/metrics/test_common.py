"""Saying no in words, and the real-against-real floor."""

from __future__ import annotations

import numpy as np
import pytest

from chexray.errors import MetricError
from chexray.metrics.base import Output, Rows
from chexray.metrics.common import Error, Floor, measured, nulls, refusal

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


def test_a_number_gets_its_interval_and_a_missing_error_its_reason():
    said: dict = {"method": {"k": 3}, "about": {"note": None}}
    score = measured(OUT[0], 1.0, Error.of(1.0, "jackknife"), Floor(0.5, 0.1), low=0.0, **said)
    assert (score.ci_low, score.std_error_method, score.real_floor, score.params) == (0.0, "jackknife", 0.5, {"k": 3})
    score = measured(OUT[0], 1.0, Error.of(float("nan"), "jackknife"))
    assert score.std_error is None
    assert score.std_error_method == ""
    assert "one patient" in score.params["std_error_reason"]
    assert measured(OUT[0], float("inf"), Error()).status == "undefined"
    assert nulls(OUT, "failed", "because")[1].reason == "because"


@pytest.mark.parametrize(
    ("better", "value", "floor", "expected"),
    [
        ("lower", 1.0, Floor(0.5, 0.1), "worse"),
        ("lower", 0.1, Floor(0.5, 0.1), "better"),
        ("higher", 1.0, Floor(0.5, 0.1), "better"),
        ("higher", 0.1, Floor(0.5, 0.1), "worse"),
        ("lower", 0.75, Floor(0.5, 0.1), ""),
        ("lower", 0.8, Floor(0.5, 0.1), "worse"),
        ("lower", 0.2, Floor(0.5, 0.1), ""),
        ("lower", 1.0, Floor(0.5, 0.3), ""),
        ("lower", 1.0, Floor(0.5, 0.1, spread=0.3), ""),
        ("", 9.0, Floor(0.5, 0.1), ""),
        ("lower", 9.0, Floor(reason="one patient"), ""),
    ],
)
def test_beyond_the_floor_is_said_only_where_both_errors_allow_it(better, value, floor, expected):
    score = measured(Output("a", better=better), value, Error(0.1, "jackknife"), floor)
    assert score.beyond_floor == expected
    assert score.real_floor_std_error == floor.std_error
    assert score.params.get("floor_reason", "") == floor.reason


def test_without_an_error_of_its_own_a_number_is_not_judged():
    assert measured(OUT[0], 9.0, Error(reason="one patient"), Floor(0.5, 0.1)).beyond_floor == ""
