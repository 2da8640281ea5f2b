"""A re-identification network that tells nobody apart gives no verdict, and the summary says so."""

from __future__ import annotations

import numpy as np
import pytest
from fixtures.summary import summary_lines
from results.privacy_rows import flat, reid, row, search, text_of

from chexray.privacy.calibration import Calibration, calibrate, calibration_scores, count_thresholds


def scorer(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.linalg.norm(left.astype(np.float64) - right, axis=1))


def calibration(identity: float) -> Calibration:
    """60 patients of 3 images whose vectors share `identity` of their spread."""
    rng = np.random.default_rng(0)
    patients = np.arange(60).repeat(3)
    vectors = identity * rng.standard_normal((60, 8))[patients] + rng.standard_normal((180, 8))
    return calibrate(vectors.astype(np.float32), patients, scorer, rng)


def test_noise_recognises_nobody_and_identity_does() -> None:
    noise, good = calibration(0.0), calibration(2.0)
    assert noise.auc_interval[0] <= 0.5 < noise.auc_interval[1]
    assert f"AUC {noise.auc:.3f}" in noise.recognises_nobody
    assert good.recognises_nobody == ""
    assert count_thresholds(noise)["calibrated"] == (None, noise.fpr)
    assert count_thresholds(good)["calibrated"] == (good.threshold, good.fpr)
    assert calibration_scores(noise)[0].params["recognises_nobody"] == noise.recognises_nobody
    assert "recognises_nobody" not in calibration_scores(good)[0].params
    assert Calibration().recognises_nobody == ""  # no patient has two images: unknown
    assert Calibration(auc=0.368, auc_interval=(0.313, 0.427)).recognises_nobody.endswith("chance is 0.5")
    assert Calibration(auc=0.0).recognises_nobody


@pytest.mark.parametrize(("low", "high"), [(0.313, 0.427), (0.48, 0.7)])
def test_it_is_a_headline_in_the_summary_and_above_the_scores(low: float, high: float) -> None:
    rows = [*search(3, -0.008, 0.0164), *reid()]
    rows = [
        {**each, "value": 0.42, "ci_low": low, "ci_high": high} if each["metric"] == "reid_auc" else each
        for each in rows
    ]
    (said,) = (line for line in summary_lines(rows) if line.startswith("siamese_reid: NO RE-IDENTIFICATION"))
    assert f"AUC 0.420 [{low:.3f}, {high:.3f}]" in said
    text = flat(text_of(rows))
    assert text.count("the network does not tell patients apart") == 1
    assert "re-identification: siamese_reid (ResNet-50_epoch11_data_handling_RPN.pth): ignore its scores" in text


def test_a_network_that_recognises_people_has_no_headline() -> None:
    rows = [*search(3, -0.008, 0.0164), *reid(), row("reid_mean", 0.5)]
    assert not [line for line in summary_lines(rows) if "RE-IDENTIFICATION" in line]
    assert "ignore its scores" not in text_of(rows)
