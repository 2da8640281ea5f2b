"""The weight-free encoder: exact area averages."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from chexray.encoders.pixels import Pixels
from chexray.errors import ConfigError


def encode(encoder, image):
    return encoder.encode(encoder.prepare(image)[None])["features"][0]


def test_cells_are_means(greys):
    image = greys[2]  # 112 x 112: 7 pixels a cell
    expected = image.reshape(16, 7, 16, 7).mean((1, 3)) / 255
    np.testing.assert_allclose(encode(Pixels(), image), expected.ravel(), rtol=1e-6)


@pytest.mark.parametrize("side", [1, 3, 16, 40])
def test_border_pixels_count_by_their_share(greys, side):
    for image in greys:
        repeated = image.repeat(side, 0).repeat(side, 1).astype(float)  # every cell is now a whole number of pixels
        height, width = image.shape
        expected = repeated.reshape(side, height, side, width).mean((1, 3)) / 255
        np.testing.assert_allclose(encode(Pixels(side=side), image), expected.ravel(), rtol=1e-5, atol=1e-7)


def test_range_and_spec():
    white = np.full((301, 211), 255, np.uint8)
    assert encode(Pixels(), white).max() == pytest.approx(1)
    assert encode(Pixels(), white).dtype == np.float32
    assert Pixels(side=8).resolve().outputs == {"features": 64}
    assert Pixels(side=8).resolve().fingerprint != Pixels().resolve().fingerprint


def test_settings_are_checked():
    with pytest.raises(ConfigError, match="pixels has no weights"):
        Pixels(weights="x.pth")
    for options, message in (
        ({"side": 0}, "side is 0"),
        ({"side": "8"}, "expected int"),
        ({"sides": 8}, "Did you mean"),
    ):
        with pytest.raises(ConfigError, match=message):
            Pixels(**options)


def test_naming_encoders_and_resolving_them_does_not_import_torch():
    """Decoding workers and `chexray --help` must not pay seconds for torch; nor may encoders import ray."""
    code = """
import sys
import numpy as np
from chexray.registry import find, names
for name in names("encoders"):
    find("encoders", name)
find("encoders", "pixels")().prepare(np.zeros((9, 9), np.uint8))
encoder = find("encoders", "rad_dino")(weights="random:1")
assert encoder.resolve().is_random
assert encoder.prepare(np.zeros((9, 9), np.uint8)).shape == (518, 518)
heavy = {"torch", "torchvision", "transformers", "timm", "ray"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
