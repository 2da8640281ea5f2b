"""Numbers of privacy and utility as declared: each once, in words, with what the results travel with."""

from __future__ import annotations

import json

import pytest

from chexray.outputs import check_declared, output_of
from chexray.privacy.calibration import Calibration, calibration_scores
from chexray.privacy.outputs import privacy_outputs
from chexray.privacy.pair_outputs import THRESHOLDS, reid_count, reid_fpr
from chexray.results.legacy import declared
from chexray.utility.classification.outputs import utility_outputs


@pytest.mark.parametrize("outputs", [privacy_outputs(), utility_outputs()])
def test_each_number_is_declared_once_with_what_it_says_and_cannot_see(outputs):
    assert len({output.name for output in outputs}) == len(outputs)
    for output in outputs:
        assert output.says.endswith("."), output.name
        assert output.cannot_see, output.name
        assert output.family, output.name
        check_declared(output.declared)
        row = {"metric": output.name, "better": output.better, "declared": output.declared}
        assert output_of(row) == output


def test_a_place_in_a_section_is_that_of_one_number_of_an_encoder():
    """Reports find a number by family and role, so that only numbers which are shown alike share a place."""
    several = {"", "count", "false positives", "found", "one change"}
    spaces = {"pair distances"}  # of features and of pixels
    places = [(each.family, each.role) for each in privacy_outputs() if each.role not in several]
    assert all(places.count(place) == 1 or place[0] in spaces for place in places)
    measured = [(each.family, each.role, each.label) for each in utility_outputs()]
    assert len(set(measured)) == len(measured)


def test_numbers_that_take_a_threshold_are_named_by_it():
    names = [score.metric for score in calibration_scores(Calibration(status="undefined", reason="no patients"))]
    assert names == ["reid_auc", "reid_threshold", *(reid_fpr(cut).name for cut in THRESHOLDS)]
    assert (reid_count("0.85").name, reid_count("0.85").label) == ("reid_count_0.85", "prompts above 0.85")
    assert reid_count("calibrated").judges == "re-identification" != reid_count("0.85").judges


@pytest.mark.parametrize(("suite", "outputs"), [("privacy", privacy_outputs()), ("utility", utility_outputs())])
def test_rows_of_version_0_1_find_their_section(suite, outputs):
    for output in outputs:
        found = json.loads(declared(suite, output.name))
        assert (found["family"], found.get("role", "")) == (output.family, output.role)
    assert json.loads(declared("privacy", "reid_count_0.7"))["role"] == "count"
