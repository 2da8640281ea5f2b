"""LUTs, windows, bits and polarity as radiographs really have them, and files that do not say how they are encoded."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from fixtures.deep_files import RAMP, ramp
from fixtures.hostile_images import dicom

from chexray.data import dicom_syntax
from chexray.data.decoding import decode, decode_and
from chexray.data.depth import Facts
from chexray.data.images import Reject

GREY = np.rint(RAMP * 255)
DATA12 = ramp(4095)


def lut(entries: np.ndarray, first: int = 0, bits: int = 16, *, as_bytes: bool = True):
    """One VOI or modality LUT; `first` is written unsigned."""
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    item = Dataset()
    item.LUTDescriptor = [len(entries) % 65536, first % 65536, bits]
    if as_bytes:
        item.add_new("LUTData", "OW", entries.astype("<u2").tobytes())
    else:
        item.add_new("LUTData", "US", [int(entry) for entry in entries])
    return Sequence([item])


def is_ramp(data: bytes, expected: np.ndarray = GREY, **how) -> bool:
    found = decode(data, **how)
    assert isinstance(found, np.ndarray), found
    return bool(np.abs(found - expected).max() <= 1)


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("top", [255, 1023, 4095, 16383, 65535])
@pytest.mark.parametrize("as_bytes", [True, False])
def test_the_range_of_a_voi_lut_is_that_of_its_entries_whatever_its_descriptor_says(bits, top, as_bytes):
    entries = np.rint(np.arange(4096) / 4095 * top)
    sequence = lut(entries, bits=bits, as_bytes=as_bytes)
    assert is_ramp(dicom(DATA12, VOILUTSequence=sequence))
    assert is_ramp(dicom(DATA12, kind="MONOCHROME1", VOILUTSequence=sequence), 255 - GREY)
    assert is_ramp(dicom(DATA12, ModalityLUTSequence=sequence))


def test_a_first_entry_below_zero_that_is_written_unsigned():
    entries = np.arange(4096)
    rescaled = dicom(DATA12, RescaleIntercept=-2048, RescaleSlope=1, VOILUTSequence=lut(entries, -2048, 12))
    assert is_ramp(rescaled)
    signed = (DATA12.astype(int) - 2048).astype("i2")
    sequence = lut(entries, 0, 12)
    sequence[0].LUTDescriptor = [4096, -2048, 12]
    assert is_ramp(dicom(signed, VOILUTSequence=sequence))
    # Unsigned values of 16 bits do reach 40,000: there it is what it says.
    high = ramp(4095) + np.uint16(40_000)
    assert is_ramp(dicom(high, bits=16, VOILUTSequence=lut(entries, 40_000, 12)))


@pytest.mark.parametrize("width", [0, -1, "", None])
def test_a_width_that_is_none_is_no_window(width):
    assert is_ramp(dicom(DATA12, WindowCenter=0, WindowWidth=width))
    assert is_ramp(dicom(DATA12, WindowCenter=[0, 2047.5], WindowWidth=[0, 4096]))


def test_a_window_below_one_follows_a_small_slope():
    assert is_ramp(dicom(DATA12, RescaleSlope=1 / 8190, RescaleIntercept=0, WindowCenter=0.25, WindowWidth=0.5))


def test_values_may_lie_at_other_bits_than_the_lowest():
    assert is_ramp(dicom(DATA12 << 4, HighBit=15))
    assert is_ramp(dicom(DATA12 << 2, HighBit=13))
    signed = ((DATA12.astype(int) - 2048) << 4).astype("i2")
    assert is_ramp(dicom(signed, HighBit=15))
    # An overlay in the bits below is no part of a value.
    assert is_ramp(dicom(DATA12 << 4 | 5, HighBit=15))


@pytest.mark.parametrize(("kind", "shape", "inverted"), [
    ("MONOCHROME1", "INVERSE", True), ("MONOCHROME2", "IDENTITY", False),
    ("MONOCHROME1", "IDENTITY", False), ("MONOCHROME2", "INVERSE", True),
])  # fmt: skip
def test_the_presentation_lut_says_which_end_is_white(kind, shape, inverted):
    """As DCMTK and dcm4che show such files; those that contradict themselves are counted."""
    facts = Facts()
    found = decode_and(lambda image: image, dicom(DATA12, kind=kind, PresentationLUTShape=shape), facts=facts)
    assert np.abs(found - (255 - GREY if inverted else GREY)).max() <= 1
    assert facts.contradicts == ((kind == "MONOCHROME1") != inverted)


@pytest.mark.parametrize("top", [255, 1023, 4095, 16383, 65535])
def test_all_allocated_bits_declare_no_depth(top):
    assert is_ramp(dicom(ramp(top), bits=16))
    assert is_ramp(dicom(ramp(top), bits=16, RescaleSlope=2, RescaleIntercept=-1000))
    assert is_ramp(dicom(ramp(top, "u4"), bits=32))
    assert is_ramp(dicom(np.dstack([ramp(top)] * 3), bits=16, kind="RGB"))
    if top < 65535:
        assert is_ramp(dicom(ramp(top, "i2"), bits=16))
        assert is_ramp(dicom((ramp(top).astype(int) - (top + 1) // 2).astype("i2"), bits=16))


def test_padding_is_no_part_of_the_depth():
    padded = np.where(np.arange(64) < 4, 65535, DATA12).astype("u2")
    found = decode(dicom(padded, bits=16, PixelPaddingValue=65535))
    assert np.abs(found - GREY)[:, 4:].max() <= 1


def without_meta(data: bytes, *, preamble: bool = False) -> bytes:
    """The data set alone, or with a preamble and a meta group that names no transfer syntax."""
    start = 132 + 12 + struct.unpack_from("<I", data, 140)[0]
    group = b"\x02\x00\x00\x00UL\x04\x00\0\0\0\0"
    return (bytes(128) + b"DICM" + group if preamble else b"") + data[start:]


@pytest.mark.parametrize("preamble", [False, True])
@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"])
def test_a_file_without_its_transfer_syntax(preamble, syntax):
    implicit = {"implicit": True} if syntax == "1.2.840.10008.1.2" else {}
    assert is_ramp(without_meta(dicom(DATA12, **implicit), preamble=preamble))


def test_pydicoms_own_files_without_meta_group():
    from pydicom.data import get_testdata_file

    for name in ("ExplVR_BigEndNoMeta.dcm", "ExplVR_LitEndNoMeta.dcm", "meta_missing_tsyntax.dcm"):
        path = get_testdata_file(name, download=False)
        with open(str(path), "rb") as file:
            found = decode(file.read())
        assert isinstance(found, np.ndarray) or found.code == "no_pixels", (name, found)


def compressed(number: int, stream: bytes, pixels: np.ndarray = DATA12, **more) -> bytes:
    from pydicom.encaps import encapsulate

    return dicom(pixels, syntax=f"1.2.840.10008.1.2.4.{number}", PixelData=encapsulate([stream]), **more)


SIGNED = (DATA12.astype(int) - 2048).astype("i2")
STREAMS = {
    "lossless": (70, DATA12, lambda codecs: codecs.jpeg8_encode(DATA12, lossless=True, bitspersample=12)),
    "lossless, another predictor": (
        57, DATA12, lambda codecs: codecs.jpeg8_encode(DATA12, lossless=True, predictor=5, bitspersample=12),
    ),
    "lossless, signed": (
        70, SIGNED, lambda codecs: codecs.jpeg8_encode(SIGNED.view("u2") & 4095, lossless=True, bitspersample=12),
    ),
    "extended": (51, DATA12, lambda codecs: codecs.jpeg8_encode(DATA12, bitspersample=12, level=98)),
    "JPEG-LS": (80, DATA12, lambda codecs: codecs.jpegls_encode(DATA12)),
    "JPEG-LS, near lossless": (81, DATA12, lambda codecs: codecs.jpegls_encode(DATA12, level=2)),
    "JPEG-LS, signed": (80, SIGNED, lambda codecs: codecs.jpegls_encode(SIGNED.view("u2") & 4095)),
    "HTJ2K": (201, DATA12, lambda codecs: codecs.htj2k_encode(DATA12)),
}  # fmt: skip


@pytest.mark.parametrize("name", STREAMS)
def test_compressed_syntaxes(name):
    codecs = pytest.importorskip("imagecodecs", reason="imagecodecs is not installed: pip install 'chexray[dicom]'")
    number, pixels, encoded = STREAMS[name]
    whole = compressed(number, encoded(codecs), pixels)
    assert is_ramp(whole)
    assert is_ramp(compressed(number, encoded(codecs), pixels, kind="MONOCHROME1"), 255 - GREY)
    for cut in range(len(whole) - 200, 400, -211):
        assert isinstance(decode(whole[:cut]), Reject)


def frame(marker: int, bits: int) -> bytes:
    """A JPEG of 64 x 32 pixels that holds headers and 50 bytes of nothing."""
    header = struct.pack(">BBHBHHB", 0xFF, marker, 11, bits, 32, 64, 1) + b"\1\x11\0"
    return b"\xff\xd8" + header + b"\xff\xda\0\x08\1\1\0\0\0\0" + bytes(50) + b"\xff\xd9"


@pytest.mark.parametrize(("number", "marker", "bits", "words"), [
    (57, 0xC3, 12, "JPEG Lossless"), (70, 0xC3, 16, "JPEG Lossless"), (80, 0xF7, 12, "JPEG-LS"),
    (81, 0xF7, 8, "JPEG-LS"), (51, 0xC1, 12, "JPEG of 12 bits"),
])  # fmt: skip
def test_what_needs_another_package_names_it(monkeypatch, number, marker, bits, words):
    monkeypatch.setattr(dicom_syntax, "imagecodecs", lambda: None)
    pytest.importorskip("pydicom")
    if dicom_syntax.importlib.util.find_spec("gdcm") or dicom_syntax.importlib.util.find_spec("jpeg_ls"):
        pytest.skip("another package decodes it here")
    pixels = DATA12 if bits > 8 else (DATA12 >> 4).astype("u1")
    found = decode(compressed(number, frame(marker, bits), pixels, bits=min(bits, 16)))
    assert found.code == "unsupported"
    assert words in found.detail
    assert "chexray[dicom]" in found.detail


def test_nonsense_in_a_compressed_frame_is_a_reject(capfd):
    pytest.importorskip("imagecodecs", reason="imagecodecs is not installed: pip install 'chexray[dicom]'")
    rng = np.random.default_rng(3)
    for number, marker in ((57, 0xC3), (70, 0xC3), (80, 0xF7), (51, 0xC1)):
        for _ in range(40):
            spoilt = bytearray(frame(marker, 12))
            spoilt[33:83] = rng.bytes(50)
            found = decode(compressed(number, bytes(spoilt)))
            assert isinstance(found, Reject) or found.shape == (32, 64)
    assert capfd.readouterr() == ("", "")


def test_a_compressed_file_without_its_transfer_syntax_is_known_by_its_first_bytes():
    from PIL import Image
    from pydicom.encaps import encapsulate

    sink = io.BytesIO()
    Image.fromarray(DATA12).save(sink, "JPEG2000", irreversible=False, no_jp2=True)
    data = dicom(DATA12, syntax="1.2.840.10008.1.2.4.90", PixelData=encapsulate([sink.getvalue()]))
    assert is_ramp(without_meta(data))
    strange = dicom(DATA12, syntax="1.2.840.10008.1.2.4.90", PixelData=encapsulate([bytes(100)]))
    assert decode(without_meta(strange)).code == "unsupported"
