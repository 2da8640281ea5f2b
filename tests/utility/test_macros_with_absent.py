"""Macro numbers over all 14 findings, against scikit-learn as CheXGenBench's downstream_inference.py calls it."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics as sk

from chexray.findings import FINDINGS
from chexray.utility.classification.estimates import Predictions, evaluate, macros_with_absent, to_scores

SCORERS = {"f1": sk.f1_score, "precision": sk.precision_score, "recall": sk.recall_score}


def example(absent: tuple[int, ...] = (3, 8, 13), always: tuple[int, ...] = (5,), seeds: int = 1) -> Predictions:
    """160 images; `absent` findings have no positive, though some are called; of `always` every image has the one."""
    rng = np.random.default_rng(2)
    labels = (rng.random((160, 14)) < 0.2).astype(np.int8)
    labels[:, list(absent)], labels[:, list(always)] = 0, 1
    said = 1 / (1 + np.exp(0.8 - rng.normal(size=(seeds, 160, 14)) - 1.2 * labels))
    return Predictions(labels, said, np.full((seeds, 14), 0.3), np.arange(160) // 2)


def published(predictions: Predictions, name: str) -> float:
    called = predictions.probabilities[0] >= 0.5
    return SCORERS[name](predictions.labels, called.astype(int), average="macro", zero_division=0)


@pytest.mark.parametrize("absent", [(), (3, 8, 13), tuple(range(13))])
def test_they_are_those_of_scikit_learn_over_all_columns(absent):
    predictions = example(absent, always=() if len(absent) == 13 else (5,))
    scores = {score.metric: score for _, score in macros_with_absent(evaluate(predictions, {}, resamples=60))}
    assert set(scores) == {f"{name}_macro_of_14" for name in SCORERS}
    for name in SCORERS:
        score = scores[f"{name}_macro_of_14"]
        assert score.value == pytest.approx(published(predictions, name), abs=1e-12)
        assert score.ci_low < score.value < score.ci_high
        assert (score.params["threshold"], score.params["n_findings"]) == (0.5, 14)
        assert score.params.get("counted_as_zero", []) == [FINDINGS[f] for f in absent]


def test_beside_ours_they_are_smaller_by_the_share_of_absent_findings():
    predictions = example(always=())
    table = evaluate(predictions, {}, resamples=20)
    of_14 = {score.metric.removesuffix("_of_14"): score.value for _, score in macros_with_absent(table)}
    ours = {s.metric: s.value for subset, s in to_scores(table) if subset == "all" and s.params.get("threshold") == 0.5}
    for metric, value in of_14.items():
        assert value == pytest.approx(ours[metric] * 11 / 14, abs=1e-12)


def test_several_trainings_are_averaged():
    three = example(seeds=3)
    score = dict(macros_with_absent(evaluate(three, {}, resamples=20)))["all"]
    alone = [Predictions(three.labels, three.probabilities[[s]], three.thresholds[[s]]) for s in range(3)]
    assert score.metric == "recall_macro_of_14"
    assert score.value == pytest.approx(np.mean([published(each, "recall") for each in alone]), abs=1e-12)
    assert score.params["seeds"] == 3


def test_without_any_positive_label_there_is_none():
    table = evaluate(example(tuple(range(14)), always=()), {}, resamples=5)
    for _, score in macros_with_absent(table):
        assert (score.value, score.status) == (None, "too_few")
        assert score.reason == "no positive label among 160 test images"
