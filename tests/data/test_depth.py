"""One picture in any container gives one 8-bit image: every kind of file of more than 8 bits, and one depth a set."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from fixtures.deep_files import RAMP, chunk, png, ramp, tiff_of
from fixtures.hostile_images import dicom
from PIL import Image

from chexray.data.decoding import decode, decode_and
from chexray.data.depth import Depth, Facts, full_range, holding, holding_all, levels
from chexray.data.images import Reject

GREY = np.rint(RAMP * 255)
CASES = {
    "stored16_data12_nowindow.dcm": (0, 130, 255),
    "voilut_descriptor16_data12.dcm": (0, 130, 255),
    "window_0_0.dcm": (0, 130, 255),
    "miniswhite8.tif": (0, 130, 255),
    "miniswhite16.tif": (0, 130, 255),
    "grey16_values14bit.png": (0, 130, 255),
    "dark8.png": (0, 58, 115),
    "dark16.png": (0, 58, 115),
}


def ends(data: bytes, **how) -> tuple[int, ...]:
    found = decode(data, **how)
    assert isinstance(found, np.ndarray), found
    return tuple(int(found[16, column]) for column in (0, 32, 63))


def within_one(data: bytes, expected: np.ndarray = GREY, **how) -> bool:
    """Whether the image is what is expected, within half a level of the depth it was stored with."""
    found = decode(data, **how)
    assert isinstance(found, np.ndarray), found
    return bool((np.abs(found - expected) <= 1).all())


@pytest.mark.parametrize("name", CASES)
def test_the_cases_decode_as_their_table_says(name, shared):
    data = Path(shared, "cases", "decode", name).read_bytes()
    assert ends(data) == CASES[name]


@pytest.mark.parametrize("top", [255, 1023, 4095, 16383, 65535])
def test_16_bit_png_grey_and_colour_alike(top):
    grey = ramp(top)
    for pixels in (grey, np.dstack([grey] * 3)):
        for how in ({}, {"filters": (0, 1, 2, 3, 4)}, {"adam7": True, "filters": (4, 3)}):
            assert within_one(png(pixels, **how)), how
    opaque = np.full_like(grey, 65535)
    for colours in (1, 3):
        assert within_one(png(np.dstack([grey] * colours + [opaque]), filters=(1, 4)))
        assert not decode(png(np.dstack([grey] * colours + [opaque * 0]))).any()
        half = decode(png(np.dstack([grey] * colours + [opaque // 2])))
        assert np.abs(half - GREY / 2).max() <= 1


def test_16_bit_colour_keeps_its_low_bytes():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 1 << 12, (40, 50, 3)).astype(np.uint16)
    expected = np.rint(pixels @ [0.299, 0.587, 0.114] / 4095 * 255)
    for data in (png(pixels, filters=(4, 2)), tiff_of(pixels, photometric=2), dicom(pixels, bits=12, kind="RGB")):
        assert np.abs(decode(data) - expected).max() <= 1


def test_a_colour_that_means_transparent_is_black():
    grey = ramp(65535)
    clear = chunk(b"tRNS", struct.pack(">H", 65535))
    assert ends(png(grey, chunks=clear)) == (0, 130, 0)


def test_sbit_declares_a_depth_wherever_its_bits_lie():
    """By the standard they lie on top, and the image fills 16 bits; many writers leave them at the bottom."""
    said = chunk(b"sBIT", b"\x0c")
    dark = np.rint(RAMP * 1000).astype(np.uint16)
    assert np.array_equal(decode(png(dark, chunks=said)), np.rint(dark / 4095 * 255))
    above = (dark << 4 | dark >> 8).astype(np.uint16)
    assert np.array_equal(decode(png(above, chunks=said)), np.rint(above / 65535 * 255))
    assert np.array_equal(decode(png(dark << 4, chunks=said)), np.rint((dark << 4) / 65535 * 255))
    colour = png(np.dstack([dark] * 3), chunks=chunk(b"sBIT", b"\x0c\x0c\x0c"))
    assert np.abs(decode(colour) - np.rint(dark / 4095 * 255)).max() <= 1


@pytest.mark.parametrize("how", [{}, {"deflate": True}, {"predictor": 2}])
@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize(("top", "kind"), [(255, "u2"), (4095, "u2"), (4095, "i2"), (65535, "u4"), (2**32 - 1, "u4")])
def test_whole_number_tiff(how, photometric, top, kind):
    pixels = ramp(top, kind)
    pixels = pixels if photometric else (top - pixels.astype(np.int64)).astype(kind)
    assert within_one(tiff_of(pixels, photometric=photometric, **how))


@pytest.mark.parametrize("predictor", [1, 3])
@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize(("top", "kind"), [(1, "f2"), (1, "f4"), (1, "f8"), (255, "f8"), (4095, "f4"), (4095, "f8")])
def test_float_tiff(predictor, photometric, top, kind):
    pixels = ramp(top, kind)
    pixels = pixels if photometric else (top - pixels).astype(kind)
    assert within_one(tiff_of(pixels, photometric=photometric, predictor=predictor))


def test_colour_tiff_of_every_depth():
    for top in (255, 1023, 4095, 16383, 65535):
        pixels = np.dstack([ramp(top)] * 3)
        for how in ({}, {"deflate": True}, {"predictor": 2}):
            assert within_one(tiff_of(pixels, photometric=2, **how)), (top, how)
    assert within_one(tiff_of(np.dstack([ramp(1, "f4")] * 3), photometric=2))


@pytest.mark.parametrize("kind", ["u2", "u4"])
def test_minimum_and_maximum_sample_values_declare_a_whole_depth_only(kind):
    dark = np.rint(RAMP * 1000).astype(kind)
    of = (3, 1) if kind == "u2" else (4, 1)
    assert np.array_equal(decode(tiff_of(dark, t281=(*of, 4095))), np.rint(dark / 4095 * 255))
    # The image's own maximum, as many writers put it there, is no scale.
    assert np.array_equal(decode(tiff_of(dark, t281=(*of, 1000))), np.rint(dark / 1023 * 255))


def test_signed_tiff_needs_a_declared_or_a_given_depth():
    pixels = (np.rint(RAMP * 4095) - 2048).astype("i2")
    found = decode(tiff_of(pixels))
    assert isinstance(found, Reject)
    assert "-12" in found.detail
    assert within_one(tiff_of(pixels), bits=-12)
    wide = pixels.astype("i4")
    assert within_one(tiff_of(wide, t340=(9, 1, 2**32 - 2048), t341=(9, 1, 2047)))


def test_12_packed_bits_are_a_declared_depth():
    dark = np.rint(RAMP * 1000).astype(np.uint16)
    pairs = dark.reshape(-1, 2)
    packed = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], axis=1)
    data = tiff_of(packed.astype(np.uint8).reshape(32, 96), t256=(4, 1, 64), t258=(3, 1, 12), t339=(3, 1, 1))
    assert np.array_equal(decode(data), np.rint(dark / 4095 * 255))


def test_tiff_that_turns_is_turned():
    pixels = ramp(65535)
    for orientation in range(1, 9):
        wide = decode(tiff_of(pixels, t274=(3, 1, orientation)))
        narrow = decode(tiff_of((pixels >> 8).astype("u1"), t274=(3, 1, orientation)))
        assert np.abs(wide.astype(int) - narrow).max() <= 1


def test_a_picture_is_the_same_in_every_container():
    pixels = np.random.default_rng(1).integers(0, 4096, (40, 48)).astype(np.uint16)
    files = [png(pixels), tiff_of(pixels), tiff_of(pixels.astype("f8")), tiff_of(4095 - pixels, photometric=0)]
    files += [
        dicom(pixels),
        dicom(pixels, bits=16),
        dicom(4095 - pixels, kind="MONOCHROME1"),
        dicom(pixels << 4, HighBit=15),
    ]
    images = [decode(data, bits=None) for data in files]
    for image in images[1:]:
        assert np.array_equal(image, images[0])


def test_the_depth_of_a_set_counts_before_the_image():
    dark = np.rint(RAMP * 0.45 * 65535).astype(np.uint16)
    dim = np.rint(RAMP * 0.1 * 65535).astype(np.uint16)  # fills 13 bits
    for data in (png(dim), tiff_of(dim), dicom(dim, bits=16), png(np.dstack([dim] * 3))):
        assert ends(data)[2] == 102  # one that stands alone: 14 bits
        assert ends(data, bits=16)[2] == 26
    assert ends(png(dark), bits=16) == ends(png(dark))


def test_values_beyond_the_depth_are_cut_off_and_told():
    pixels = ramp(5000)
    for data in (png(pixels), tiff_of(pixels), dicom(pixels, bits=16)):
        facts = Facts()
        found = decode_and(lambda image: image, data, depth=Depth(12), facts=facts)
        assert (found[0, -1], facts.clipped, facts.declared) == (255, True, False)
        assert facts.needs == 14
        decode_and(lambda image: image, data, depth=Depth(14), facts=facts)
        assert not facts.clipped


def test_an_image_that_needs_a_depth_is_rejected_in_a_set_without_one():
    for data in (png(ramp(4095)), tiff_of(ramp(4095)), dicom(ramp(4095), bits=16)):
        found = decode_and(lambda image: image, data, depth=Depth(0))
        assert found.code == "unsupported"
        assert "`bits`" in found.detail
    for data in (dicom(ramp(4095), bits=12), dicom(ramp(4095), bits=16, WindowCenter=2048, WindowWidth=4096)):
        assert within_one(data) == bool(decode_and(lambda image: np.abs(image - GREY).max() <= 1, data, depth=Depth(0)))


def test_what_files_declare_counts_before_a_depth_that_was_found_but_not_before_one_that_was_given():
    data = dicom(ramp(1000), bits=12)
    assert decode_and(lambda image: int(image[0, -1]), data, depth=Depth(16)) == 62
    assert decode_and(lambda image: int(image[0, -1]), data, depth=Depth(10, given=True)) == 249


def test_eight_bits_have_no_depth():
    sink = io.BytesIO()
    Image.fromarray(GREY.astype(np.uint8)).save(sink, "PNG")
    for bits in (None, 10, 16):
        assert np.array_equal(decode(sink.getvalue(), bits=bits), GREY)


def test_smallest_depths():
    assert [holding(0, top) for top in (0, 255, 256, 1023, 1024, 4095, 4096, 16384, 65535, 65536, 2**32 - 1)] == [
        *(8, 8, 10, 10, 12, 12, 14, 16, 16, 24, 32)
    ]
    assert (holding(-1, 100), holding(-2048, 2047), holding(-1, 2048)) == (-8, -12, -14)
    assert (holding(0, 1, of_floats=True), holding(0, 1), holding(0, 2.0**33)) == (1, 8, 0)
    assert (
        holding_all([]),
        holding_all([12, 8]),
        holding_all([1, 1]),
        holding_all([1, 8]),
        holding_all([-12, 12]),
    ) == (*(0, 12, 1, 8, -14),)
    assert full_range(-12) == (-2048, 2047)


def test_levels_are_those_of_a_plain_formula():
    rng = np.random.default_rng(2)
    for kind in ("u2", "i2", "u4", "f4"):
        values = rng.integers(0, 30000, (300, 300)).astype(kind)
        assert np.array_equal(levels(values, 100, 20000), np.rint(np.clip((values - 100.0) / 19900, 0, 1) * 255))


def test_depths_travel_as_text():
    for depth in (Depth(), Depth(12), Depth(-12, given=True)):
        assert Depth.parse(str(depth)) == depth
    assert Depth.parse(None) is None


def test_the_seven_containers_of_the_experiment_hold_one_picture_and_the_darkened_pair_another():
    """A slice of tests/calibration/containers.py, which puts 100 radiographs through the whole pipeline."""
    from calibration.containers import DARK, containers, darkened

    picture = np.random.default_rng(5).integers(0, 256, (40, 48)).astype(np.uint8)
    picture[0, :2] = 0, 255
    for name, (_, of) in containers().items():
        assert np.array_equal(decode(of(picture)), picture), name
    for name, (_, of) in darkened().items():
        assert np.array_equal(decode(of(picture)), np.rint(picture * DARK)), name
