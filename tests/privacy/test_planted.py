"""Shares of planted copies found, and which training images they are copies of."""

from __future__ import annotations

import numpy as np
import pytest
from calibration.altered_copies import FOUND, false_flags, phantoms, radiographs, recall
from scipy.stats import binomtest

from chexray.privacy.augmentations import ALTERATIONS, ALTERED
from chexray.privacy.planted import drawn, planted_scores


def test_each_alteration_has_its_share_and_interval():
    hit = np.arange(40) < 35
    (score,) = planted_scores({"turned_9": hit}, None, "pixels, patches")
    interval = binomtest(35, 40).proportion_ci(method="exact")
    assert (score.metric, score.value, score.better) == ("planted_found_turned_9", 35 / 40, "higher")
    assert (score.ci_low, score.ci_high) == pytest.approx((interval.low, interval.high))
    assert score.params == {
        "n": 40, "n_found": 35, "alteration": "turned 9 degrees", "searched": "pixels, patches"
    }  # fmt: skip


def test_every_alteration_has_words():
    assert list(ALTERED) == list(ALTERATIONS)


def test_patients_come_once_before_any_comes_twice():
    order = np.array([4, 0, 1, 5, 3, 2])
    patients = np.array([7, 7, 8, 9, 7, 8])
    assert drawn(order, patients, 3).tolist() == [3, 4, 5]
    assert drawn(order, patients, 4).tolist() == [0, 3, 4, 5]
    assert drawn(order, None, 2).tolist() == [0, 4]
    assert drawn(order, patients, 99).tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.slow
def test_views_find_what_a_plain_search_overlooks():
    """A slice of tests/calibration/altered_copies.py, on phantoms."""
    training, heldout = phantoms(60, 1), phantoms(40, 2)
    before, after = (
        recall(training, heldout, 10, views)["turned 9, cropped to 85 %"]["any"] for views in (False, True)
    )
    assert before <= 0.3
    assert after >= FOUND


@pytest.mark.slow
def test_radiographs_turned_and_cropped_are_found(shared):
    training, heldout = radiographs("real_train", 120), radiographs("real_test", 80)
    before, after = (recall(training, heldout, 10, views, ("perceptual_hash",)) for views in (False, True))
    assert before["turned 9, cropped to 85 %"]["perceptual_hash"] == 0
    assert after["turned 9, cropped to 85 %"]["perceptual_hash"] >= FOUND
    assert before["exact"]["any"] == after["exact"]["any"] == 1


@pytest.mark.slow
def test_nothing_is_flagged_more_often_than_stated():
    for each in false_flags(phantoms(120, 3), 40, views=True):
        assert each.flagged <= 2.5 * each.stated_flagged
        assert each.alarms <= 0.1
