"""The scores of a setting, its differences and gaps: values against scikit-learn, pairing, nulls and their reasons."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sklearn.metrics as sk
from scipy.stats import t as student

from chexray.errors import MetricError
from chexray.findings import FINDINGS
from chexray.utility.classification.estimates import (
    Predictions,
    differences,
    evaluate,
    gaps,
    to_scores,
    tuned_thresholds,
)
from chexray.utility.classification.intervals import interval


def example(seed: int = 0, n: int = 150, seeds: int = 1, shift: float = 1.5) -> Predictions:
    """150 images of 75 patients; the last finding has no positive, one label in ten is masked."""
    rng = np.random.default_rng(11)
    labels = (rng.random((n, 14)) < 0.25).astype(np.int8)
    labels[:, 13] = 0
    labels[rng.random(labels.shape) < 0.1] = -1
    noise = np.random.default_rng(seed).normal(size=(seeds, n, 14))
    probabilities = 1 / (1 + np.exp(1 - noise - shift * (labels == 1)))
    return Predictions(labels, probabilities, np.full((seeds, 14), 0.3), np.repeat(np.arange(n // 2), 2))


def found(scores, subset: str, metric: str, threshold=None):
    (match,) = [s for name, s in scores if (name, s.metric, s.params.get("threshold")) == (subset, metric, threshold)]
    return match


@pytest.fixture(scope="module")
def predictions():
    return example()


@pytest.fixture(scope="module")
def masks(predictions):
    half = np.arange(len(predictions.labels)) % 4 < 2
    return {"sex:F": half, "sex:M": ~half, "sex:": np.zeros(len(half), dtype=bool)}


@pytest.fixture(scope="module")
def table(predictions, masks):
    return evaluate(predictions, masks, resamples=60)


def test_every_point_value_is_that_of_scikit_learn(predictions, table):
    scores, macro = to_scores(table), {"auroc": [], "f1": [], "brier": []}
    for f, finding in enumerate(FINDINGS[:13]):
        known = predictions.labels[:, f] >= 0
        y, p = predictions.labels[known, f], predictions.probabilities[0, known, f]
        expected = {
            ("auroc", None): sk.roc_auc_score(y, p),
            ("average_precision", None): sk.average_precision_score(y, p),
            ("brier", None): sk.brier_score_loss(y, p),
            ("f1", 0.5): sk.f1_score(y, p >= 0.5),
            ("f1", "tuned"): sk.f1_score(y, p >= 0.3),
            ("balanced_accuracy", "tuned"): sk.balanced_accuracy_score(y, p >= 0.3),
        }
        for (metric, threshold), value in expected.items():
            score = found(scores, f"finding:{finding}", metric, threshold)
            assert score.value == pytest.approx(value, abs=1e-9)
            assert score.ci_low < value < score.ci_high
            assert (score.params["n_images"], score.params["n_positive"]) == (known.sum(), y.sum())
        for metric in macro:
            macro[metric].append(expected[metric, 0.5 if metric == "f1" else None])
    assert found(scores, "all", "auroc_macro").value == pytest.approx(np.mean(macro["auroc"]), abs=1e-9)
    assert found(scores, "all", "f1_macro", 0.5).value == pytest.approx(np.mean(macro["f1"]), abs=1e-9)
    assert found(scores, "all", "brier_macro").value == pytest.approx(np.mean(macro["brier"]), abs=1e-9)
    known = predictions.labels >= 0
    y, p = predictions.labels[known], predictions.probabilities[0][known]
    assert found(scores, "all", "auroc_micro").value == pytest.approx(sk.roc_auc_score(y, p), abs=1e-9)
    assert found(scores, "all", "recall_micro", "tuned").value == pytest.approx(sk.recall_score(y, p >= 0.3), abs=1e-9)
    accuracy = found(scores, "all", "accuracy", 0.5)
    assert accuracy.value == pytest.approx(sk.accuracy_score(y, p >= 0.5), abs=1e-9)
    assert accuracy.params["all_negative"] == pytest.approx(1 - y.mean(), abs=1e-12)


def test_which_scores_there_are(table):
    scores = to_scores(table)
    names = [(subset, s.metric, s.params.get("threshold")) for subset, s in scores]
    assert len(set(names)) == len(names)
    assert {m for s, m, _ in names if s == "sex:F"} == {
        "auroc_macro",
        "average_precision_macro",
        "brier_macro",
        "f1_macro",
        "recall_macro",
    }
    whole = {m for s, m, _ in names if s == "all"}
    assert {"brier_micro", "calibration_error_macro"}.isdisjoint(whole)
    assert {"calibration_error_micro", "specificity_macro", "balanced_accuracy_micro", "accuracy"} <= whole
    assert {s.better for _, s in scores if s.metric.startswith(("brier", "calibration"))} == {"lower"}
    assert found(scores, "finding:Edema", "f1", "tuned").params["thresholds"] == [0.3]
    assert found(scores, "all", "auroc_macro").std_error_method == "patient bootstrap"


def test_a_finding_without_a_class_is_a_null_with_its_reason_and_left_out_of_the_macro(predictions, table):
    scores = to_scores(table)
    n = int((predictions.labels[:, 13] >= 0).sum())
    null = found(scores, "finding:Support Devices", "auroc")
    assert (null.value, null.status, null.reason) == (None, "too_few", f"no positive among {n} test images")
    assert found(scores, "finding:Support Devices", "brier").value is not None
    assert found(scores, "finding:Support Devices", "specificity", 0.5).value is not None
    macro = found(scores, "all", "auroc_macro")
    assert (macro.params["n_findings"], macro.params["left_out"]) == (13, ["Support Devices"])
    assert found(scores, "sex:", "auroc_macro").reason == "no test image of sex:"


def test_masked_and_one_sided_labels_say_which():
    labels = np.full((4, 14), -1, dtype=np.int8)
    labels[:, 0] = 1
    table = evaluate(Predictions(labels, np.full((1, 4, 14), 0.4), np.full((1, 14), np.nan)), {}, resamples=5)
    scores = to_scores(table)
    assert found(scores, "finding:Edema", "auroc").reason == "none of 4 test images has a label of it"
    assert found(scores, "finding:Atelectasis", "auroc").reason == "no negative among 4 test images"
    assert found(scores, "finding:Atelectasis", "recall", "tuned").params["note"].startswith("validation lacks")
    assert found(scores, "all", "auroc_macro").reason == "no finding has both classes among 4 test images"
    assert found(scores, "all", "auroc_micro").reason == "no negative among 4 labels of 4 test images"
    assert not [s for _, s in scores if s.value is not None and not math.isfinite(s.value)]
    empty = Predictions(np.empty((0, 14), np.int8), np.empty((1, 0, 14)), np.full((1, 14), 0.5))
    assert all(s.value is None for _, s in to_scores(evaluate(empty, {}, resamples=3)))


def test_the_resamples_depend_on_the_patients_and_the_seed_alone(predictions):
    other = example(seed=5)
    a, b = (evaluate(p, {}, resamples=20, seed=3) for p in (predictions, other))
    assert a.sample == b.sample
    assert evaluate(predictions, {}, resamples=20, seed=4).sample != a.sample
    again = evaluate(predictions, {}, resamples=20, seed=3)
    assert to_scores(again) == to_scores(a)
    with pytest.raises(ValueError, match="same resamples"):
        differences(a, evaluate(predictions, {}, resamples=21, seed=3))


def test_masked_images_and_groups_do_not_change_the_resamples_of_the_rest(predictions, masks, table):
    assert evaluate(predictions, {}, resamples=60).sample == table.sample
    only = evaluate(predictions, {"sex:M": masks["sex:M"]}, resamples=60)
    assert found(to_scores(only), "sex:M", "f1_macro", 0.5) == found(to_scores(table), "sex:M", "f1_macro", 0.5)


@pytest.mark.parametrize("names", [{"auroc"}, {"brier", "auroc"}, {"average_precision"}, {"f1"}])
def test_what_is_asked_for_alone_is_the_same_to_the_last_bit(masks, names):
    """Three trainings: per finding, macro and by group; nothing else is there, nothing over pooled cells either."""
    three = example(seeds=3)
    whole, part = (evaluate(three, masks, resamples=40, only=only) for only in (None, frozenset(names)))
    assert part.sample == whole.sample
    expected = [
        (subset, score)
        for subset, score in to_scores(whole)
        if score.metric.removesuffix("_macro") in names and not score.metric.endswith("_micro")
    ]
    assert to_scores(part) == expected
    assert {subset for subset, _ in expected} >= {"finding:Edema", "all", "sex:F", "sex:M"}
    for name, subset in part.subsets.items():
        assert not subset.micro
        for key, values in subset.findings.items():
            assert values.replicates.tobytes() == whole.subsets[name].findings[key].replicates.tobytes()
    if "auroc" in names:
        assert gaps(part, {"sex": list(masks)}) == gaps(whole, {"sex": list(masks)})
    compared = {score.metric for _, score in differences(part, part)}
    assert compared == {s.metric for _, s in differences(whole, whole) if s.metric.startswith(tuple(names))}


def test_an_unknown_score_is_refused(predictions):
    with pytest.raises(ValueError, match="no score of a finding is called accuracy, auc"):
        evaluate(predictions, {}, resamples=2, only=frozenset({"auc", "auroc", "accuracy"}))


def test_a_paired_difference_is_tighter_than_two_intervals(predictions, table):
    near = Predictions(
        predictions.labels, predictions.probabilities**1.1 * 0.9, predictions.thresholds, predictions.subjects
    )
    close = evaluate(near, {}, resamples=60)
    scores = differences(close, table)
    assert {s.metric for _, s in scores} == {
        "auroc_difference",
        "auroc_macro_difference",
        "average_precision_macro_difference",
        "brier_macro_difference",
    }
    assert len(scores) == 14 + 3
    macro = found(scores, "all", "auroc_macro_difference")
    assert (macro.value, macro.std_error) == (pytest.approx(0, abs=1e-12), pytest.approx(0, abs=1e-12))
    assert "one training each" in macro.params["note"]
    gain = found(scores, "all", "brier_macro_difference")
    assert gain.better == "lower"
    assert gain.std_error < 0.4 * found(to_scores(table), "all", "brier_macro").std_error
    assert found(scores, "finding:Support Devices", "auroc_difference").reason.startswith("no positive among")


def test_the_p_value_of_a_difference_is_that_of_its_interval():
    """0.05 where the interval just touches 0, by scipy's Student distribution; 1 between equal settings."""
    rng = np.random.default_rng(1)
    replicates = 0.03 * rng.normal(size=400)
    found = interval(np.array([0.8]), replicates, 30.0, "patient", against=np.array([0.75]))
    error = float(replicates.std(ddof=1)) * math.sqrt(30 / 29)
    assert found.p_value == pytest.approx(2 * student.sf(0.05 / error, 29), rel=1e-9)
    edge = student.isf(0.025, 29) * error
    touching = interval(np.array([0.75 + edge]), replicates, 30.0, "patient", against=np.array([0.75]))
    assert (touching.p_value, touching.low) == (pytest.approx(0.05, rel=1e-9), pytest.approx(0, abs=1e-9))
    none = interval(np.array([0.8]), np.zeros(9), 30.0, "patient", against=np.array([0.8]))
    assert (none.low, none.high, none.p_value) == (0, 0, 1)
    assert interval(np.array([0.8]), replicates, 30.0, "patient").p_value is None


