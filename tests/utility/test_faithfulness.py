"""Label faithfulness: obedient and deaf generators told apart, floors over the same findings, words for nulls."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from chexray.findings import FINDINGS
from chexray.utility.classification.faithfulness import (
    CONTRADICTIONS,
    FLOOR_METHOD,
    contradictions,
    faithfulness,
    resamples_of,
)

FLOOR: dict[str, float | None] = dict.fromkeys(FINDINGS, 0.9)
N = len(FINDINGS)


def asked(n: int = 120, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random((n, N)) < 0.3).astype(np.int8)


def seen(labels: np.ndarray, strength: float, trainings: int = 1) -> np.ndarray:
    """What a classifier says when the images show what was asked for with this strength."""
    noise = np.random.default_rng(1).normal(size=(trainings, *labels.shape))
    return 1 / (1 + np.exp(1 - strength * (labels == 1) - noise))


def test_an_obedient_generator_scores_high_and_a_deaf_one_one_half() -> None:
    labels = asked()
    for strength, low, high in ((3.0, 0.9, 1.0), (0.0, 0.45, 0.55)):
        probabilities = seen(labels, strength)
        scores = faithfulness(labels, probabilities, np.arange(120) // 2, FLOOR, resamples=60)
        assert [subset for subset, _ in scores] == [*(f"finding:{name}" for name in FINDINGS), "all"]
        for column, (_, score) in enumerate(scores[:-1]):
            assert score.metric == "faithfulness_auroc"
            assert score.better == "higher"
            assert score.value == pytest.approx(roc_auc_score(labels[:, column], probabilities[0, :, column]), abs=1e-9)
            assert (score.real_floor, score.params["floor_method"]) == (0.9, FLOOR_METHOD)
        macro = scores[-1][1]
        assert macro.metric == "faithfulness_auroc_macro"
        assert macro.value == pytest.approx(np.mean([score.value for _, score in scores[:-1]]))
        assert low < macro.value < high
        assert macro.ci_low < macro.value < macro.ci_high
        assert macro.std_error_method == "patient bootstrap"


def test_images_of_one_prompt_are_no_new_evidence() -> None:
    """Each prompt drawn eight times, all alike: the interval is that of the prompts."""
    labels = asked(40)
    once, eight = seen(labels, 1.0), np.repeat(seen(labels, 1.0), 8, axis=1)
    prompts = np.repeat(np.arange(40), 8)
    single = faithfulness(labels, once, resamples=200)[-1][1]
    clustered = faithfulness(labels.repeat(8, axis=0), eight, prompts, cluster="prompt", resamples=200)[-1][1]
    blind = faithfulness(labels.repeat(8, axis=0), eight, resamples=200)[-1][1]
    assert clustered.std_error_method == "prompt bootstrap"
    assert clustered.std_error == pytest.approx(single.std_error, rel=0.3)
    assert blind.std_error < 0.6 * clustered.std_error
    assert single.real_floor is None
    assert "floor_method" not in single.params


def test_several_trainings_add_their_spread() -> None:
    labels, prompts = asked(60), np.arange(60) // 2
    probabilities = seen(labels, 1.0, trainings=3)
    three = faithfulness(labels, probabilities, prompts, FLOOR, cluster="prompt", resamples=50)
    each = [faithfulness(labels, probabilities[s : s + 1], prompts, FLOOR, resamples=50) for s in range(3)]
    for place, (subset, score) in enumerate(three):
        alone = [scores[place][1].value for scores in each]
        assert score.std_error_method == "prompt bootstrap + seeds", subset
        assert score.params["seeds"] == 3
        assert score.value == pytest.approx(np.mean(alone), abs=1e-12)
        assert score.params["seed_std"] == pytest.approx(np.std(alone, ddof=1), abs=1e-12)
        assert score.real_floor == pytest.approx(0.9)


def test_large_sets_take_fewer_resamples_and_never_more_than_asked_for() -> None:
    assert [resamples_of(n, 1000) for n in (0, 600, 20_000, 75_649, 10**6)] == [1000, 1000, 1000, 264, 200]
    assert resamples_of(75_649, 50) == 50


def test_findings_never_or_always_asked_for_are_nulls_with_reasons_and_leave_the_macro() -> None:
    labels = asked(60)
    labels[:, 0], labels[:, 1], labels[:, 2] = 0, 1, -1
    floor = {**FLOOR, "Edema": None, "Atelectasis": 0.1}
    scores = faithfulness(labels, seen(labels, 2.0), None, floor, resamples=50)
    reasons = [score.reason for _, score in scores[:3]]
    assert reasons == [
        "Atelectasis is asked for in none of 60 synthetic images",
        "Cardiomegaly is asked for in all of 60 synthetic images",
        "no synthetic image says whether Consolidation was asked for",
    ]
    assert all(score.value is None and score.status == "too_few" for _, score in scores[:3])
    edema, macro = scores[3][1], scores[-1][1]
    assert edema.value is not None
    assert edema.real_floor is None
    assert edema.params["floor_missing"] == ["Edema"]
    assert macro.real_floor is None, "a floor over other findings would be another number"
    assert macro.params["floor_missing"] == ["Edema"]
    assert macro.params["n_findings"] == 11
    whole = faithfulness(labels, seen(labels, 2.0), None, {**FLOOR, "Atelectasis": 0.1}, resamples=50)[-1][1]
    assert whole.real_floor == pytest.approx(0.9), "of the findings in the value, and no others"


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (np.empty((0, N), np.int8), "among 0 synthetic images"),
        (np.zeros((5, N), np.int8), "no finding is both asked for and denied among 5 synthetic images"),
        (np.full((5, N), -1, np.int8), "among 5 synthetic images"),
    ],
)
def test_nothing_to_score_is_said_in_words(labels: np.ndarray, reason: str) -> None:
    scores = faithfulness(labels, np.full((1, len(labels), N), 0.5), None, FLOOR, resamples=20)
    assert len(scores) == N + 1
    assert all(score.value is None and score.reason for _, score in scores)
    assert reason in scores[-1][1].reason


def test_contradictions_are_the_cells_on_the_wrong_side_of_the_threshold_worst_first() -> None:
    labels = asked(50)
    labels[:, 5] = -1
    probabilities = seen(labels, 1.5)
    thresholds = np.random.default_rng(2).uniform(0.2, 0.6, (1, N))
    ids = np.array([f"s{i:02}" for i in range(50)])
    table = contradictions(ids, labels, probabilities, thresholds)
    assert table.schema.names == CONTRADICTIONS.names
    surprises = table["surprise"].to_pylist()
    assert surprises == sorted(surprises, reverse=True)
    wrong = ((probabilities[0] > thresholds) != (labels == 1)) & (labels >= 0)
    found = {(row["sample_id"], row["finding"]) for row in table.to_pylist()}
    assert found == {(ids[i], FINDINGS[f]) for i, f in zip(*np.nonzero(wrong), strict=True)}
    assert "Fracture" not in table["finding"].to_pylist()
    row = table.to_pylist()[0]
    image, finding = int(row["sample_id"][1:]), FINDINGS.index(row["finding"])
    p, t = probabilities[0, image, finding], thresholds[0, finding]
    odds = p / (1 - p) / (t / (1 - t))
    share = odds / (1 + odds)
    assert row["surprise"] == pytest.approx(-math.log(share if row["asked"] else 1 - share))
    assert row["probability"] == pytest.approx(p)
    assert row["asked"] == labels[image, finding]


def test_an_image_that_contradicts_nothing_has_no_row() -> None:
    labels = asked(3)
    obedient = np.where(labels == 1, 0.9, 0.1)[None].repeat(2, axis=0)
    assert contradictions(np.array(["a", "b", "c"]), labels, obedient).num_rows == 0
    obedient[:, 1, 4] = 0.5 - 0.4 * (labels[1, 4] == 1) + 0.4 * (labels[1, 4] == 0)
    assert contradictions(np.array(["a", "b", "c"]), labels, obedient)["sample_id"].to_pylist() == ["b"]


def test_a_finding_that_the_report_does_not_speak_of_was_not_denied() -> None:
    """`asked` is then null, and the surprise that of a finding which counts as absent."""
    labels = asked(50)
    ids = np.array([f"s{i:02}" for i in range(50)])
    mentioned = (labels == 1) | (np.random.default_rng(3).random(labels.shape) < 0.5)
    probabilities = seen(labels, 1.0, trainings=3)
    whole, told = (contradictions(ids, labels, probabilities, None, said) for said in (None, mentioned))
    assert told.schema.equals(whole.schema)
    assert told.drop_columns("asked").equals(whole.drop_columns("asked"))
    assert whole["asked"].null_count == 0
    for row in told.to_pylist():
        cell = int(row["sample_id"][1:]), FINDINGS.index(row["finding"])
        assert row["asked"] == (labels[cell] if mentioned[cell] else None)
    assert {row["asked"] for row in told.to_pylist()} == {0, 1, None}


def test_contradictions_are_bounded_and_the_rest_is_counted() -> None:
    labels = np.ones((30, N), np.int8)
    table = contradictions(
        np.array([f"s{i:02}" for i in range(30)], object), labels, np.full((2, 30, N), 0.1), max_rows=100
    )
    assert table.num_rows == 100
    assert table.schema.metadata == {b"rows_left_out": b"320"}
    assert table["sample_id"][0].as_py() == "s00"


def test_contradictions_of_nothing_and_of_certain_probabilities_are_finite() -> None:
    assert contradictions(np.array([], str), np.empty((0, N), np.int8), np.empty((1, 0, N))).num_rows == 0
    labels = np.array([[1] + [0] * (N - 2) + [-1], [-1] * N], np.int8)
    certain = np.zeros((1, 2, N))
    table = contradictions(np.array(["a", "b"]), labels, certain, np.full((1, N), np.nan))
    assert table["sample_id"].to_pylist() == ["a"]
    assert math.isfinite(table["surprise"][0].as_py())
