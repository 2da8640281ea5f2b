"""What perfect generators get from manifold metrics: by ranks, and by Monte Carlo with several images a patient."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest

from chexray.metrics.prdc import _values
from chexray.stats.manifold_floor import Balls, Neighbours, held_share
from chexray.stats.manifolds import manifolds
from chexray.stats.neighbours import kth_neighbour

K = 5


def population(n: int, size: int, rng: np.random.Generator, d: int = 12) -> tuple[np.ndarray, np.ndarray]:
    patients = np.arange(n) // size
    own = rng.normal(size=(patients[-1] + 1, d))[patients]
    x = own if size == 1 else 0.8 * own + 0.6 * rng.normal(size=(n, d))
    return x.astype(np.float32), patients


@pytest.mark.parametrize(("n", "m"), [(12, 12), (12, 120), (40, 7), (300, 30)])
def test_independent_images_follow_the_law_of_naeem(n, m):
    x, patients = population(n, 1, np.random.default_rng(0))
    balls = Balls.of(Neighbours.of(x, patients, K))
    coverage, error = balls.coverage(m, patients)
    assert coverage == pytest.approx(1 - comb(n - 1, K) / comb(n + m - 1, K), abs=1e-9)
    assert error == pytest.approx(0, abs=1e-9)
    assert balls.density(patients) == (pytest.approx(1.0), pytest.approx(0.0, abs=1e-9))


def test_a_ball_is_asked_without_the_patient_it_may_hold():
    """By brute force: each patient is taken out, radii are measured anew, and the balls are looked through."""
    x, patients = population(60, 3, np.random.default_rng(1), d=3)
    expected = np.zeros(60, bool)
    for patient in range(20):
        rest, own = x[patients != patient].astype(float), x[patients == patient].astype(float)
        within = np.linalg.norm(rest[:, None] - rest, axis=2)
        radii = np.sort(within, axis=1)[:, K]
        expected[patients == patient] = (np.linalg.norm(own[:, None] - rest, axis=2) < radii).any(1)
    np.testing.assert_array_equal(Neighbours.of(x, patients, K).held(), expected)


@pytest.mark.calibration
@pytest.mark.parametrize(("n", "m", "size"), [(80, 80, 4), (160, 16, 2), (96, 200, 8)])
def test_clustered_real_images_have_the_floor_of_perfect_generators(n, m, size):
    values, floors = [], []
    for seed in range(40):
        rng = np.random.default_rng([seed, n, m])
        (x, patients), (y, _) = population(n, size, rng), population(m, 1, rng)
        found = _values(manifolds(x, y, kth_neighbour(x, K), kth_neighbour(y, K)), K)
        values.append([found[name] for name in ("precision", "density", "coverage")])
        around = Neighbours.of(x, patients, K)
        balls = Balls.of(around)
        floors.append([held_share(around), balls.density(patients), balls.coverage(m, patients)])
    values, floors = np.array(values), np.array(floors)
    error = np.hypot(values.std(0), floors[:, :, 0].std(0)) / np.sqrt(40)
    assert (np.abs(values.mean(0) - floors[:, :, 0].mean(0)) < 3.5 * error + 0.2 * floors[:, :, 1].mean(0)).all()
    ratio = np.sqrt((floors[:, :, 1] ** 2).mean(0)) / floors[:, :, 0].std(0)
    assert (ratio > 0.6).all()


def test_lists_are_the_same_for_any_mapper():
    x, patients = population(90, 3, np.random.default_rng(2))
    backwards = lambda fn, items, *shared: [fn(item, *shared) for item in items[::-1]][::-1]  # noqa: E731
    one, other = Neighbours.of(x, patients, K), Neighbours.of(x, patients, K, mapper=backwards)
    np.testing.assert_array_equal(one.index, other.index)
