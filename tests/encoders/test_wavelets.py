"""The weight-free encoder of fine structure: a true wavelet transform, and what it shows that area averages hide."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from PIL import Image, ImageFilter

from chexray.encoders import wavelets
from chexray.encoders.pixels import Pixels
from chexray.encoders.wavelets import Wavelets, on_grid
from chexray.errors import ConfigError
from chexray.metrics.base import Rows
from chexray.metrics.kid import KID

PUBLISHED = (0.4829629131445341, 0.8365163037378079, 0.2241438680420134, -0.1294095225512604)
"""Daubechies, Orthonormal bases of compactly supported wavelets (1988), table 1, N = 2."""


def encode(encoder, image) -> np.ndarray:
    return encoder.encode(encoder.prepare(np.asarray(image))[None])["features"][0]


def parts(encoder: Wavelets, image) -> tuple[np.ndarray, np.ndarray]:
    """(strength, evenness), each (bands, 16), the finest band first."""
    both = encode(encoder, image).reshape(encoder.bands, 2, 16)
    return both[:, 0], both[:, 1]


def blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(sigma))) if sigma else image


def kid(encoder, real, synthetic) -> float:
    rows = [
        Rows(np.arange(len(side)).astype(str), np.stack([encode(encoder, image) for image in side]))
        for side in (real, synthetic)
    ]
    value = KID().score_images(*rows, floor=False)[0][0].value
    assert value is not None
    return value


def test_the_filters_are_daubechies_and_make_an_orthonormal_basis():
    np.testing.assert_allclose(wavelets.LOW_PASS, PUBLISHED, atol=1e-15)
    n = 16
    rows = []
    for taps in (wavelets.LOW_PASS, wavelets.HIGH_PASS):
        rows += [np.roll(np.pad(taps, (0, n - 4)), 2 * place) for place in range(n // 2)]
    np.testing.assert_allclose(np.array(rows) @ np.array(rows).T, np.eye(n), atol=1e-15)
    ramp = np.arange(4) * 3.0 + 7
    assert wavelets.HIGH_PASS @ ramp == pytest.approx(0, abs=1e-13)


def test_one_level_is_the_matrix_product_written_out():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(16, 16))
    matrix = np.zeros((16, 18))
    for place in range(8):
        matrix[place, 2 * place : 2 * place + 4] = PUBLISHED
        matrix[8 + place, 2 * place : 2 * place + 4] = np.array(PUBLISHED)[::-1] * (1, -1, 1, -1)
    matrix[:, 15] += matrix[:, 16]
    matrix[:, 14] += matrix[:, 17]
    both = matrix[:, :16] @ image @ matrix[:, :16].T
    low, details = wavelets._one_level(image)
    np.testing.assert_allclose(low, both[:8, :8], atol=1e-13)
    found = sorted(float(np.square(block).sum()) for block in details)
    expected = sorted(float(np.square(b).sum()) for b in (both[:8, 8:], both[8:, :8], both[8:, 8:]))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("sigma", [4, 16])
def test_noise_of_known_size_has_that_strength_in_every_band(sigma):
    """An orthonormal transform leaves white noise white; its mean absolute value is sqrt(2 / pi) of its deviation."""
    rng = np.random.default_rng(1)
    noise = np.clip(np.rint(rng.normal(128, sigma, (512, 512))), 0, 255).astype(np.uint8)
    strength, evenness = parts(Wavelets(), noise)
    assert np.abs(strength.mean(1) - np.log2(sigma) / 8).max() < 0.01
    assert np.abs(evenness.mean(1) - (2 / np.pi) ** 0.5).max() < 0.02


def test_constants_and_ramps_are_at_the_floor_and_brightness_does_not_count(greys):
    encoder = Wavelets(side=64)
    lowest = np.log2(wavelets.FLOOR) / 16
    ramp = np.tile(np.arange(64, dtype=np.uint8) * 2 + 40, (64, 1))
    for image in (np.zeros((9, 7), np.uint8), np.full((300, 200), 255, np.uint8)):
        strength, evenness = parts(encoder, image)
        np.testing.assert_allclose(strength, lowest, atol=1e-6)
        np.testing.assert_allclose(evenness, (2 / np.pi) ** 0.5, atol=1e-6)
    np.testing.assert_allclose(parts(encoder, ramp)[0].reshape(2, 4, 4)[:, :, :3], lowest, atol=1e-6)
    image = greys[2] // 2
    np.testing.assert_allclose(encode(encoder, image + 40), encode(encoder, image), atol=1e-6)


def test_cells_are_places():
    image = np.full((256, 256), 100, np.uint8)
    image[70:120, 10:50] = np.random.default_rng(2).integers(60, 140, (50, 40))  # the second cell of the first column
    strength, _ = parts(Wavelets(side=256), image)
    assert set(strength.argmax(1)) == {4}


def test_a_grid_averages_larger_images_and_interpolates_smaller_ones(greys):
    image = np.random.default_rng(3).integers(0, 256, (64, 64)).astype(np.uint8)
    np.testing.assert_array_equal(
        encode(Wavelets(side=64), image.repeat(3, 0).repeat(2, 1)), encode(Wavelets(side=64), image)
    )
    for image in greys:
        grid = on_grid(image, 128)
        assert grid.shape == (128, 128)
        assert image.min() <= grid.min()
        assert grid.max() <= image.max()
    rows = np.array([[0, 100], [50, 150]], np.uint8)
    expected = np.asarray(Image.fromarray(rows.astype(np.float32)).resize((8, 8), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(on_grid(rows, 8), expected, atol=1e-4)


def test_an_image_of_fewer_pixels_lacks_the_finest_bands():
    image = np.random.default_rng(4).integers(0, 256, (256, 256)).astype(np.uint8)
    full, half = (parts(Wavelets(side=256), each)[0] for each in (image, image[::2, ::2]))
    assert full[0].min() - half[0].max() > 1 / 8  # an octave


def test_noise_does_not_stand_for_detail():
    """Blurred, then given noise until the finest band is as strong as it was: the other bands and evenness differ."""
    rng = np.random.default_rng(5)
    edges = (rng.random((256, 256)) < 0.02).astype(float) * 120 + 80
    sharp = np.clip(edges, 0, 255).astype(np.uint8)
    encoder = Wavelets(side=256)
    strength, evenness = parts(encoder, sharp)
    soft = blurred(sharp, 2).astype(float)
    noisy = np.clip(np.rint(soft + rng.normal(0, 2 ** (8 * strength[0].mean()), soft.shape)), 0, 255).astype(np.uint8)
    again, even = parts(encoder, noisy)
    assert abs(again[0].mean() - strength[0].mean()) < 0.02
    assert even[0].mean() - evenness[0].mean() > 0.2


@pytest.mark.parametrize("sigma", [1, 4])
def test_blur_that_area_averages_hide_is_seen(sigma):
    rng = np.random.default_rng(6)
    texture = [blurred(rng.integers(0, 256, (256, 256)).astype(np.uint8), 0.7) for _ in range(60)]
    sharp, same, soft = texture[:30], texture[30:], [blurred(image, sigma) for image in texture[30:]]
    fine, coarse = Wavelets(side=256), Pixels(side=8)
    assert kid(fine, sharp, soft) > 0.01 + 100 * abs(kid(fine, sharp, same))
    assert abs(kid(coarse, sharp, soft)) < 1e-4


@pytest.mark.slow
def test_on_real_radiographs_kid_rises_with_blur_where_that_of_pixels_does_not(shared):
    files = sorted((shared / "data" / "cxr" / "real").rglob("*.jpg"))
    picked = [files[i] for i in np.random.default_rng(0).permutation(len(files))[:80]]
    images = [np.asarray(Image.open(path).convert("L")) for path in picked]
    real, other = images[:40], images[40:]
    fine, coarse = (
        [kid(encoder, real, [blurred(image, sigma) for image in other]) for sigma in (0, 1, 2, 4)]
        for encoder in (Wavelets(), Pixels(side=8))
    )
    assert all(later > earlier + 0.003 for earlier, later in itertools.pairwise(fine)), fine
    assert np.ptp(coarse) < 1e-4, coarse


def test_width_and_settings():
    for side, bands in ((64, 2), (256, 4), (512, 5), (1024, 6)):
        encoder = Wavelets(side=side)
        assert (encoder.bands, encoder.resolve().outputs) == (bands, {"features": 32 * bands})
    assert Wavelets(side=256).resolve().fingerprint != Wavelets().resolve().fingerprint
    with pytest.raises(ConfigError, match="side is 300; expected one of 64, 128, 256"):
        Wavelets(side=300)
    with pytest.raises(ConfigError, match="wavelets has no weights"):
        Wavelets(weights="x.pth")
