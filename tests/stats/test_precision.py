"""When a lower precision is refused: pure, on errors, shifts and standard errors."""

from __future__ import annotations

import math

import numpy as np
import pytest

from chexray.stats.precision import Shift, images_a_side, objections, relative_error


def test_small_errors_and_shifts_are_allowed():
    assert objections({"features": 0.011}, {"fid": 0.09, "kid": -0.0004}, {"fid": 1.0, "kid": 0.005}) == []


@pytest.mark.parametrize(
    ("errors", "shifts", "std_errors", "said"),
    [
        ({"features": 0.01, "logits": 0.03}, {}, {}, "the error of logits is 0.03 of their length, above 0.02"),
        ({"features": math.inf}, {}, {}, "the error of features is inf"),
        ({"features": math.nan}, {}, {}, "the error of features is nan"),
        ({"features": 0.01}, {"kid": -0.002}, {"kid": 0.01}, "kid moves by -0.002, and a tenth of its standard error"),
        ({"features": 0.01}, {"fid": 0.2}, {"fid": 0.0}, "fid moves by 0.2"),
    ],
)
def test_each_limit_refuses(errors, shifts, std_errors, said):
    (found,) = objections(errors, shifts, std_errors)
    assert found.startswith(said)


def test_a_shift_that_passes_in_a_small_run_is_refused_in_a_large_one():
    shift = Shift(0.05, 2.0, 32)
    assert shift.std_error_at(32) == 2.0
    assert shift.std_error_at(3200) == pytest.approx(0.2)
    of = {n: objections({}, {"fid": shift.shift}, {"fid": shift.std_error_at(n)}) for n in (32, 3200)}
    assert not of[32]
    assert of[3200]


def test_the_error_is_relative_to_the_length_and_finite_features_only():
    full = np.full((4, 3), 2.0, np.float32)
    assert relative_error(full, full * np.float32(1.5)) == pytest.approx(0.5)
    assert relative_error(full, full) == 0
    assert relative_error(full * 0, full * 0) == 0
    assert relative_error(full * 0, full) == math.inf
    assert relative_error(full, full * np.float32(np.nan)) == math.inf


def test_unequal_sides_have_the_n_of_their_variance():
    assert images_a_side(100, 100) == 100
    assert images_a_side(100, 10**9) == pytest.approx(200, rel=1e-6)
