"""Radii and manifold counts against dense float64 and the `prdc` package, also where float32 fails."""

from __future__ import annotations

import contextlib
import io
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chexray.stats import manifolds as module
from chexray.stats.manifolds import Manifolds, manifolds
from chexray.stats.neighbours import kth_neighbour, nearest_neighbours, squared_distances

Pair = tuple[np.ndarray, np.ndarray]


def found(x: np.ndarray, y: np.ndarray, k: int, **how) -> Manifolds:
    return manifolds(x, y, kth_neighbour(x, k, **how), kth_neighbour(y, k, **how), **how)


def distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(n, m) float64 from differences, which are exact for duplicates."""
    return np.sqrt([((row - y.astype(np.float64)) ** 2).sum(1) for row in x.astype(np.float64)])


def radii(x: np.ndarray, k: int) -> np.ndarray:
    between = distances(x, x)
    np.fill_diagonal(between, np.inf)
    return np.sort(between, axis=1)[:, k - 1]


def check(x: np.ndarray, y: np.ndarray, k: int, **how) -> Manifolds:
    """Every field of the pass against its definition on dense matrices."""
    r, s, d = radii(x, k), radii(y, k), distances(x, y)
    np.testing.assert_allclose(np.sqrt(kth_neighbour(x, k, **how)), r, rtol=1e-13)
    got = found(x, y, k, **how)
    in_real, in_synthetic = d < r[:, None], d < s
    i, j = np.arange(len(x)), np.arange(len(y))
    for balls, pairs, index in (
        (got.in_real, in_real.T, i),
        (got.holds_synthetic, in_real, j),
        (got.in_synthetic, in_synthetic, j),
    ):
        np.testing.assert_array_equal(balls.count, pairs.sum(1))
        np.testing.assert_array_equal(balls.patient_sum, pairs @ index)
        np.testing.assert_array_equal(balls.only_patient, np.where(pairs.sum(1) == 1, pairs @ index, -1))
    np.testing.assert_allclose(got.distance, d.min(0), rtol=1e-13)
    np.testing.assert_array_equal(d[got.nearest, j], d.min(0))
    small = (r <= np.median(r)) & (r > 0)
    with np.errstate(divide="ignore"):
        ratio = (r[small, None] / d[small]).max(0) if small.any() else np.zeros(len(y))
    np.testing.assert_allclose(got.realism, ratio, rtol=1e-10)
    rarity = np.where(in_real, r[:, None], np.inf).min(0)
    np.testing.assert_allclose(got.rarity, np.where(np.isinf(rarity), np.nan, rarity), rtol=1e-13)
    return got


def gaussian(n: int, m: int, d: int, seed: int = 0) -> Pair:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)).astype(np.float32), (rng.normal(size=(m, d)) * 0.9 + 0.1).astype(np.float32)


def pitfall() -> Pair:
    """Features offset by 30 and near-duplicates 1e-3 apart: what raw float32 distances cannot see."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(300, 128)) + 30
    x[150:] = x[:150] + rng.normal(size=(150, 128)) * 1e-3
    y = x[rng.permutation(300)] + rng.normal(size=(300, 128)) * 1e-3
    return x.astype(np.float32), y.astype(np.float32)


def modes() -> Pair:
    """A generator collapsed on ten points: more near ties than any fixed number of candidates holds."""
    rng = np.random.default_rng(2)
    centres = rng.normal(size=(10, 64)) * 3
    x, y = (centres[rng.integers(0, 10, n)] + rng.normal(size=(n, 64)) * 1e-5 for n in (250, 200))
    return x.astype(np.float32), y.astype(np.float32)


def one_outlier() -> Pair:
    """One real image far away: its ball holds every synthetic one."""
    x, y = gaussian(120, 90, 8)
    x[7] += 1000
    return x, y


CASES = {"gaussian": gaussian(230, 170, 16), "pitfall": pitfall(), "modes": modes(), "outlier": one_outlier()}


@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("case", CASES)
def test_every_field_equals_its_definition(case, k):
    check(*CASES[case], k)


@pytest.mark.parametrize("case", ["gaussian", "pitfall"])
@pytest.mark.parametrize("k", [1, 5])
def test_the_four_numbers_equal_the_prdc_package(case, k):
    package = pytest.importorskip("prdc")
    x, y = CASES[case]
    with contextlib.redirect_stdout(io.StringIO()):
        expected = package.compute_prdc(x.astype(np.float64), y.astype(np.float64), k)
    got = found(x, y, k)
    assert np.mean(got.in_real.count > 0) == pytest.approx(expected["precision"], abs=1e-12)
    assert np.mean(got.in_synthetic.count > 0) == pytest.approx(expected["recall"], abs=1e-12)
    assert got.in_real.count.mean() / k == pytest.approx(expected["density"], abs=1e-12)
    assert np.mean(got.holds_synthetic.count > 0) == pytest.approx(expected["coverage"], abs=1e-12)


