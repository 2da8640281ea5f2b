"""Hash and digest: the law of the mirror to the last bit, parity with scipy's transform, copies near and others far."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from scipy.fft import dctn

from chexray.encoders.perceptual_hash import BITS, NEAR_BITS, SIDE, PerceptualHash
from chexray.errors import ConfigError
from chexray.phantom import draw

ENCODER = PerceptualHash()


def encode(images):
    return ENCODER.encode(np.stack([ENCODER.prepare(image) for image in images]))


def hashes(images):
    return encode(images)["features"]


def bits(left, right):
    """Differing bits of rows in pairs: squared distance / 4."""
    return ((left.astype(float) - right) ** 2).sum(-1) / 4


def jpeg(image, quality):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))


def crop(image, share):
    height, width = image.shape
    top, left = round(height * share), round(width * share)
    inside = Image.fromarray(image[top : height - top, left : width - left])
    return np.asarray(inside.resize((width, height), Image.Resampling.BICUBIC))


def contrast(image, factor):
    return np.clip(128 + factor * (image - 128.0), 0, 255).astype(np.uint8)


def noise(image):
    return np.clip(image + np.random.default_rng(0).normal(0, 5, image.shape), 0, 255).astype(np.uint8)


def rotate(image, degrees):
    return np.asarray(Image.fromarray(image).rotate(degrees, Image.Resampling.BICUBIC))


# Most bits a copy may move: the measured 99 % of real images (docstring of the module) with room for other sets.
COPIES = {
    "crop of 2 %": (lambda x: crop(x, 0.02), 32),
    "more contrast": (lambda x: contrast(x, 1.2), 10),
    "less contrast": (lambda x: contrast(x, 0.8), 10),
    "brighter": (lambda x: np.clip(x + 20.0, 0, 255).astype(np.uint8), 16),
    "noise": (noise, 16),
    "rotation": (lambda x: rotate(x, 2), 32),
    "JPEG": (lambda x: jpeg(x, 50), 16),
    "half the size": (lambda x: np.asarray(Image.fromarray(x).reduce(2)), 4),
}


@pytest.fixture(scope="module")
def phantoms():
    return [draw(index, seed=5, size=192).image for index in range(12)]


@pytest.fixture(scope="module")
def radiographs(shared):
    folder = shared / "data" / "cxr" / "real" / "test"
    paths = sorted(folder.glob("*.jpg"))[::9]
    if not paths:
        pytest.skip(f"no radiographs at {folder}")
    patients = np.array([path.name.split("_")[0] for path in paths])
    return patients, [np.asarray(Image.open(path).convert("L")) for path in paths]


def check_mirror(image):
    mirrored = np.ascontiguousarray(image[:, ::-1])
    np.testing.assert_array_equal(hashes([mirrored]), hashes([image]) * PerceptualHash.mirror_signs())


def test_the_hash_of_the_mirrored_image_follows_exactly(greys, phantoms):
    for image in (*greys, *phantoms):
        check_mirror(image)
    signs = PerceptualHash.mirror_signs()
    assert (signs.dtype, signs.shape, set(signs)) == (np.float32, (BITS,), {-1.0, 1.0})


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_the_law_of_the_mirror_holds_for_any_image(data):
    shape = data.draw(st.tuples(st.integers(1, 90), st.integers(1, 90)))
    check_mirror(data.draw(arrays(np.uint8, shape)))


def test_signs_are_those_of_scipys_transform(phantoms):
    ramp = np.sin(np.pi * (np.arange(SIDE) + 0.5) / SIDE) ** 4
    window = np.outer(ramp, ramp)
    for image in phantoms[:4]:
        cells = image.reshape(SIDE, 3, SIDE, 3).mean((1, 3))
        expected = np.asarray(dctn((cells - np.average(cells, weights=window)) * window, type=2))
        np.testing.assert_array_equal(hashes([image])[0].reshape(16, 16), np.sign(expected[1:17, 1:17]))


def test_squared_distance_is_four_times_the_differing_bits(phantoms):
    left, right = hashes(phantoms[:2])
    assert set(left) == {-1.0, 1.0}
    assert bits(left, right) == np.count_nonzero(left != right)


@pytest.mark.parametrize("copy", COPIES)
def test_copies_of_phantoms_are_near(phantoms, copy):
    change, most = COPIES[copy]
    assert bits(hashes(phantoms), hashes([change(image) for image in phantoms])).max() <= min(most, NEAR_BITS)


@pytest.mark.parametrize("copy", COPIES)
def test_copies_of_radiographs_are_near(radiographs, copy):
    change, most = COPIES[copy]
    _, images = radiographs
    assert bits(hashes(images), hashes([change(image) for image in images])).max() <= min(most, NEAR_BITS)


def test_a_crop_of_4_percent_is_found_nine_times_in_ten_also_mirrored(radiographs):
    _, images = radiographs
    mirrored = [np.ascontiguousarray(crop(image, 0.04)[:, ::-1]) for image in images]
    distances = bits(hashes(images), hashes(mirrored) * PerceptualHash.mirror_signs())
    assert (distances <= NEAR_BITS).mean() >= 0.9
    assert (bits(hashes(images), hashes(mirrored)) > NEAR_BITS).all()


def test_no_other_patient_is_near(radiographs):
    patients, images = radiographs
    found = hashes(images)
    either = np.minimum(*(bits(found[:, None] * signs, found[None]) for signs in (1, PerceptualHash.mirror_signs())))
    others = either[patients[:, None] != patients[None]]
    assert others.min() > NEAR_BITS
    assert np.median(others) > 90


def test_constant_images_are_copies_of_each_other_only(phantoms):
    flat = hashes([np.full((50, 70), grey, np.uint8) for grey in (0, 7, 255)])
    assert not flat.any()
    assert bits(flat[0], hashes(phantoms)).min() == BITS / 4 > NEAR_BITS


def test_equal_digests_are_equal_pixels(greys, tmp_path):
    image = greys[0]
    Image.fromarray(image).save(tmp_path / "a.png", compress_level=0)
    Image.fromarray(image).save(tmp_path / "b.png", compress_level=9)
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()
    again = [np.asarray(Image.open(tmp_path / name)) for name in ("a.png", "b.png")]
    other = image.copy()
    other[-1, -1] ^= 1
    digests = encode([image, *again, other, image.reshape(image.shape[::-1])])["digest"]
    assert (digests[:3] == digests[0]).all()
    assert len({tuple(row) for row in digests}) == 3
    assert (digests == digests.astype(np.uint16)).all()


def test_strided_images_are_read_as_their_pixels(greys):
    wide = np.zeros((*greys[0].shape, 2), np.uint8)
    wide[..., 0] = greys[0]
    np.testing.assert_array_equal(ENCODER.prepare(wide[..., 0]), ENCODER.prepare(greys[0]))


def test_settings_are_checked():
    with pytest.raises(ConfigError, match="perceptual_hash has no weights"):
        PerceptualHash(weights="x.pth")
    with pytest.raises(ConfigError, match="perceptual_hash has no option 'bits'"):
        PerceptualHash(bits=64)
