"""Kernel sums and MMD against dense float64, torchmetrics and torch-fidelity; the error against Monte Carlo."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from chexray.metrics.base import serial
from chexray.stats import kernels, tiles
from chexray.stats.kernels import Cubic, Gaussian, kernel_sums, mmd, permutation_p_value, subset_indices, subset_mmd


def cloud(n: int, d: int, seed: int, shift: float = 0.0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(n, d)) * 0.7 + 0.4 + shift).astype(np.float32)


def dense(x: np.ndarray, y: np.ndarray, kernel: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The three kernel matrices in float64; the Gaussian from differences, and whole, not less 1."""
    x, y = x.astype(np.float64), y.astype(np.float64)

    def k(a, b):
        if kernel == "cubic":
            return (a @ b.T / a.shape[1] + 1) ** 3
        return np.exp(-((a[:, None] - b[None]) ** 2).sum(2) / 200)

    return k(x, x), k(y, y), k(x, y)


def dense_mmd(x: np.ndarray, y: np.ndarray, kernel: str, biased: bool) -> float:
    xx, yy, xy = dense(x, y, kernel)
    if biased:
        return xx.mean() + yy.mean() - 2 * xy.mean()
    n, m = len(x), len(y)
    return (xx.sum() - np.trace(xx)) / (n * (n - 1)) + (yy.sum() - np.trace(yy)) / (m * (m - 1)) - 2 * xy.mean()


CASES = [("cubic", Cubic(), False), ("gaussian", Gaussian(10.0), True)]


@pytest.mark.parametrize(("name", "kernel", "biased"), CASES)
def test_mmd_equals_the_dense_float64_one(name, kernel, biased):
    x, y = cloud(70, 24, 0), cloud(45, 24, 1, 0.1)
    assert mmd(kernel_sums(x, y, kernel), biased=biased).value == pytest.approx(
        dense_mmd(x, y, name, biased), abs=2e-7, rel=2e-6
    )


@pytest.mark.parametrize(("name", "kernel", "biased"), CASES)
def test_influence_is_the_exact_delete_one_jackknife(name, kernel, biased):
    x, y = cloud(12, 6, 0), cloud(9, 6, 1, 0.3)
    found = mmd(kernel_sums(x, y, kernel), biased=biased)
    without_x = np.array([dense_mmd(np.delete(x, i, 0), y, name, biased) for i in range(len(x))])
    without_y = np.array([dense_mmd(x, np.delete(y, i, 0), name, biased) for i in range(len(y))])
    np.testing.assert_allclose(found.influence_x, (len(x) - 1) * (without_x.mean() - without_x), atol=2e-5)
    np.testing.assert_allclose(found.influence_y, (len(y) - 1) * (without_y.mean() - without_y), atol=2e-5)