def test_a_duplicate_is_a_neighbour_at_distance_zero():
    x = np.repeat(gaussian(40, 1, 4)[0], 2, axis=0)
    assert (kth_neighbour(x, 1) == 0).all()
    assert (kth_neighbour(x, 2) > 0).all()


def test_a_copy_is_found_and_infinitely_real():
    x, y = gaussian(200, 50, 8)
    y[3] = x[11]
    got = found(x, y, 5)
    assert (got.nearest[3], got.distance[3]) == (11, 0.0)
    small = np.argsort(kth_neighbour(x, 5))[0]
    y[4] = x[small]
    assert np.isinf(found(x, y, 5).realism[4])


def test_identical_sets_agree_in_everything():
    x, _ = gaussian(150, 1, 8)
    got = check(x, x.copy(), 5)
    np.testing.assert_array_equal(got.nearest, np.arange(150))
    assert (got.in_real.count > 0).all()


def test_all_images_the_same():
    x = np.full((40, 8), 0.3, dtype=np.float32)
    assert (kth_neighbour(x, 5) == 0).all()
    got = check(x, x.copy(), 5)
    assert got.in_real.count.sum() == 0


def test_many_exact_ties_on_a_grid():
    rng = np.random.default_rng(0)
    x, y = (rng.integers(0, 3, (n, 4)).astype(np.float32) for n in (300, 200))
    check(x, y, 5)
    check(x, y, 5, tile=64)


def test_candidates_that_pile_up_are_settled_on_the_way(monkeypatch):
    monkeypatch.setattr(module, "PENDING", 50)
    check(*CASES["modes"], 5, tile=64)
    check(*CASES["gaussian"], 5, tile=32)


@pytest.mark.parametrize("size", [1e-15, 1e15])
def test_features_of_any_size(size):
    x, y = CASES["gaussian"]
    check((x * size).astype(np.float32), (y * size).astype(np.float32), 3)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(4, 120), m=st.integers(4, 120), d=st.integers(1, 9), k=st.integers(1, 3),
    tile=st.sampled_from([32, 64, 96, 1024]), seed=st.integers(0, 9), copies=st.integers(0, 4),
)  # fmt: skip
def test_any_tile_and_order_give_the_same(n, m, d, k, tile, seed, copies):
    x, y = gaussian(n, m, d, seed)
    y[:copies] = x[:copies]
    whole = check(x, y, k)
    order = np.random.default_rng(seed).permutation(m)
    got = found(x, y[order], k, tile=tile)
    np.testing.assert_array_equal(got.in_real.count, whole.in_real.count[order])
    np.testing.assert_array_equal(got.holds_synthetic.count, whole.holds_synthetic.count)
    np.testing.assert_array_equal(got.distance, whole.distance[order])
    np.testing.assert_array_equal(got.realism, whole.realism[order])


def test_any_mapper_gives_the_same_bits():
    def by_pickle(fn, items, *shared):
        done = {i: pickle.loads(pickle.dumps(fn))(items[i], *shared) for i in reversed(range(len(items)))}
        return [pickle.loads(pickle.dumps(done[i])) for i in range(len(items))]

    x, y = gaussian(300, 200, 8)
    for array in (x, y):
        array.setflags(write=False)
    one, other = found(x, y, 5, tile=64), found(x, y, 5, tile=64, mapper=by_pickle)
    for name in ("nearest", "distance", "realism", "rarity"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_squared_distances_in_chunks(monkeypatch):
    x, y = gaussian(20, 30, 4)
    i, j = np.repeat(np.arange(20), 30), np.tile(np.arange(30), 20)
    whole = squared_distances(x, y, i, j)
    monkeypatch.setattr("chexray.stats.neighbours.PAIRS", 7)
    np.testing.assert_array_equal(squared_distances(x, y, i, j), whole)


def test_the_k_nearest_rows_are_named():
    x = np.random.default_rng(21).normal(size=(300, 6)).astype(np.float32)
    between = distances(x, x)
    np.fill_diagonal(between, np.inf)
    squared, rows = nearest_neighbours(x, 4, tile=64)
    np.testing.assert_array_equal(squared, kth_neighbour(x, 4))
    np.testing.assert_array_equal(np.sort(rows, axis=1), np.sort(np.argsort(between, axis=1)[:, :4], axis=1))


def test_points_that_one_patient_alone_holds_are_found():
    x, y = (np.random.default_rng(seed).normal(size=(n, 3)).astype(np.float32) for seed, n in ((22, 90), (23, 70)))
    patients = np.arange(90) // 3
    r, s = kth_neighbour(x, 3), kth_neighbour(y, 3)
    got = manifolds(x, y, r, s, real_subjects=patients * 7 + 5, tile=32)
    inside = distances(x, y) < np.sqrt(r)[:, None]
    for point, only in enumerate(got.in_real.only_patient):
        holders = set(patients[inside[:, point]].tolist())
        assert only == (holders.pop() if len(holders) == 1 else -1)