def test_several_trainings_widen_the_interval_and_say_so():
    three = example(seeds=3)
    calm = Predictions(three.labels, np.repeat(three.probabilities[:1], 3, axis=0), three.thresholds, three.subjects)
    many, alike = (evaluate(p, {}, resamples=60) for p in (three, calm))
    score, base = (found(to_scores(t), "all", "auroc_macro") for t in (many, alike))
    assert score.std_error_method == "patient bootstrap + seeds"
    assert score.params["seeds"] == 3
    assert score.params["seed_std"] > 0 == base.params["seed_std"]
    per_seed = [
        found(to_scores(evaluate(example_of(three, s), {}, resamples=5)), "all", "auroc_macro") for s in range(3)
    ]
    assert score.value == pytest.approx(np.mean([s.value for s in per_seed]), abs=1e-12)
    assert score.params["seed_std"] == pytest.approx(np.std([s.value for s in per_seed], ddof=1), abs=1e-12)
    change = found(differences(many, alike), "all", "auroc_macro_difference")
    assert "note" not in change.params
    # Against a single training, such as weights that are only tested: its mean, and one side's spread alone.
    single = evaluate(example_of(three, 0), {}, resamples=60)
    against_one = found(differences(many, single), "all", "auroc_macro_difference")
    assert against_one.value == pytest.approx(score.value - per_seed[0].value, abs=1e-12)
    assert (against_one.params["seeds"], "note" in against_one.params) == (3, False)
    assert against_one.std_error > score.params["seed_std"] / math.sqrt(3)
    assert change.std_error > score.params["seed_std"] / math.sqrt(3)
    # Two trainings that disagree leave one degree of freedom, so their own quantile is 12.7.
    steady = np.full(50, 0.75) + 1e-4 * np.random.default_rng(0).normal(size=50)
    wide = interval(np.array([0.7, 0.8]), steady, 100.0, "patient", against=np.array([0.5]))
    assert wide.std_error == pytest.approx(0.05, rel=1e-3)
    assert wide.high - wide.low == pytest.approx(min(1.0, 0.25 + 12.7 * 0.05) - (0.25 - 12.7 * 0.05), rel=1e-2)