@pytest.mark.parametrize(("n", "m", "alone"), [(2, 5, "influence_x"), (5, 2, "influence_y")])
def test_two_images_have_a_value_and_no_error(n, m, alone):
    x, y = cloud(n, 4, 0), cloud(m, 4, 1)
    found = mmd(kernel_sums(x, y, Cubic()), biased=False)
    assert found.value == pytest.approx(dense_mmd(x, y, "cubic", False), abs=1e-6)
    assert getattr(found, alone) is None


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(2, 90), m=st.integers(2, 90), stripe=st.integers(1, 100), tile=st.integers(1, 40),
    seed=st.integers(0, 9),
)  # fmt: skip
def test_any_stripe_tile_and_order_give_the_same_value(n, m, stripe, tile, seed):
    x, y = cloud(n, 5, seed), cloud(m, 5, seed + 1)
    whole = kernel_sums(x, y, Cubic())
    rng = np.random.default_rng(seed)
    order = rng.permutation(n)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "TILE", tile)
        parts = kernel_sums(x[order], y, Cubic(), stripe_rows=stripe)
    np.testing.assert_allclose(parts.xx, whole.xx[order], rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(parts.xy, whole.xy[order], rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(parts.yy, whole.yy, rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(parts.yx, whole.yx, rtol=1e-6, atol=1e-5)


def by_pickle(fn, items, *shared):
    """Runs everything through pickle, last item first, as a cluster might."""
    done = {i: pickle.loads(pickle.dumps(fn))(items[i], *shared) for i in reversed(range(len(items)))}
    return [done[i] for i in range(len(items))]


def test_any_mapper_and_thread_count_give_the_same_bits():
    x, y = cloud(2300, 16, 0), cloud(1200, 16, 1)
    x.setflags(write=False)  # as arrays out of shared memory are
    before = torch.get_num_threads()
    found = []
    try:
        for threads, mapper in ((1, serial), (2, serial), (2, tiles.threaded), (1, by_pickle)):
            torch.set_num_threads(threads)
            found.append(kernel_sums(x, y, Cubic(), mapper=mapper))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        for name in ("xx", "yy", "xy", "yx"):
            np.testing.assert_array_equal(getattr(other, name), getattr(found[0], name))


def test_the_set_precision_is_put_back_and_not_used():
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with tiles.full_precision(), tiles.full_precision():
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_whole_set_equals_torchmetrics():
    torchmetrics = pytest.importorskip("torchmetrics.image.kid")
    x, y = cloud(400, 256, 0), cloud(400, 256, 1, 0.2)
    theirs = torchmetrics.poly_mmd(torch.from_numpy(x), torch.from_numpy(y)).item()
    assert mmd(kernel_sums(x, y, Cubic()), biased=False).value == pytest.approx(theirs, abs=1e-6)


def test_subsets_are_those_of_torch_fidelity():
    theirs = pytest.importorskip("torch_fidelity.metric_kid")
    x, y = cloud(150, 32, 0), cloud(120, 32, 1, 0.2)
    expected = theirs.kid_features_to_metric(
        torch.from_numpy(x).double(), torch.from_numpy(y).double(),
        kid_subsets=12, kid_subset_size=50, rng_seed=2020, verbose=False,
        kid_kernel="poly", kid_kernel_poly_degree=3, kid_kernel_poly_gamma=None, kid_kernel_poly_coef0=1.0,
    )  # fmt: skip
    found = subset_mmd(x, y, subset_indices(150, 120, 12, 50), Cubic())
    assert found.values.mean() == pytest.approx(expected["kernel_inception_distance_mean"], abs=3e-7)
    assert found.values.std() == pytest.approx(expected["kernel_inception_distance_std"], abs=3e-7)


def test_expm1_keeps_what_exp_cancels():
    x, y = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (cloud(60, 32, 0), cloud(60, 32, 1, 0.1)))
    found = mmd(kernel_sums(x.astype(np.float32), y.astype(np.float32), Gaussian(10.0)), biased=True).value
    assert found == pytest.approx(dense_mmd(x, y, "gaussian", True), rel=1e-5)


def test_values_too_large_for_float32_are_nan():
    found = mmd(kernel_sums(cloud(5, 3, 0) * np.float32(1e18), cloud(5, 3, 1), Cubic()), biased=False)
    assert np.isnan(found.value)


@pytest.mark.parametrize(("scale", "offset"), [(1e-4, 0), (1e-3, 0.002), (1, 1e3), (0.01, 100), (1e7, 0), (3e6, 1e6)])
def test_scale_and_offset_of_features_cost_no_digits(scale, offset):
    x, y = (cloud(90, 16, seed, shift) * np.float32(scale) + np.float32(offset) for seed, shift in ((0, 0), (1, 0.5)))
    xx, yy, xy = (
        (a.astype(np.longdouble) @ b.T / 16 + 1) ** 3 for a, b in ((x, x), (y, y), (x, y.astype(np.longdouble)))
    )
    expected = (xx.sum() - np.trace(xx)) / (90 * 89) + (yy.sum() - np.trace(yy)) / (90 * 89) - 2 * xy.mean()
    assert mmd(kernel_sums(x, y, Cubic()), biased=False).value == pytest.approx(float(expected), rel=2e-4)


@pytest.mark.calibration
def test_jackknife_error_of_kid_against_monte_carlo():
    values, errors = [], []
    for seed in range(150):
        x, y = cloud(120, 24, 2 * seed), cloud(120, 24, 2 * seed + 1, 0.15)
        found = mmd(kernel_sums(x, y, Cubic()), biased=False)
        values.append(found.value)
        errors.append(np.sqrt(found.influence_x.var(ddof=1) / 120 + found.influence_y.var(ddof=1) / 120))
    values, errors = np.array(values), np.array(errors)
    assert np.sqrt((errors**2).mean()) == pytest.approx(values.std(ddof=1), rel=0.2)
    covered = np.abs(values - values.mean()) <= 1.96 * errors
    assert covered.mean() >= 0.90


def test_permutation_p_value_is_uniform_under_the_null_and_small_off_it():
    def p_value(seed: int, shift: float) -> float:
        x, y, rng = cloud(30, 8, seed), cloud(25, 8, seed + 500, shift), np.random.default_rng(seed)
        return permutation_p_value(x, y, Cubic(), rng=rng, permutations=99)

    null = [p_value(seed, 0.0) for seed in range(60)]
    assert 0.35 < np.mean(null) < 0.65
    assert np.mean(np.array(null) <= 0.1) < 0.25
    assert p_value(0, 1.0) == pytest.approx(0.01)
    same = np.ones((6, 3), dtype=np.float32)
    assert permutation_p_value(same, same, Cubic(), rng=np.random.default_rng(0)) == 1.0


def test_it_runs_on_a_gpu_alike():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    x, y = cloud(3000, 256, 0), cloud(2500, 256, 1, 0.1)
    on_cpu, on_gpu = (mmd(kernel_sums(x, y, Cubic(), device=device), biased=False).value for device in ("cpu", "cuda"))
    assert on_gpu == pytest.approx(on_cpu, abs=1e-6)
