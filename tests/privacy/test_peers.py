"""AuthPct, C_T and the adversarial accuracy against their definitions, scipy and Monte Carlo."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import mannwhitneyu, norm

from chexray.privacy.nnaa import nnaa_loss
from chexray.privacy.other_tools import ToTraining, assign_cells, authenticity, c_t, fit_cells


def to_training(x: np.ndarray, training: np.ndarray) -> ToTraining:
    distance = cdist(x, training)
    return ToTraining(distance.min(1), distance.argmin(1))


def spacing(training: np.ndarray) -> np.ndarray:
    distance = cdist(training, training)
    np.fill_diagonal(distance, np.inf)
    return distance.min(1)


def test_authenticity_by_its_definition() -> None:
    rng = np.random.default_rng(0)
    training, heldout, synthetic = rng.standard_normal((3, 80, 5))
    synthetic[:10] = training[:10]
    count = 0
    for s in synthetic:
        distances = [float(np.linalg.norm(s - t)) for t in training]
        t = int(np.argmin(distances))
        count += distances[t] > min(np.linalg.norm(training[t] - training[j]) for j in range(80) if j != t)
    heldout_side = to_training(heldout, training)
    score = authenticity(to_training(synthetic, training), spacing(training), heldout=heldout_side)
    assert score.value == count / 80
    assert score.real_floor == authenticity(heldout_side, spacing(training)).value
    assert authenticity(to_training(training, training), spacing(training)).value == 0.0


@pytest.mark.calibration
def test_authenticity_error_against_monte_carlo() -> None:
    """Conditional on the training set: that is the generator's error, and what two generators differ by."""
    rng = np.random.default_rng(1)
    training = rng.standard_normal((200, 6))
    gaps = spacing(training)
    scores = [authenticity(to_training(rng.standard_normal((150, 6)), training), gaps) for _ in range(200)]
    spread = np.std([score.value for score in scores])
    assert 0.8 < np.mean([score.std_error for score in scores]) / spread < 1.25


def test_authenticity_without_images() -> None:
    empty = ToTraining(np.empty(0), np.empty(0, dtype=int))
    assert authenticity(empty, np.ones(5)).status == "too_few"
    assert authenticity(ToTraining(np.ones(1), np.zeros(1, dtype=int)), np.ones(1)).status == "too_few"


def z_of(x: np.ndarray, y: np.ndarray) -> float:
    """By scipy's U and its asymptotic p-value, ties corrected."""
    u = mannwhitneyu(x, y, method="asymptotic", use_continuity=False, alternative="less")
    assert u.statistic == sum((x[:, None] > y).ravel()) + 0.5 * sum((x[:, None] == y).ravel())
    return float(norm.ppf(u.pvalue))


def test_c_t_of_one_cell_is_the_mann_whitney_z() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.random(60), rng.random(45) * 1.2
    assert c_t(x, y).value == pytest.approx(z_of(x, y), abs=1e-9)
    n, m = len(x), len(y)
    u = sum((x[:, None] > y).ravel())
    assert c_t(x, y).value == pytest.approx((u - n * m / 2) / math.sqrt(n * m * (n + m + 1) / 12), abs=1e-9)


def test_c_t_weights_cells_by_held_out_images_and_skips_small_ones() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.random(200), rng.random(150)
    a, b = rng.choice(4, 200, p=[0.5, 0.38, 0.07, 0.05]), rng.choice([0, 1, 2, 5], 150, p=[0.3, 0.5, 0.1, 0.1])
    big = [cell for cell in range(6) if (a == cell).sum() > 20 and (b == cell).sum()]
    assert big == [0, 1]
    weights = [(b == cell).sum() for cell in big]
    expected = sum(w * z_of(x[a == cell], y[b == cell]) for w, cell in zip(weights, big, strict=True)) / sum(weights)
    score = c_t(x, y, a, b)
    assert score.value == pytest.approx(expected, abs=1e-9)
    assert score.params["note_n_cells"] == 2
    assert c_t(x[:20], y).status == "too_few"
    assert c_t(x, np.empty(0)).status == "too_few"


