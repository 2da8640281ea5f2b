"""Patches: each against its own mean and spread, in the order said, whatever the exposure."""

from __future__ import annotations

import csv
from typing import Any

import numpy as np
import pytest
from PIL import Image

from chexray.encoders.patches import CONTRAST_FLOOR, Patches
from chexray.encoders.pixels import Pixels
from chexray.errors import ConfigError
from chexray.phantom import draw


def encode(encoder, image):
    return encoder.encode(encoder.prepare(image)[None])["features"][0]


@pytest.mark.parametrize(("side", "patch"), [(32, 8), (12, 3), (8, 8), (16, 2)])
def test_each_patch_is_centred_and_scaled_by_itself(greys, side, patch):
    for image in greys:
        cells = Pixels(side=side).prepare(image).astype(float)
        expected = []
        for top in range(0, side, patch):
            for left in range(0, side, patch):
                one = cells[top : top + patch, left : left + patch]
                expected.append((one - one.mean()) / np.sqrt(one.var() + CONTRAST_FLOOR**2))
        expected = np.concatenate([one.ravel() for one in expected])
        np.testing.assert_allclose(encode(Patches(side=side, patch=patch), image), expected, atol=1e-5)


def test_what_the_lamp_does_matters_less_than_who_is_in_front_of_it():
    """Exposure turned down across the film: greys move further than to another patient, patches hardly."""
    image, other = (draw(index, seed=3).image for index in (0, 1))
    across = np.linspace(1.0, 0.6, image.shape[1])
    darker = (image * across).astype(np.uint8)
    copy, stranger = (
        {
            name: np.linalg.norm(encode(encoder, shown) - encode(encoder, image))
            for name, encoder in (("patches", Patches()), ("pixels", Pixels(side=32)))
        }
        for shown in (darker, other)
    )
    assert copy["patches"] < 0.4 * stranger["patches"]
    assert copy["patches"] / stranger["patches"] < 0.5 * copy["pixels"] / stranger["pixels"]


def test_air_and_noise_are_not_blown_up():
    noisy = np.random.default_rng(0).integers(8, 11, (256, 256), dtype=np.uint8)
    assert np.abs(encode(Patches(), noisy)).max() < 0.1
    assert not encode(Patches(), np.full((40, 40), 200, np.uint8)).any()


@pytest.mark.slow
def test_planted_copies_come_first(shared):
    """Four of 80 generated images are near-copies of training images: they lead the ratio to the held-out set."""
    folder = shared / "data" / "cxr"

    def table(name):
        with open(folder / name, newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream))

    encoder = Patches()

    def features(paths):
        return np.stack([encode(encoder, np.asarray(Image.open(path).convert("L"))) for path in paths]).astype(float)

    def nearest(x, y):
        return np.sqrt(((x[:, None] - y[None]) ** 2).sum(-1).min(1))

    names = [row["img_savename"] for row in table("synthetic_seeds.csv")]
    planted = {row["img_savename"] for row in table("planted_copies.csv")}
    training = [row["path"] for row in table("real_train.csv")]
    sources = {row["path"] for row in table("planted_copies.csv")}
    assert sources <= set(training)
    kept = sorted(sources | set(training[::4]))
    generated = features([folder / "synthetic_seeds" / name for name in names])
    unseen = features([folder / row["path"] for row in table("real_test.csv")[::2]])
    ratio = nearest(generated, features([folder / path for path in kept])) / nearest(generated, unseen)
    assert {names[index] for index in np.argsort(ratio)[: len(planted)]} == planted
    assert np.sort(ratio)[len(planted) - 1] < 0.7 < np.sort(ratio)[len(planted)]


def test_settings_are_checked():
    assert Patches(side=24, patch=6).resolve().outputs == {"features": 576}
    assert Patches(side=24, patch=6).resolve().fingerprint != Patches(side=24, patch=8).resolve().fingerprint
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"side": 30}, "side 30 is not a multiple of patch 8"),
        ({"patch": 1}, "a patch has one cell"),
        ({"side": 0}, "side is 0; expected 1 to 256"),
        ({"patches": 4}, "Did you mean 'patch'"),
        ({"weights": "x.pth"}, "patches has no weights"),
    )
    for options, message in cases:
        with pytest.raises(ConfigError, match=message):
            Patches(**options)
