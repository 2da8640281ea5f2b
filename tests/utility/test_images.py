"""The image cache: the pixels upstream trains on, as bytes."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from torchvision import transforms

from chexray.encoders.base import Encoder
from chexray.errors import ConfigError
from chexray.utility.loop.images import ResizedImages


def picture(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.clip(120 + 80 * np.sin(x / 7) * np.cos(y / 5) + 0.3 * y, 0, 255).astype(np.uint8)


def test_squash_is_upstreams_resize_bit_by_bit():
    encoder = ResizedImages(64)
    for size in ((131, 97), (90, 173), (64, 64), (7, 5)):
        expected = transforms.Resize((64, 64))(Image.fromarray(picture(*size)))
        assert np.array_equal(encoder.prepare(picture(*size)), np.asarray(expected))


def test_cover_keeps_the_aspect_ratio_and_the_centre():
    encoder = ResizedImages(64, "cover")
    for size in ((131, 97), (90, 173), (64, 64), (7, 5)):
        steps = transforms.Compose([transforms.Resize(64), transforms.CenterCrop(64)])
        assert np.array_equal(encoder.prepare(picture(*size)), np.asarray(steps(Image.fromarray(picture(*size)))))


@pytest.mark.parametrize("resize", ["squash", "cover"])
def test_it_is_an_encoder_of_bytes(resize):
    encoder = pickle.loads(pickle.dumps(ResizedImages(32, resize)))
    assert isinstance(encoder, Encoder)
    encoder.load("cpu")
    spec = encoder.resolve()
    assert (spec.outputs, spec.input_shape) == ({"image": 1024}, (32, 32))
    assert (spec.input_dtype, spec.output_dtype, spec.weights_sha256) == ("uint8", "uint8", "")
    batch = np.stack([encoder.prepare(picture(50, 40)), encoder.prepare(picture(20, 90))])
    batch.setflags(write=False)
    image = encoder.encode(batch)["image"]
    assert (image.shape, image.dtype, image.flags.c_contiguous) == ((2, 1024), np.uint8, True)
    assert np.array_equal(image.reshape(2, 32, 32), batch)
    assert not np.shares_memory(image, batch)
    assert encoder.encode(batch[:0])["image"].shape == (0, 1024)


def test_everything_that_changes_a_pixel_changes_the_fingerprint():
    prints = [ResizedImages(side, resize).resolve().fingerprint for side in (32, 64) for resize in ("squash", "cover")]
    assert len(set(prints)) == 4
    assert ResizedImages(32).resolve().fingerprint == prints[0]


@pytest.mark.parametrize(("options", "match"), [((8,), "16 to 2048"), ((4096,), "16 to 2048"), ((64, "pad"), "cover")])
def test_bad_options_are_named(options, match):
    with pytest.raises(ConfigError, match=match):
        ResizedImages(*options)


def test_neither_the_cache_nor_the_choice_of_a_classifier_loads_torch():
    modules = "sys, chexray.utility.loop.images, chexray.utility.classification.classifier"
    code = f"import {modules}; print({{'torch', 'timm', 'ray'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
