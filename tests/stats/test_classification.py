"""Scores of a binary classifier against scikit-learn and torchmetrics, their weights, and the points of the curves."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sklearn.metrics as sk
import torch
import torchmetrics.functional.classification as tm
from hypothesis import given, settings
from hypothesis import strategies as st

from chexray.stats import classification
from chexray.stats.classification import (
    Ranking,
    auroc,
    average_precision,
    brier,
    calibration_error,
    confusion,
    tuned_threshold,
)
from chexray.stats.curves import precision_recall_points, reliability_bins, roc_points


def example(seed: int = 0, n: int = 800, decimals: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Labels with 12 % positives and scores with AUROC near 0.8; ties when rounded."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < 0.12).astype(np.int8)
    scores = 1 / (1 + np.exp(-(rng.normal(size=n) + 1.3 * labels - 1)))
    return labels, scores if decimals is None else np.round(scores, decimals)


@pytest.mark.parametrize("decimals", [None, 2, 1, 0])
def test_equal_to_scikit_learn_with_and_without_sample_weights(decimals):
    labels, scores = example(decimals=decimals)
    rng = np.random.default_rng(1)
    rows = np.stack([np.ones(len(labels)), rng.random(len(labels)), rng.poisson(1, len(labels))])
    counts = confusion(labels, scores, 0.5, rows)
    for b, w in enumerate(rows):
        call = scores >= 0.5
        expected = {
            "auroc": sk.roc_auc_score(labels, scores, sample_weight=w),
            "average_precision": sk.average_precision_score(labels, scores, sample_weight=w),
            "brier": sk.brier_score_loss(labels, scores, sample_weight=w),
            "f1": sk.f1_score(labels, call, sample_weight=w, zero_division=0),
            "precision": sk.precision_score(labels, call, sample_weight=w, zero_division=0),
            "recall": sk.recall_score(labels, call, sample_weight=w),
            "specificity": sk.recall_score(labels, call, sample_weight=w, pos_label=0),
            "balanced_accuracy": sk.balanced_accuracy_score(labels, call, sample_weight=w),
            "accuracy": sk.accuracy_score(labels, call, sample_weight=w),
        }
        found = {"auroc": auroc(labels, scores, rows), "average_precision": average_precision(labels, scores, rows)}
        found["brier"] = brier(labels, scores, rows)
        for name, value in expected.items():
            row = found[name] if name in found else getattr(counts, name)
            assert row[b] == pytest.approx(value, abs=1e-9), name


@pytest.mark.parametrize("decimals", [None, 2])
def test_equal_to_torchmetrics(decimals):
    labels, scores = example(2, decimals=decimals)
    target, preds = torch.tensor(labels).long(), torch.tensor(scores)
    assert auroc(labels, scores)[0] == pytest.approx(float(tm.binary_auroc(preds, target)), abs=1e-6)
    value = float(tm.binary_average_precision(preds, target))
    assert average_precision(labels, scores)[0] == pytest.approx(value, abs=1e-6)
    value = float(tm.binary_calibration_error(preds, target, n_bins=15, norm="l1"))
    assert calibration_error(labels, scores)[0] == pytest.approx(value, abs=1e-6)
    counts = confusion(labels, scores, 0.4999)  # torchmetrics asks for score > threshold
    assert counts.f1[0] == pytest.approx(float(tm.binary_f1_score(preds, target, threshold=0.4999)), abs=1e-6)
    assert counts.recall[0] == pytest.approx(float(tm.binary_recall(preds, target, threshold=0.4999)), abs=1e-6)
    value = float(tm.binary_specificity(preds, target, threshold=0.4999))
    assert counts.specificity[0] == pytest.approx(value, abs=1e-6)


cells = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 6), st.integers(0, 3)), min_size=1, max_size=25)


@settings(deadline=None)
@given(cells=cells)
def test_a_weight_is_the_number_of_copies(cells):
    labels, scores, counts = (np.array(column) for column in zip(*cells, strict=True))
    scores = scores / 6
    copied = [np.repeat(column, counts) for column in (labels, scores)]
    for score in (auroc, average_precision, brier, calibration_error):
        assert score(labels, scores, counts[None])[0] == pytest.approx(score(*copied)[0], nan_ok=True, abs=1e-12)
    weighted, plain = confusion(labels, scores, 0.5, counts[None]), confusion(*copied, 0.5)
    for name in ("f1", "precision", "recall", "specificity", "balanced_accuracy"):
        assert getattr(weighted, name)[0] == pytest.approx(getattr(plain, name)[0], nan_ok=True, abs=1e-12)


def test_blocks_and_columns_change_nothing(monkeypatch):
    labels, scores = example(3, n=90, decimals=1)
    people = np.random.default_rng(4).integers(0, 40, 90)
    rows = np.random.default_rng(5).poisson(1, (33, 40))
    whole = Ranking.of(labels, scores).areas(rows[:, people])
    monkeypatch.setattr(classification, "BLOCK_BYTES", 8 * 90 * 12)
    for a, b in zip(whole, Ranking.of(labels, scores).areas(rows, people), strict=True):
        assert np.allclose(a, b, rtol=0, atol=1e-14, equal_nan=True)


@pytest.mark.parametrize("decimals", [None, 1])
def test_counts_as_integers_give_the_same_bits_as_floats(decimals):
    """Also when their sums are beyond int32; and without the average precision the AUROC is the same."""
    labels, scores = example(10, n=300, decimals=decimals)
    people = np.random.default_rng(11).integers(0, 120, 300)
    counts = np.random.default_rng(12).poisson(1, (40, 120))
    ranking = Ranking.of(labels, scores)
    expected = ranking.areas(counts.astype(np.float64), people)
    for weights in (counts.astype(np.int32), counts, counts.astype(np.int32) * 2**26):
        for a, b in zip(expected, ranking.areas(weights, people), strict=True):
            assert a.tobytes() == b.tobytes(), weights.dtype
    auroc_alone, nothing = ranking.areas(counts.astype(np.int32), people, precision=False)
    assert auroc_alone.tobytes() == expected[0].tobytes()
    assert np.isnan(nothing).all()


def test_scores_that_differ_in_the_last_bit_of_float64_are_told_apart():
    scores = 0.5 + np.array([0.0, 2.0, 1.0]) * np.finfo(np.float64).eps
    assert auroc(np.array([0, 1, 0]), scores)[0] == 1
    assert auroc(np.array([0, 1, 1]), np.full(3, 0.25))[0] == 0.5


def test_a_missing_class_leaves_undefined_what_asks_for_it():
    scores = np.array([0.2, 0.7, 0.9])
    none, all_ = confusion(np.zeros(3), scores, 0.5), confusion(np.ones(3), scores, 0.5)
    for name in ("f1", "precision", "recall", "balanced_accuracy"):
        assert math.isnan(getattr(none, name)[0])
    assert none.specificity[0] == pytest.approx(1 / 3)
    assert all_.recall[0] == pytest.approx(2 / 3)
    assert math.isnan(all_.specificity[0])
    assert math.isnan(auroc(np.zeros(3), scores)[0])
    assert math.isnan(auroc(np.ones(3), scores)[0])
    assert math.isnan(average_precision(np.zeros(3), scores)[0])
    assert average_precision(np.ones(3), scores)[0] == 1
    assert math.isnan(brier(np.zeros(3), scores, np.zeros((1, 3)))[0])
    silent = confusion(np.array([1, 0]), np.array([0.1, 0.2]), 0.5)
    assert (silent.f1[0], silent.precision[0], silent.recall[0]) == (0, 0, 0)
    assert np.isnan([score(np.empty(0), np.empty(0))[0] for score in (auroc, average_precision, brier)]).all()


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([0, 1], [0.1], "one of each"),
        ([0, -1], [0.1, 0.2], "masked"),
        ([0, 1], [0.1, math.nan], "1 of 2 scores are NaN"),
    ],
)
def test_what_cannot_be_scored_is_said(labels, scores, message):
    with pytest.raises(ValueError, match=message):
        auroc(np.array(labels), np.array(scores))


def test_the_tuned_threshold_has_the_best_f1_and_sits_on_no_image():
    labels, scores = example(6, n=200, decimals=2)
    best = max(sk.f1_score(labels, scores >= t) for t in np.unique(scores))
    threshold = tuned_threshold(labels, scores)
    assert threshold is not None
    assert sk.f1_score(labels, scores >= threshold) == pytest.approx(best, abs=1e-12)
    assert not (scores == threshold).any()
    assert tuned_threshold(np.zeros(5), np.linspace(0, 1, 5)) is None
    assert tuned_threshold(np.ones(5), np.linspace(0, 1, 5)) is None
    # F1 is 2/3 for one image and for four of them; the smaller threshold misses none.
    assert tuned_threshold(np.array([1, 0, 0, 1, 0]), np.array([0.9, 0.8, 0.7, 0.6, 0.2])) == pytest.approx(0.4)
    neighbours = np.array([np.nextafter(0.5, 1), 0.5])
    assert tuned_threshold(np.array([1, 0]), neighbours) == neighbours[0]


def test_the_points_are_those_of_scikit_learn():
    labels, scores = example(7, n=120, decimals=2)
    x, y, thresholds = roc_points(labels, scores)
    fpr, tpr, _ = sk.roc_curve(labels, scores, drop_intermediate=False)
    assert {(round(a, 12), round(b, 12)) for a, b in zip(x, y, strict=True)} <= {
        (round(a, 12), round(b, 12)) for a, b in zip(fpr, tpr, strict=True)
    }
    assert (x[0], y[0], x[-1], y[-1], thresholds[0]) == (0, 0, 1, 1, math.inf)
    assert np.trapezoid(y, x) == pytest.approx(auroc(labels, scores)[0], abs=1e-12)
    recall, precision, cuts = precision_recall_points(labels, scores)
    for r, p, cut in zip(recall, precision, cuts, strict=True):
        assert r == pytest.approx(sk.recall_score(labels, scores >= cut))
        assert p == pytest.approx(sk.precision_score(labels, scores >= cut))
    assert recall[-1] == 1


def test_long_curves_are_thinned_and_keep_their_area_and_ends():
    labels, scores = example(8, n=30_000)
    x, y, _ = roc_points(labels, scores)
    assert 200 < len(x) <= 400
    assert np.trapezoid(y, x) == pytest.approx(auroc(labels, scores)[0], abs=2e-3)
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
    recall, precision, _ = precision_recall_points(labels, scores)
    assert len(recall) <= 400
    assert recall[-1] == 1
    assert len(precision) == len(recall)
    for points in (roc_points, precision_recall_points):
        assert not len(points(np.zeros(4), np.arange(4.0))[0])
        assert not len(points(np.empty(0), np.empty(0))[0])


def test_reliability_bins_add_up_to_the_calibration_error():
    labels, scores = example(9, n=600)
    found = reliability_bins(labels, scores)
    assert sum(b.n for b in found) == 600
    total = sum(b.n * abs(b.frequency - b.confidence) for b in found) / 600
    assert total == pytest.approx(calibration_error(labels, scores)[0], abs=1e-12)
    assert all(0 <= b.ci_low <= b.frequency <= b.ci_high <= 1 for b in found)
    people = np.repeat(np.arange(200), 3)
    alike = reliability_bins(labels[people], np.full(600, 0.3), people)[0]
    apart = reliability_bins(labels[people], np.full(600, 0.3))[0]
    assert alike.ci_high - alike.ci_low > 1.6 * (apart.ci_high - apart.ci_low), "copies of an image tell nothing new"
    assert reliability_bins(np.zeros(10), np.full(10, 1.0))[0].ci_high == pytest.approx(
        1.96**2 / (10 + 1.96**2), rel=1e-3
    )
