"""The audit's shares: counted by hand, intervals against scipy's exact ones and against simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from chexray.privacy.audit import audit_scores

PLANTED = {
    "identity": np.array([True, True, True, True]),
    "flip": np.array([False, False, True, True]),
    "noise": np.array([True, True, True, False]),
}
UNSEEN = np.array([False] * 9 + [True])
TWINS = np.array([[True, True], [False, False], [True, False], [False, False], [False, True]])


def scored(*args, **kwargs):
    return {score.metric: score for score in audit_scores(*args, **kwargs)}


def test_counts_by_hand_and_in_order():
    scores = audit_scores(PLANTED, UNSEEN, TWINS)
    assert [(score.metric, score.value) for score in scores] == [
        ("audit_sensitivity_identity", 1.0),
        ("audit_sensitivity_flip", 0.5),
        ("audit_sensitivity_noise", 0.75),
        ("audit_sensitivity", 0.625),
        ("audit_specificity", 0.9),
        ("audit_consistency", 0.6),
    ]
    assert {(score.better, score.status) for score in scores} == {("higher", "ok")}
    found = {score.metric: score.params for score in scores}
    assert found["audit_sensitivity"]["augmentations"] == ["flip", "noise"]
    assert found["audit_specificity"] == {"n": 10, "n_flagged": 1, "ci_effective_n": 10.0}
    assert found["audit_consistency"]["n_flagged"] == 3


def test_unchanged_copies_alone_are_their_own_mean():
    assert scored({"identity": PLANTED["identity"]}, UNSEEN, TWINS)["audit_sensitivity"].value == 1.0


@pytest.mark.parametrize(("hits", "n"), [(0, 5), (3, 40), (40, 40), (199, 200)])
def test_intervals_of_single_images_are_the_exact_ones(hits, n):
    verdicts = np.arange(n) < hits
    scores = scored({"flip": verdicts}, ~verdicts, np.stack([verdicts, np.ones(n, bool)], axis=1))
    exact = binomtest(hits, n).proportion_ci(method="exact")
    for name in ("audit_sensitivity_flip", "audit_sensitivity", "audit_specificity", "audit_consistency"):
        assert (scores[name].ci_low, scores[name].ci_high) == pytest.approx((exact.low, exact.high), abs=1e-9)
        assert (scores[name].std_error is None) == (hits in (0, n))


def test_studies_of_one_patient_count_as_one_where_they_agree():
    """Ten patients of four studies with equal verdicts know no more than ten images."""
    patients = np.arange(10).repeat(4)
    verdicts = patients < 7
    together = scored({"flip": verdicts}, verdicts, TWINS, planted_subjects=patients, unseen_subjects=patients)
    exact = binomtest(7, 10).proportion_ci(method="exact")
    found = together["audit_sensitivity_flip"]
    assert found.params["n_patients"] == 10
    assert found.params["ci_effective_n"] == pytest.approx(10, rel=0.1)
    assert (found.ci_low, found.ci_high) == pytest.approx((exact.low, exact.high), abs=0.03)
    alone = scored({"flip": verdicts}, verdicts, TWINS)["audit_specificity"]
    assert together["audit_specificity"].ci_high - together["audit_specificity"].ci_low > 1.5 * (
        alone.ci_high - alone.ci_low
    )


def test_the_interval_of_the_mean_covers_the_truth():
    """Augmentations of one original share its luck. 400 audits of 60 originals: at least 93 % of intervals hold."""
    rng, held, truth = np.random.default_rng(0), 0, 0.7
    for _ in range(400):
        easy = rng.beta(2.1, 0.9, 60)  # mean 0.7
        planted = {name: rng.random(60) < easy for name in ("flip", "crop", "noise")}
        score = scored(planted, UNSEEN, TWINS)["audit_sensitivity"]
        held += score.ci_low <= truth <= score.ci_high
    assert held / 400 > 0.93


def test_nothing_to_count_is_a_null_with_a_reason():
    scores = scored({}, np.zeros(0, bool), np.zeros((0, 2), bool))
    assert list(scores) == ["audit_sensitivity", "audit_specificity", "audit_consistency"]
    for score in scores.values():
        assert (score.value, score.status) == (None, "too_few")
        assert "to count" in score.reason
    assert scored({"flip": []}, UNSEEN, [])["audit_sensitivity_flip"].value is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"planted": {"flip": np.ones(3)}}, "expected bool"),
        ({"planted": {"flip": np.ones(3, bool), "crop": np.ones(4, bool)}}, "aligned"),
        ({"unseen": np.ones((3, 2), bool)}, r"expected \(n,\)"),
        ({"twins": np.ones((3, 3), bool)}, r"expected \(k, 2\)"),
        ({"planted_subjects": np.arange(3)}, "3 patient codes for 4 planted copies"),
    ],
)
def test_misshapen_verdicts_are_refused(change, message):
    given = {"planted": PLANTED, "unseen": UNSEEN, "twins": TWINS, **change}
    with pytest.raises(ValueError, match=message):
        audit_scores(given.pop("planted"), given.pop("unseen"), given.pop("twins"), **given)
