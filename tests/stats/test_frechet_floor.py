"""The Fréchet distance of perfect generators at unequal n, below n = d, and with several images a patient."""

from __future__ import annotations

import numpy as np
import pytest

from chexray.stats.frechet import frechet_distance_small
from chexray.stats.frechet_floor import Population, Repeats, frechet_floor, vendi_growth
from chexray.stats.spectrum import vendi_score

D = 24
SCALE = np.arange(1, D + 1) ** -0.5


def population(n: int, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    patients = np.arange(n) // size
    own = rng.normal(size=(patients[-1] + 1, D))[patients]
    x = own if size == 1 else 0.8 * own + 0.6 * rng.normal(size=(n, D))
    return (x * SCALE).astype(np.float32), patients


@pytest.mark.calibration
@pytest.mark.parametrize(
    ("n", "m", "size"), [(24, 24, 1), (12, 12, 1), (24, 240, 1), (240, 24, 1), (96, 96, 4), (240, 240, 8)]
)
def test_the_floor_is_the_mean_of_perfect_generators(n, m, size):
    values, floors, errors = [], [], []
    for seed in range(30):
        rng = np.random.default_rng([seed, n, m])
        (x, patients), (y, _) = population(n, size, rng), population(m, 1, rng)
        values.append(frechet_distance_small(x, y))
        floor, error = frechet_floor(x, patients, np.arange(m), frechet_distance_small, repeats=Repeats(), seed=seed)
        floors.append(floor)
        errors.append(error)
    assert abs(np.mean(floors) - np.mean(values)) < 0.8 * np.std(values)
    assert np.mean(floors) == pytest.approx(np.mean(values), rel=0.07)
    assert 0.6 < np.mean(errors) / np.std(floors) < 2.5


def test_the_spectrum_is_found_below_n_equal_d():
    x, _ = population(16, 1, np.random.default_rng(0))
    spectra = [Population.of(population(16, 1, np.random.default_rng(k))[0], None, np.random.default_rng(k)).spectrum
               for k in range(40)]  # fmt: skip
    assert np.mean(np.sum(spectra, 1)) == pytest.approx(np.sum(SCALE**2), rel=0.1)
    assert x.shape == (16, D)
    squares = np.mean([np.sum(s**2) for s in spectra])
    assert squares == pytest.approx(np.sum(SCALE**4), rel=0.5), "eigenvalues of 16 rows would give 2.4 times as much"


def test_a_seed_gives_one_floor():
    x, patients = population(60, 3, np.random.default_rng(4))
    first, again = (frechet_floor(x, patients, np.arange(40), frechet_distance_small, repeats=Repeats(2, 2), seed=7)
                    for _ in range(2))  # fmt: skip
    assert first == again


def test_vendi_grows_as_more_images_would_make_it():
    draws = [[population(n, 1, np.random.default_rng([k, n]))[0] + 0.3 for n in (30, 240)] for k in range(10)]
    truth = np.mean([vendi_score(large) / vendi_score(small) for small, large in draws])
    found = np.mean([vendi_growth(small, None, 240, k) for k, (small, _) in enumerate(draws)])
    assert found == pytest.approx(truth, rel=0.06)
