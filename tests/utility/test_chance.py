"""Which groups a gap can be told for, and how large it is by chance: against Monte Carlo and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics as sk
from calibration.gaps import Case, population, rates

from chexray.findings import FINDINGS
from chexray.stats.classification import placements
from chexray.utility.classification.chance import MIN_PATIENTS, judged
from chexray.utility.classification.estimates import Predictions, evaluate, gaps

AUROC = frozenset({"auroc"})


def test_placements_average_to_the_auroc_of_scikit_learn():
    rng = np.random.default_rng(0)
    labels, scores = (rng.random(80) < 0.3).astype(int), rng.integers(0, 12, 80) / 12
    placed = placements(labels, scores)
    expected = sk.roc_auc_score(labels, scores)
    assert placed[labels == 1].mean() == pytest.approx(expected, abs=1e-12)
    assert 1 - placed[labels == 0].mean() == pytest.approx(expected, abs=1e-12)
    assert np.isnan(placements(np.ones(3), np.arange(3.0))).all()


@pytest.mark.calibration
@pytest.mark.parametrize(
    "case",
    [
        Case("", (60, 300), (0.25,)),
        Case("", (50, 120, 300), (0.3, 0.2, 0.3)),
        Case("", (300, 500), (0.3,) * 3, extra=5, alike=0.8),
        Case("", (100, 400), (0.4,) * 3, rare_in_first=0.4),
    ],
)
def test_the_gap_by_chance_is_that_of_populations_served_equally_well(case):
    """What is said of one population, against the 95 % quantile of the gaps of 200: within 18 %, two errors of it."""
    rng, found, said = np.random.default_rng(1), [], []
    for draw in range(240):
        predictions, masks = population(case, rng)
        table = evaluate(predictions, masks, resamples=10 if draw < 40 else 2, only=AUROC)
        ((_, score),) = gaps(table, {"age": list(masks)})
        if score.value is None or score.params["n_findings"] < len(case.prevalence):
            continue
        found.append(score.value)
        if draw < 40:
            said.append(score.params["gap_by_chance"])
    assert len(found) > 150
    assert np.mean(said) == pytest.approx(np.quantile(found, 0.95), rel=0.18)


@pytest.mark.calibration
@pytest.mark.parametrize(
    "case",
    [
        Case("", (2, 60, 150, 180), tuple(np.geomspace(0.005, 0.5, 14))),
        Case("", (30, 300), (0.5,), 0.95),
        Case("", (50, 500), (0.2,), 0.95),
    ],
)
def test_equal_populations_seldom_get_a_star(case):
    """At most 6 %, and two standard errors of 80 draws; before, 65 %, 23 % and 25 % (60 draws)."""
    assert rates(case, 80)[0] <= 0.06 + 2 * (0.05 * 0.95 / 80) ** 0.5


def test_a_large_gap_gets_a_star_beside_a_group_too_small_to_judge():
    case = Case("", (100, 400, 2), (0.25,) * 2, planted=True)
    assert rates(case, 30)[0] >= 0.8


def units(**groups: tuple[int, int]) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """{group: (images, findings with MIN_PATIENTS patients, the first ones)}"""
    enough = {name: np.where(np.arange(14) < can, MIN_PATIENTS, MIN_PATIENTS - 1) for name, (_, can) in groups.items()}
    return enough, {name: images for name, (images, _) in groups.items()}


def test_groups_that_no_finding_can_judge_are_left_out():
    kept, common = judged(*units(a=(2, 0), b=(300, 12), c=(200, 9)))
    assert kept == ["b", "c"]
    assert common.sum() == 9


def test_a_small_group_may_cost_the_others_half_of_their_findings_and_a_large_one_all():
    assert judged(*units(a=(40, 5), b=(300, 12), c=(200, 9)))[0] == ["a", "b", "c"]
    assert judged(*units(a=(40, 4), b=(300, 12), c=(200, 9)))[0] == ["b", "c"]
    kept, common = judged(*units(a=(100, 1), b=(300, 12), c=(200, 9)))
    assert (kept, common.sum()) == (["a", "b", "c"], 1)


def test_two_groups_are_kept_whatever_they_share():
    assert judged(*units(a=(40, 1), b=(300, 12)))[0] == ["a", "b"]
    assert judged(*units(a=(3, 0)))[0] == []


def test_a_group_of_two_images_is_named_and_the_others_keep_their_findings():
    rng = np.random.default_rng(5)
    predictions, masks = population(Case("", (2, 150, 200), (0.3,) * 6), rng)
    labels = predictions.labels.copy()
    labels[:2, :6] = [[1] * 6, [0] * 6]  # both classes, so that it can be scored
    table = evaluate(
        Predictions(labels, predictions.probabilities, predictions.thresholds, predictions.subjects), masks,
        resamples=20, only=AUROC,
    )  # fmt: skip
    ((_, score),) = gaps(table, {"age": list(masks)})
    assert score.params["left_out"] == ["age:0"]
    assert "fewer than 5 patients" in score.params["left_out_why"]
    assert (score.params["n_findings"], score.params["groups"]) == (6, 2)
    assert score.params["worst"] != "age:0" != score.params["best"]


def test_no_gap_without_two_groups_that_can_be_judged():
    predictions, masks = population(Case("", (4, 300), (0.3,)), np.random.default_rng(6))
    ((_, score),) = gaps(evaluate(predictions, masks, resamples=20, only=AUROC), {"age": list(masks)})
    assert (score.value, score.status) == (None, "too_few")
    assert score.reason.startswith("1 of 2 groups can be judged, and a gap needs 2: it takes 5 patients with a finding")


def test_the_gap_by_chance_depends_on_no_resample_and_no_order_of_rows():
    predictions, masks = population(Case("", (60, 90), (0.3, 0.4)), np.random.default_rng(7))
    order = np.random.default_rng(8).permutation(150)
    assert predictions.subjects is not None
    turned = Predictions(
        predictions.labels[order], predictions.probabilities[:, order], predictions.thresholds,
        predictions.subjects[order],
    )  # fmt: skip
    said = [
        gaps(evaluate(p, m, resamples=b, seed=b, only=AUROC), {"age": list(masks)})[0][1].params["gap_by_chance"]
        for p, m, b in (
            (predictions, masks, 20),
            (predictions, masks, 30),
            (turned, {name: mask[order] for name, mask in masks.items()}, 20),
        )
    ]
    assert said == pytest.approx([said[0]] * 3, rel=1e-9)


def test_a_patient_in_two_groups_ties_their_errors():
    """Views of one patient: errors that the groups share cancel in the gap, and it is smaller by chance."""
    rng = np.random.default_rng(9)
    patients, n = 200, 400
    subjects = np.repeat(np.arange(patients), 2)
    labels = np.full((n, len(FINDINGS)), -1, np.int8)
    labels[:, 0] = np.repeat(rng.random(patients) < 0.3, 2)
    score = np.repeat(rng.normal(size=patients), 2) + 0.1 * rng.normal(size=n) + labels[:, 0]
    probabilities = np.full((1, n, len(FINDINGS)), 0.5)
    probabilities[0, :, 0] = 1 / (1 + np.exp(-score))
    first = np.arange(n) % 2 == 0
    masks = {"view:PA": first, "view:AP": ~first}
    chance = []
    for codes in (subjects, np.arange(n)):
        predictions = Predictions(labels, probabilities, np.full((1, 14), 0.5), codes)
        ((_, score),) = gaps(evaluate(predictions, masks, resamples=10, only=AUROC), {"view": list(masks)})
        chance.append(score.params["gap_by_chance"])
    assert chance[0] < 0.5 * chance[1]
