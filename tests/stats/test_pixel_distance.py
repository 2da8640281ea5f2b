"""The pixel distance is numpy's RMS; upstream's value is reproduced, and shown to be none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import root_mean_squared_error

from chexray.stats.pixel_distance import pixel_rms, wrapped_pixel_rms

FLAT = np.full((512, 512), 100, np.uint8)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 40))
def test_it_is_the_rms_of_float_differences(seed: int, height: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 256, (2, height, width), dtype=np.uint8)
    expected = root_mean_squared_error(a.ravel().astype(float), b.ravel().astype(float))
    assert pixel_rms(a, b) == pytest.approx(expected, abs=1e-9)
    assert pixel_rms(a, b) == pixel_rms(b, a)
    assert pixel_rms(a, a) == 0.0


def test_one_grey_level_is_one_grey_level_and_upstream_says_255() -> None:
    brighter = FLAT + np.uint8(1)
    assert pixel_rms(FLAT, brighter) == pixel_rms(brighter, FLAT) == 1.0
    assert wrapped_pixel_rms(FLAT, brighter) == 255.0
    assert wrapped_pixel_rms(brighter, FLAT) == 1.0


def test_upstream_sees_any_two_images_near_147() -> None:
    rng = np.random.default_rng(0)
    noisy = (FLAT + rng.choice([-1, 1], FLAT.shape)).astype(np.uint8)
    far = rng.integers(0, 256, FLAT.shape, dtype=np.uint8)
    # All but equal, and as different as can be: with differences of 0 a third of the time it is 147.3.
    assert pixel_rms(FLAT, noisy) == pytest.approx(1.0)
    assert wrapped_pixel_rms(FLAT, noisy) == pytest.approx(np.sqrt((255**2 + 1) / 2), rel=0.01)
    nearly = (FLAT + rng.choice([-1, 0, 1], FLAT.shape)).astype(np.uint8)
    assert pixel_rms(FLAT, nearly) == pytest.approx(0.82, abs=0.01)
    assert wrapped_pixel_rms(FLAT, nearly) == pytest.approx(147.2, abs=1)
    assert wrapped_pixel_rms(FLAT, far) == pytest.approx(147.4, abs=1)


def test_images_of_two_shapes_or_none_are_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        pixel_rms(FLAT, FLAT[:100])
    with pytest.raises(ValueError, match="one shape"):
        pixel_rms(FLAT[:0], FLAT[:0])
    with pytest.raises(ValueError, match="only uint8 wraps"):
        wrapped_pixel_rms(FLAT.astype(np.float32), FLAT)