def example_of(predictions: Predictions, s: int) -> Predictions:
    kept = slice(s, s + 1)
    return Predictions(
        predictions.labels, predictions.probabilities[kept], predictions.thresholds[kept], predictions.subjects
    )


def test_a_perfect_score_has_a_one_sided_interval_and_no_error():
    labels = np.zeros((60, 14), dtype=np.int8)
    labels[:20] = 1
    sure = Predictions(labels, labels[None] * 0.8 + 0.1, np.full((1, 14), 0.5), np.arange(60))
    table = evaluate(sure, {}, resamples=30)
    score = found(to_scores(table), "finding:Edema", "auroc")
    assert (score.value, score.std_error, score.ci_high) == (1, None, 1)
    assert score.ci_low == pytest.approx(20 / (20 + 1.96**2), rel=1e-3)
    assert score.std_error_method == "wilson, patients"
    same = found(differences(table, table), "finding:Edema", "auroc_difference")
    assert (same.value, same.std_error, same.ci_low) == (0, None, None)
    assert "end of the scale" in same.params["std_error_reason"]


def test_a_finding_of_one_patient_has_no_interval():
    p = example()
    labels = p.labels.copy()
    labels[:, 3] = 0
    labels[:2, 3] = 1
    table = evaluate(Predictions(labels, p.probabilities, p.thresholds, p.subjects), {}, resamples=30)
    score = found(to_scores(table), "finding:Edema", "auroc")
    assert score.value is not None
    assert (score.std_error, score.ci_low) == (None, None)
    assert "single patient" in score.params["std_error_reason"]
    alone = evaluate(Predictions(labels, p.probabilities, p.thresholds, None), {}, resamples=30)
    assert found(to_scores(alone), "finding:Edema", "auroc").std_error_method == "image bootstrap"


