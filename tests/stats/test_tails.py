"""The tail index of features, and who is said to have heavy tails."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from chexray.stats.tails import feature_tail_index, heavy_tails, squared_distances_to_mean, tail_index


@pytest.mark.parametrize("index", [0.8, 1.5, 3.0])
def test_a_pareto_law_has_its_index(index):
    values = scipy.stats.pareto(index).rvs(20000, random_state=0)
    assert tail_index(values) == pytest.approx(index, rel=0.06)
    assert tail_index(values * 1e-30) == pytest.approx(tail_index(values), rel=1e-9)


def test_without_a_tail_to_see_nothing_is_heavy():
    assert tail_index(np.ones(100)) == np.inf
    assert tail_index(np.zeros(100)) == np.inf
    assert tail_index(np.arange(10)) == np.inf
    assert heavy_tails(("real", np.ones((40, 3), np.float32), None)) == ""


def test_distances_are_taken_in_float64():
    x = (np.random.default_rng(0).normal(size=(50, 4)) * 1e-25 + 0).astype(np.float32)
    exact = x.astype(np.float64) - x.astype(np.float64).mean(0)
    np.testing.assert_allclose(squared_distances_to_mean(x), (exact**2).sum(1), rtol=1e-9)
    assert (squared_distances_to_mean(x) > 0).all(), "1e-50 is 0 in float32"


def test_the_side_with_heavy_tails_is_named_and_the_other_is_not():
    rng = np.random.default_rng(1)
    normal = rng.normal(size=(400, 16)).astype(np.float32)
    heavy = (rng.normal(size=(400, 16)) / np.sqrt(rng.chisquare(2.5, (400, 1)))).astype(np.float32)
    said = heavy_tails(("real", normal, None), ("synthetic", heavy, None))
    assert "synthetic" in said
    assert "real" not in said.split(";")[0]
    assert heavy_tails(("real", normal, None)) == ""


def test_images_of_one_patient_are_one_unit():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(60, 8)).astype(np.float32)
    subjects = np.repeat(np.arange(60), 3)
    assert feature_tail_index(np.repeat(x, 3, axis=0), subjects) == pytest.approx(feature_tail_index(x, None), rel=1e-9)
