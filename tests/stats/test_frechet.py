"""The Fréchet distance: laws, parity with torchmetrics and torch-fidelity, degenerate sets, errors, extrapolation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chexray.stats.frechet import (
    Gaussian,
    LeaveOut,
    frechet_distance,
    frechet_distance_small,
    gaussian_distance,
    influence,
    nuclear_norm,
)
from chexray.stats.frechet_infinity import Design, Shuffled, intercept, prefix_distances, prefix_without_groups
from chexray.stats.moments import Moments, merge_all
from chexray.stats.resampling import clustered_std_error, jackknife_groups, jackknife_std_error


def features(n: int, d: int, seed: int, *, shift: float = 0.0, decay: float = 0.5) -> np.ndarray:
    """Correlated rows with a power-law spectrum, as encoders give."""
    rotation = np.linalg.qr(np.random.default_rng(99).normal(size=(d, d)))[0]
    spectrum = np.arange(1, d + 1) ** -decay
    return ((np.random.default_rng(seed).normal(size=(n, d)) + shift) * spectrum @ rotation).astype(np.float32)


def torchmetrics_fid(x: np.ndarray, y: np.ndarray) -> float:
    torch = pytest.importorskip("torch")
    module = pytest.importorskip("torchmetrics.image.fid")
    a, b = (torch.from_numpy(z).double() for z in (x, y))
    return float(module._compute_fid(a.mean(0), a.T.cov(), b.mean(0), b.T.cov()))


def torch_fidelity_fid(x: np.ndarray, y: np.ndarray) -> float:
    module = pytest.importorskip("torch_fidelity.metric_fid")
    stats = [
        {"mu": z.mean(axis=0), "sigma": np.cov(z, rowvar=False)} for z in (x.astype(np.float64), y.astype(np.float64))
    ]
    found = module.fid_statistics_to_metric(*stats, verbose=False)
    return next(iter(found.values()))


@pytest.mark.parametrize(("n", "m", "rel"), [(300, 200, 1e-6), (40, 30, 5e-6), (200, 40, 5e-6), (40, 200, 5e-6)])
@pytest.mark.parametrize("reference", [torchmetrics_fid, torch_fidelity_fid])
def test_agrees_with_the_libraries(reference, n, m, rel):
    x, y = features(n, 64, 0), features(m, 64, 1, shift=0.2)
    assert frechet_distance_small(x, y) == pytest.approx(reference(x, y), rel=rel)
    assert frechet_distance(Moments.of(x), Moments.of(y)) == pytest.approx(reference(x, y), rel=rel)


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(0, 90), max_size=5), seed=st.integers(0, 999), d=st.sampled_from([6, 30]))
def test_any_partition_in_any_order_gives_the_same(cuts, seed, d):
    x, y = features(90, d, 2), features(70, d, 3, shift=0.3)
    order = np.random.default_rng(seed).permutation(90)
    merged = merge_all(Moments.of(piece) for piece in np.split(x[order], sorted(cuts)))
    assert frechet_distance(merged, Moments.of(y)) == pytest.approx(
        frechet_distance(Moments.of(x), Moments.of(y)), rel=1e-9
    )


@pytest.mark.parametrize(("n", "m", "d"), [(80, 60, 10), (8, 60, 20), (8, 9, 20), (60, 8, 20)])
def test_the_distance_is_symmetric_and_one_for_all_routes(n, m, d):
    x, y = features(n, d, 4), features(m, d, 5, shift=0.1)
    small, moments = frechet_distance_small(x, y), frechet_distance(Moments.of(x), Moments.of(y))
    assert small == pytest.approx(frechet_distance_small(y, x), rel=1e-11)
    assert moments == pytest.approx(small, rel=1e-7)
    assert frechet_distance(Moments.of(y), Moments.of(x)) == pytest.approx(moments, rel=1e-9)


@pytest.mark.parametrize("decay", [0.0, 0.5, 2.0, 4.0])
@pytest.mark.parametrize(("n", "d"), [(200, 40), (30, 40), (41, 40)])
def test_a_set_against_itself_is_zero_up_to_rounding_and_never_negative(n, d, decay):
    x = features(n, d, 6, decay=decay)
    scale = 2 * Gaussian.of_rows(x).trace
    for found in (
        frechet_distance(Moments.of(x), Moments.of(x)),
        frechet_distance_small(x, x),
        frechet_distance_small(x, x[::-1]),
    ):
        assert 0 <= found <= 1e-10 * scale


@pytest.mark.parametrize("decay", [1.0, 3.0])
def test_a_singular_covariance_takes_the_singular_values(decay):
    x = np.repeat(features(25, 40, 7, decay=decay), 3, axis=0).astype(np.float64)
    y = np.repeat(features(30, 40, 8, decay=decay), 2, axis=0).astype(np.float64)
    a, b = Gaussian.of_rows(x), Gaussian.of_rows(y)
    assert a.cholesky is None
    root = nuclear_norm((x - x.mean(0)) @ (y - y.mean(0)).T) / np.sqrt((len(x) - 1) * (len(y) - 1))
    shift = x.mean(0) - y.mean(0)
    assert gaussian_distance(a, b) == pytest.approx(shift @ shift + a.trace + b.trace - 2 * root, rel=1e-9)


def test_constant_and_single_rows_are_fine():
    ones = np.ones((50, 8))
    assert frechet_distance(Moments.of(ones), Moments.of(ones)) == 0
    assert frechet_distance(Moments.of(ones), Moments.of(ones + 1)) == pytest.approx(8)
    assert frechet_distance_small(ones[:1], ones[:3] * 2) == pytest.approx(8)
    x = features(50, 8, 9).astype(np.float64)
    expected = np.sum((x.mean(0) - 1) ** 2) + np.trace(np.cov(x, rowvar=False))
    assert frechet_distance(Moments.of(x), Moments.of(ones)) == pytest.approx(expected)


@pytest.mark.parametrize(("n", "m", "d"), [(60, 50, 9), (12, 40, 20), (12, 15, 20), (40, 12, 20)])
def test_leaving_rows_out_is_computing_without_them(n, m, d):
    x, y = features(n, d, 10), features(m, d, 11, shift=0.2)
    replicate = LeaveOut(x, Gaussian.of_rows(x), Gaussian.of_rows(y))
    for block in jackknife_groups(n, None, 5, np.random.default_rng(0)):
        direct = frechet_distance_small(np.delete(x, block, axis=0), y)
        assert replicate.without(block) == pytest.approx(direct, rel=1e-9)


def test_the_influence_predicts_what_leaving_an_image_out_does():
    x, y = features(600, 12, 12), features(500, 12, 13, shift=0.1)
    a, b = Moments.of(x), Moments.of(y)
    found = influence(a, b)
    assert found is not None
    assert found.distance == pytest.approx(frechet_distance(a, b), rel=1e-9)
    for rows, psi, moments, other in ((x, found.of_a(x), a, b), (y, found.of_b(y), b, a)):
        assert abs(psi.mean()) < 1e-12
        moved = [frechet_distance(moments.unmerge(Moments.of(rows[[i]])), other) - found.distance for i in range(40)]
        slope = np.polyfit(-psi[:40] / len(rows), moved, 1)[0]
        assert slope == pytest.approx(1, abs=0.05)
        assert np.corrcoef(-psi[:40], moved)[0, 1] > 0.99


def test_the_influence_ignores_dead_features_and_refuses_singular_sets():
    x, y = features(200, 10, 14), features(150, 10, 15, shift=0.1)
    padded = [np.concatenate([z, np.full((len(z), 3), 7, np.float32)], axis=1) for z in (x, y)]
    with_dead, without = influence(*map(Moments.of, padded)), influence(Moments.of(x), Moments.of(y))
    assert with_dead is not None
    assert without is not None
    np.testing.assert_allclose(with_dead.of_b(padded[1]), without.of_b(y), rtol=1e-6, atol=1e-9)
    assert influence(Moments.of(padded[0]), Moments.of(features(150, 13, 16))) is None
    assert influence(Moments.of(x[:9]), Moments.of(y)) is None
    assert influence(Moments.of(np.ones((50, 4))), Moments.of(np.ones((50, 4)))) is None


@pytest.mark.calibration
@pytest.mark.parametrize(("n", "method"), [(10, "jackknife"), (24, "jackknife"), (48, "influence"), (144, "influence")])
def test_the_error_is_the_monte_carlo_one_or_somewhat_wider(n, method):
    """At n < d, 1.5 d, 3 d and 9 d. Both methods overstate the error by up to 1.6 and must not understate it."""
    d, values, variances = 16, [], []
    for trial in range(100):
        x, y = features(n, d, 1000 + trial), features(n + 8, d, 5000 + trial, shift=0.2)
        a, b = Gaussian.of_rows(x), Gaussian.of_rows(y)
        values.append(gaussian_distance(a, b))
        if method == "influence":
            found = influence(Moments.of(x), Moments.of(y))
            assert found is not None
            parts = [clustered_std_error(found.of_a(x)), clustered_std_error(found.of_b(y))]
        else:
            rng = np.random.default_rng(trial)
            sides = ((x, a, b), (y, b, a))
            parts = [
                jackknife_std_error(
                    np.array([LeaveOut(z, p, q).without(g) for g in jackknife_groups(len(z), None, 10, rng)])
                )
                for z, p, q in sides
            ]
        variances.append(parts[0] ** 2 + parts[1] ** 2)
    ratio = np.sqrt(np.mean(variances)) / np.std(values)
    assert 0.85 < ratio < 1.8, f"the error is {ratio:.2f} of the Monte Carlo one"


def test_the_fit_recovers_a_line_in_one_over_n():
    design = Design(15, 5)
    assert len(design.fractions) == 11
    assert design.weights.sum() == pytest.approx(1)
    assert float(intercept(3 + 40 / design.fractions, design)) == pytest.approx(3)
    assert design.image_weights(300).mean() == pytest.approx(1)


@pytest.mark.parametrize(("n", "d"), [(90, 8), (90, 40), (30, 60)])
def test_prefix_merges_are_the_prefixes(n, d):
    x, y, design = features(n, d, 20), features(n + 30, d, 21, shift=0.2), Design()
    direct = [frechet_distance_small(x[:i], y[:j]) for i, j in zip(design.stops(n), design.stops(n + 30), strict=True)]
    np.testing.assert_allclose(prefix_distances(x, y, design), direct, rtol=1e-9)
    ranks = np.arange(n) % 5, np.arange(n + 30) % 5
    found = prefix_without_groups(1, x, y, *ranks, 5, design)
    i, j = int(design.stops(n)[1]), int(design.stops(n + 30)[1])
    direct = [frechet_distance_small(x[:i][ranks[0][:i] != k], y[:j][ranks[1][:j] != k]) for k in range(5)]
    np.testing.assert_allclose(found, direct, rtol=1e-9)


def test_a_shuffle_keeps_patients_together():
    subjects = np.random.default_rng(3).integers(0, 9, 40)
    found = Shuffled.of(40, subjects, np.random.default_rng(0))
    assert np.array_equal(np.sort(found.order), np.arange(40))
    assert (np.diff(found.rank) >= 0).all()
    assert np.count_nonzero(np.diff(subjects[found.order])) == len(set(subjects.tolist())) - 1
