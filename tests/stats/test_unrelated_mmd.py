"""MMD over unrelated pairs against dense float64, its jackknife by leaving out, and its floor by Monte Carlo."""

from __future__ import annotations

import numpy as np
import pytest

from chexray.stats import kernels
from chexray.stats.kernels import Cubic, Gaussian, kernel_sums, mmd
from chexray.stats.mmd_floor import mmd_floor
from chexray.stats.related import Related
from chexray.stats.unrelated_mmd import unrelated_mmd

N, M, D = 30, 25, 6


def sides(seed: int = 0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N, D)).astype(np.float32)
    y = (rng.normal(size=(M, D)) + 0.3).astype(np.float32)
    return x, y, (rng.integers(0, 12, N), rng.integers(5, 40, M)), (rng.integers(-1, 9, N), rng.integers(-1, 12, M))


def dense(x, y, patients, prompts, keep_x=slice(None), keep_y=slice(None)) -> float:
    """The three means over unrelated pairs, from whole matrices."""
    (sx, sy), (px, py) = patients, prompts
    a = (x[keep_x].astype(float), sx[keep_x], px[keep_x])
    b = (y[keep_y].astype(float), sy[keep_y], py[keep_y])

    def mean(u, v):
        unrelated = (u[1][:, None] != v[1]) & ((u[2][:, None] != v[2]) | (u[2][:, None] < 0))
        if u is v:
            unrelated &= ~np.eye(len(u[0]), dtype=bool)
        return ((u[0] @ v[0].T / D + 1) ** 3)[unrelated].mean()

    return mean(a, a) + mean(b, b) - 2 * mean(a, b)


def found(x, y, patients, prompts, **how):
    related = Related.of(len(x), len(y), patients, prompts)
    return unrelated_mmd(kernel_sums(x, y, Cubic(), related=related, **how), related)


def test_the_value_is_that_of_whole_matrices():
    x, y, patients, prompts = sides()
    assert found(x, y, patients, prompts).value == pytest.approx(dense(x, y, patients, prompts), abs=1e-6)


def test_the_error_by_patient_is_the_jackknife_that_leaves_patients_out_of_both_sides():
    x, y, patients, _ = sides(1)
    none = np.full(N, -1), np.full(M, -1)
    moves = {}
    for at in (0, 1):
        known = np.unique(patients[at])
        without = [
            dense(
                x, y, patients, none, *((patients[0] != g, slice(None)) if at == 0 else (slice(None), patients[1] != g))
            )
            for g in known
        ]
        shrink = np.sqrt((len(known) - 1) / len(known))
        moves[at] = dict(zip(known, shrink * (np.array(without) - np.mean(without)), strict=True))
    both = sum(move * moves[1].get(g, 0) for g, move in moves[0].items())
    expected = np.sqrt(sum(m**2 for side in moves.values() for m in side.values()) + 2 * both)
    assert found(x, y, patients, (None, None)).std_error == pytest.approx(expected, rel=1e-4)


def test_without_relations_it_is_the_plain_one():
    x, y, _, _ = sides(2)
    related = Related.of(N, M, (None, None), (np.arange(N), None))
    assert related is None
    sums = kernel_sums(x, y, Cubic())
    plain, apart = mmd(sums, biased=False), unrelated_mmd(sums, None)
    assert apart.value == pytest.approx(plain.value, rel=1e-12)
    np.testing.assert_allclose(apart.influence_y, plain.influence_y, rtol=1e-9)
    error = np.hypot(plain.influence_x.std(ddof=1) / np.sqrt(N), plain.influence_y.std(ddof=1) / np.sqrt(M))
    assert apart.std_error == pytest.approx(error, rel=1e-9)
    assert apart.left_out == 0


@pytest.mark.parametrize("seed", range(5))
def test_any_stripe_tile_and_order_give_the_same_value(seed, monkeypatch):
    x, y, patients, prompts = sides(seed)
    whole = found(x, y, patients, prompts)
    rng = np.random.default_rng(seed)
    i, j = rng.permutation(N), rng.permutation(M)
    monkeypatch.setattr(kernels, "TILE", 1 + 3 * seed)
    shuffled = found(x[i], y[j], (patients[0][i], patients[1][j]), (prompts[0][i], prompts[1][j]), stripe_rows=7 + seed)
    assert shuffled.value == pytest.approx(whole.value, rel=1e-6)
    assert shuffled.std_error == pytest.approx(whole.std_error, rel=1e-6)
    assert shuffled.pairs == whole.pairs


def test_the_sums_of_related_pairs_are_what_is_missing():
    x, y, patients, prompts = sides()
    related = Related.of(N, M, patients, prompts)
    apart, whole = kernel_sums(x, y, Cubic(), related=related), kernel_sums(x, y, Cubic())
    for name in ("xx", "yy", "xy", "yx"):
        np.testing.assert_allclose(getattr(apart.whole, name), getattr(whole, name), rtol=1e-5, atol=1e-5)


def test_no_pair_left_is_no_value():
    x, y, _, _ = sides()
    one = np.zeros(N, np.int64), np.zeros(M, np.int64)
    assert np.isnan(found(x, y, one, (None, None)).value)


def clustered(n: int, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    patients = np.arange(n) // size
    x = 0.8 * rng.normal(size=(patients[-1] + 1, 8))[patients] + 0.6 * rng.normal(size=(n, 8)) + 0.4
    return x.astype(np.float32), patients


@pytest.mark.parametrize(("kernel", "biased"), [(Cubic(), False), (Gaussian(2.0), True)])
@pytest.mark.parametrize(("n", "m", "size"), [(60, 60, 4), (60, 15, 1), (20, 80, 5)])
def test_the_floor_of_all_pairs_is_the_mean_of_perfect_generators(kernel, biased, n, m, size):
    values, floors, errors = [], [], []
    for seed in range(120):
        rng = np.random.default_rng([seed, n, m])
        (x, patients), (y, _) = clustered(n, size, rng), clustered(m, 1, rng)
        related = Related.of(n, m, (patients, None), (None, None))
        sums = kernel_sums(x, y, kernel, related=related)
        values.append(mmd(sums.whole, biased=biased).value)
        floor, error = mmd_floor(sums, related, biased=biased)
        floors.append(floor)
        errors.append(error)
    assert np.mean(values) == pytest.approx(np.mean(floors), abs=3.5 * np.std(values) / np.sqrt(120))
    if size > 1 or biased:
        assert 0.7 < np.sqrt(np.mean(np.square(errors))) / np.std(floors) < 1.5


def test_kid_of_clustered_sets_is_unbiased_and_its_interval_holds_0():
    """Over all pairs the mean would be 0.3 of the error, and intervals exclude 0 in 17 to 29 %."""
    values, errors, plain = [], [], []
    for seed in range(150):
        rng = np.random.default_rng([seed, 4])
        (x, a), (y, b) = clustered(80, 4, rng), clustered(80, 4, rng)
        related = Related.of(80, 80, (a, b + 1000), (None, None))
        sums = kernel_sums(x, y, Cubic(), related=related)
        one = unrelated_mmd(sums, related)
        values.append(one.value)
        errors.append(one.std_error)
        plain.append(mmd(sums.whole, biased=False).value)
    values, errors = np.array(values), np.array(errors)
    of_mean = values.std() / np.sqrt(150)
    assert np.mean(plain) > 5 * of_mean
    assert abs(values.mean()) < 3.5 * of_mean
    assert np.mean(np.abs(values) <= 1.96 * errors) >= 0.92
