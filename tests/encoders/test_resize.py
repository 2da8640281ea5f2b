"""Named resizes against the implementations they are named after."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from chexray.encoders.resize import MAX_ASPECT, RESIZES, centre_crop, cover, resize
from chexray.errors import ConfigError


def test_clean_fid_resize_is_pillow_on_floats_clipped_and_not_rounded(greys):
    for image in greys:
        reference = Image.fromarray(image.astype(np.float32)).resize((299, 299), Image.Resampling.BICUBIC)
        found = resize(image, 299, 299, "bicubic_antialias")
        np.testing.assert_array_equal(found, np.clip(np.asarray(reference), 0, 255))
        assert found.dtype == np.float32
    checkerboard = (np.indices((40, 40)).sum(0) % 2 * 255).astype(np.uint8)
    found = resize(checkerboard, 299, 299, "bicubic_antialias")
    assert found.min() == 0
    assert found.max() == 255
    assert np.any(found != np.round(found))


def test_antialiased_bilinear_is_what_torchmetrics_uses(greys):
    import torch

    for image in greys:
        tensor = torch.from_numpy(image.astype(np.float32))[None, None]
        reference = torch.nn.functional.interpolate(
            tensor, size=(299, 299), mode="bilinear", align_corners=False, antialias=True
        )
        np.testing.assert_allclose(resize(image, 299, 299, "bilinear_antialias"), reference[0, 0].numpy(), atol=2e-4)


def test_tf1_bilinear_is_bit_equal_to_torch_fidelity(greys):
    torch = pytest.importorskip("torch")
    compat = pytest.importorskip("torch_fidelity.interpolate_compat_tensorflow", reason="torch-fidelity not installed")
    for image in greys:
        tensor = torch.from_numpy(image.astype(np.float32))[None, None]
        reference = compat.interpolate_bilinear_2d_like_tensorflow1x(tensor, size=(299, 299), align_corners=False)
        np.testing.assert_array_equal(resize(image, 299, 299, "tf1_bilinear"), reference[0, 0].numpy())


def test_byte_resizes_are_pillows_on_rgb(greys):
    for name, sampling in (("pil_bilinear", Image.Resampling.BILINEAR), ("pil_bicubic", Image.Resampling.BICUBIC)):
        for image in greys:
            rgb = np.asarray(Image.fromarray(image).convert("RGB").resize((299, 299), sampling))
            np.testing.assert_array_equal(resize(image, 299, 299, name), rgb[..., 0])


@pytest.mark.parametrize("name", RESIZES)
def test_every_resize_keeps_constants_and_its_promised_dtype(name):
    found = resize(np.full((50, 31), 137, np.uint8), 299, 299, name)
    assert found.dtype == RESIZES[name].dtype
    np.testing.assert_allclose(found, 137, atol=1e-4)


def test_cover_and_crop_are_torchvisions(greys):
    from torchvision.transforms import functional as vision

    for image in greys[:3]:
        picture = vision.resize(Image.fromarray(image), [60], vision.InterpolationMode.BICUBIC)
        found = cover(image, 60, "bicubic")
        np.testing.assert_array_equal(found, np.asarray(picture))
        cropped = np.asarray(vision.center_crop(picture, [37, 37]))
        np.testing.assert_array_equal(centre_crop(found, 37, 37, half_to_even=True), cropped)


def test_a_strip_of_one_row_does_not_ask_for_gigabytes():
    strip = np.arange(30_000, dtype=np.uint64).astype(np.uint8)[None]
    assert cover(strip, 518, "bicubic").shape == (518, 518 * MAX_ASPECT)
    assert cover(strip.T, 518, "bicubic").shape == (518 * MAX_ASPECT, 518)


def test_wrong_input_is_named():
    with pytest.raises(ConfigError, match=r"unknown resize 'bilinear'.*tf1_bilinear"):
        resize(np.zeros((4, 4), np.uint8), 2, 2, "bilinear")
    for image in (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.float32), np.zeros((0, 4), np.uint8)):
        with pytest.raises(ValueError, match="uint8 image"):
            resize(image, 2, 2, "pil_bilinear")
    with pytest.raises(ValueError, match="cannot crop 5x5"):
        centre_crop(np.zeros((4, 4), np.uint8), 5, 5)