@pytest.mark.calibration
def test_c_t_falls_with_copies_and_its_errors_hold() -> None:
    rng = np.random.default_rng(4)
    scores = [c_t(rng.random(200) ** (1 / 8), rng.random(150) ** (1 / 8)) for _ in range(150)]
    values = np.array([score.value for score in scores])
    assert abs(values.mean()) < 0.25
    assert values.std() == pytest.approx(scores[0].params["note_std_without_copies"], rel=0.2)
    assert np.mean([score.std_error for score in scores]) == pytest.approx(values.std(), rel=0.2)
    copied = rng.random(200) ** (1 / 8) * np.where(np.arange(200) < 60, 0.1, 1)
    assert c_t(copied, rng.random(150) ** (1 / 8)).ci_high < -2


def accuracy(r: np.ndarray, s: np.ndarray) -> float:
    between = cdist(r, s)
    return 0.5 * float((between.min(1) > spacing(r)).mean() + (between.min(0) > spacing(s)).mean())


def test_nnaa_loss_by_its_definition() -> None:
    rng = np.random.default_rng(5)
    t, e, s = rng.standard_normal((3, 90, 8)).astype(np.float32)
    s[:20] = t[:20] + 0.01 * rng.standard_normal((20, 8))
    score = nnaa_loss(t, e, s)
    assert score.value == pytest.approx(accuracy(e, s) - accuracy(t, s), abs=1e-12)
    assert score.value > 0.05
    assert nnaa_loss(e, t, s).value == pytest.approx(-score.value, abs=1e-12)


def test_nnaa_loss_draws_equal_sets() -> None:
    rng = np.random.default_rng(6)
    t, e, s = (rng.standard_normal((n, 8)).astype(np.float32) for n in (400, 50, 120))
    score = nnaa_loss(t, e, s, training_subjects=np.arange(400) // 2, heldout_subjects=np.arange(50) // 2)
    assert score.params["n_each"] == 50
    assert score.params["n_patients"] == 25
    assert nnaa_loss(t, e, s).params["n_each"] == 50
    # An image of an own patient is no neighbour, and patients of one side have as many images as those of the other.
    mixed = nnaa_loss(t, e, s, training_subjects=np.arange(400) // 8, heldout_subjects=np.arange(50) // 2)
    assert (mixed.params["n_each"], mixed.params["n_patients"]) == (50, 25)
    one = nnaa_loss(t, e, s, training_subjects=np.arange(400) // 8, heldout_subjects=np.arange(50))
    assert (one.params["n_each"], one.params["n_patients"]) == (50, 50)
    assert nnaa_loss(t, e, s, training_subjects=np.zeros(400, int)).status == "too_few"
    assert nnaa_loss(t, e, s, n_most=30).params["n_each"] == 30
    assert nnaa_loss(t, e[:1], s).status == "too_few"


@pytest.mark.calibration
def test_nnaa_error_against_monte_carlo() -> None:
    rng = np.random.default_rng(7)
    scores = [nnaa_loss(*rng.standard_normal((3, 100, 6)).astype(np.float32)) for _ in range(120)]
    values = np.array([score.value for score in scores])
    assert abs(values.mean()) < 0.02
    ratio = np.mean([score.std_error for score in scores]) / values.std()
    print("nnaa error over Monte Carlo", ratio)
    assert 0.75 < ratio < 1.35


def test_cells_are_those_of_k_means() -> None:
    rng = np.random.default_rng(8)
    centres = np.array([[0, 0], [8, 0], [0, 8]])
    truth = rng.integers(0, 3, 600)
    x = (centres[truth] + 0.5 * rng.standard_normal((600, 2))).astype(np.float32)
    found = fit_cells(x, 3)
    np.testing.assert_allclose(sorted(map(tuple, found.round(0))), sorted(map(tuple, centres)), atol=0.01)
    cells = assign_cells(x, found)
    np.testing.assert_array_equal(cells, cdist(x, found).argmin(1))
    assert len({(a, b) for a, b in zip(cells, truth, strict=True)}) == 3
    np.testing.assert_array_equal(fit_cells(x, 3, sample=100), fit_cells(x, 3, sample=100))
    assert len(fit_cells(np.ones((5, 2), dtype=np.float32), 3)) == 1
    assert assign_cells(x[:0], found).shape == (0,)
