"""A slice of `make calibrate floors`: perfect generators are seldom beyond a floor, a much worse one is."""

from __future__ import annotations

import pytest
from calibration.floors import Case, error_known, false_rates, scores, worse

pytestmark = pytest.mark.calibration


def test_perfect_generators_are_seldom_beyond_the_floor():
    for (case, metric), rate in false_rates((Case(60, 30, 3), Case(40, 120, 1, "mix")), 5).items():
        assert rate.better + rate.worse <= 2, (case, metric)
        assert metric == "fid_infinity" or rate.with_floor == 5, (case, metric)


def test_a_much_worse_generator_is_worse_in_all_that_look_at_variance():
    found = [s for s in scores(Case(120, 120, 2), 1, lambda y: worse(y, 0.8, "blown")) if error_known(s)]
    said = {score.metric: score.beyond_floor for score in found}
    assert {name for name, verdict in said.items() if verdict == "worse"} >= {"fid", "fid_infinity", "precision"}