def test_a_gap_compares_the_findings_that_all_groups_can_score(predictions, masks, table):
    (score,) = [s for _, s in gaps(table, {"sex": list(masks)})]
    values = {name: found(to_scores(table), name, "auroc_macro").value for name in ("sex:F", "sex:M")}
    assert score.value == pytest.approx(abs(values["sex:F"] - values["sex:M"]), abs=1e-12)
    assert score.params["best"] == max(values, key=values.get)
    assert score.params["worst"] == min(values, key=values.get)
    assert score.params["left_out"] == ["sex:"]
    assert score.ci_low < score.value < score.ci_high
    assert 0 < score.params["gap_by_chance"] < 0.5
    # A finding that only one group can score must not count, however badly that group fares on it.
    labels, p = predictions.labels.copy(), predictions.probabilities.copy()
    labels[masks["sex:M"], 0] = 0
    p[0, :, 0] = np.where(labels[:, 0] == 1, 0.01, 0.99)
    one_sided = evaluate(Predictions(labels, p, predictions.thresholds, predictions.subjects), masks, resamples=10)
    changed = gaps(one_sided, {"sex": ["sex:F", "sex:M"]})[0][1]
    without = [
        np.mean(
            [sk.roc_auc_score(labels[k, f], p[0, k, f]) for f in range(1, 13) for k in [mask & (labels[:, f] >= 0)]]
        )
        for mask in (masks["sex:F"], masks["sex:M"])
    ]
    assert changed.value == pytest.approx(abs(without[0] - without[1]), abs=1e-9)
    assert changed.params["n_findings"] == 12
    null = gaps(table, {"sex": ["sex:F", "sex:"]})[0][1]
    assert null.value is None
    assert null.reason.startswith("1 of 2 groups can be judged, and a gap needs 2: it takes 5 patients with a finding")


def test_thresholds_are_tuned_per_finding(predictions):
    thresholds = tuned_thresholds(predictions.labels, predictions.probabilities[0])
    assert np.isnan(thresholds).tolist() == [False] * 13 + [True]
    assert ((thresholds[:13] > 0) & (thresholds[:13] < 1)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probabilities": np.zeros((1, 150, 13))}, "expected"),
        ({"probabilities": np.full((1, 150, 14), np.nan)}, "2100 of 2100 probabilities are NaN or outside 0 to 1"),
        ({"subjects": np.zeros(3, np.int64)}, "3 patient codes for 150 test images"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(predictions, change, message):
    with pytest.raises(MetricError, match=message):
        Predictions(**({name: getattr(predictions, name) for name in predictions.__dataclass_fields__} | change))
    with pytest.raises(MetricError, match="sex:F"):
        evaluate(predictions, {"sex:F": np.ones(3, dtype=bool)}, resamples=2)
