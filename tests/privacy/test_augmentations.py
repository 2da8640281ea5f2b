"""Augmentations: the same shape, the size of change they promise, and no dependence on anything but their arguments."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from chexray.phantom import draw
from chexray.privacy.augmentations import AUGMENTATIONS, CROP_SHARE, JPEG_QUALITY

CHANGED = [name for name in AUGMENTATIONS if name != "identity"]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    image = draw(3, seed=2, size=128).image[:, :112].copy()
    image.setflags(write=False)
    return image


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_shape_and_type_stay_and_the_original_too(name, image):
    before = image.copy()
    for original in (image, np.asfortranarray(image), image[::2, ::-1], np.full((1, 1), 7, np.uint8)):
        changed = AUGMENTATIONS[name](original, rng())
        assert changed.shape == original.shape
        assert changed.dtype == np.uint8
        assert changed.flags.c_contiguous
        assert not np.shares_memory(changed, original)
    assert np.array_equal(image, before)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_equal_generators_give_equal_images(name, image):
    assert np.array_equal(AUGMENTATIONS[name](image, rng(4)), AUGMENTATIONS[name](image, rng(4)))


@pytest.mark.parametrize("name", CHANGED)
def test_every_change_is_one_but_a_small_one(name, image):
    changed = AUGMENTATIONS[name](image, rng())
    assert (changed != image).mean() > 0.3
    seen = changed[:, ::-1] if name == "flip" else changed
    assert np.corrcoef(seen.ravel(), image.ravel())[0, 1] > 0.9


@pytest.mark.parametrize("name", ["contrast", "rotation", "noise", "combined"])
def test_random_ones_differ_between_generators(name, image):
    found = {AUGMENTATIONS[name](image, rng(seed)).tobytes() for seed in range(12)}
    assert len(found) >= 4


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize(
    "wrong", [np.zeros((4, 4), np.float32), np.zeros((4, 4, 3), np.uint8), np.zeros((0, 4), np.uint8)]
)
def test_other_arrays_are_refused(name, wrong):
    with pytest.raises(ValueError, match=r"\(h, w\) uint8"):
        AUGMENTATIONS[name](wrong, rng())


def test_identity_and_flip(image):
    assert np.array_equal(AUGMENTATIONS["identity"](image, rng()), image)
    assert np.array_equal(AUGMENTATIONS["flip"](image, rng()), np.fliplr(image))


def test_a_crop_takes_four_percent_of_each_side():
    """On a ramp: the value at each end is the one 4 % further in."""
    ramp = np.linspace(0, 250, 251).astype(np.uint8)[None, :].repeat(101, axis=0)
    cropped = AUGMENTATIONS["crop"](ramp, rng()).astype(float)
    assert cropped[50, 0] == pytest.approx(251 * CROP_SHARE, abs=1)
    assert cropped[50, -1] == pytest.approx(250 - 251 * CROP_SHARE, abs=1)
    rows = AUGMENTATIONS["crop"](np.ascontiguousarray(ramp.T), rng()).astype(float)
    assert np.abs(rows - cropped.T).max() <= 1


def test_contrast_is_gain_about_the_mean_then_gamma(image):
    """Against the formula in float, for whichever gain and gamma were drawn."""
    mean = image.mean()
    expected = [
        255 * (np.clip(mean + gain * (image - mean), 0, 255) / 255) ** gamma
        for gain in (0.8, 1.2)
        for gamma in (0.85, 1.15)
    ]
    matched = set()
    for seed in range(20):
        changed = AUGMENTATIONS["contrast"](image, rng(seed)).astype(float)
        errors = [np.abs(changed - each).max() for each in expected]
        assert min(errors) <= 0.5 + 1e-9
        matched.add(int(np.argmin(errors)))
    assert matched == {0, 1, 2, 3}


def test_noise_has_five_grey_levels():
    flat = np.full((200, 200), 128, np.uint8)
    added = AUGMENTATIONS["noise"](flat, rng()).astype(float) - 128
    assert added.std() == pytest.approx(5, rel=0.02)
    assert abs(added.mean()) < 0.1


def test_rotation_is_two_to_three_degrees_without_black_corners(image):
    """Against scipy's rotation at every angle of the range; and a bright image stays bright in its corners."""
    angles = []
    for seed in range(8):
        turned = AUGMENTATIONS["rotation"](image, rng(seed)).astype(float)
        inner = (slice(12, -12), slice(12, -12))
        tried = np.concatenate([np.arange(-3.1, -1.9, 0.1), np.arange(1.9, 3.1, 0.1)])
        errors = [
            np.abs(ndimage.rotate(image.astype(float), a, reshape=False, mode="nearest")[inner] - turned[inner]).mean()
            for a in tried
        ]
        assert min(errors) < 1.5
        angles.append(tried[int(np.argmin(errors))])
    assert min(np.abs(angles)) > 1.95
    assert max(np.abs(angles)) < 3.05
    assert {np.sign(angle) for angle in angles} == {-1.0, 1.0}
    assert AUGMENTATIONS["rotation"](np.full((40, 90), 200, np.uint8), rng()).min() == 200


def test_jpeg_is_what_pillow_reads_back(image):
    packed = io.BytesIO()
    Image.fromarray(image).save(packed, format="JPEG", quality=JPEG_QUALITY)
    assert np.array_equal(AUGMENTATIONS["jpeg"](image, rng()), np.asarray(Image.open(packed)))
