"""DICOM: the grey levels a viewer would show, and nothing of the patient in any message."""

from __future__ import annotations

import io

import numpy as np
import pytest

from chexray.data.dicom_levels import to_grey, window
from chexray.data.images import Reject, decode

pydicom = pytest.importorskip("pydicom")
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset  # noqa: E402
from pydicom.encaps import encapsulate  # noqa: E402
from pydicom.pixels.processing import apply_windowing  # noqa: E402
from pydicom.sequence import Sequence  # noqa: E402
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless  # noqa: E402

PATIENT = "Mustermann^Erika"
RAMP12 = (np.arange(48 * 64) * 4095 // (48 * 64 - 1)).astype(np.uint16).reshape(48, 64)


def dataset_of(pixels: np.ndarray, *, bits: int = 12, kind: str = "MONOCHROME2", syntax=ExplicitVRLittleEndian, **more):
    """A small DX image; `more` sets or (with None) deletes elements."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    dataset = FileDataset("x", {}, file_meta=meta, preamble=bytes(128))
    dataset.PatientName, dataset.PatientID = PATIENT, "MRN-4711"
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = (3 if pixels.ndim == 3 else 1), kind
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = pixels.dtype.itemsize * 8
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    for name, value in more.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    return dataset


def saved(dataset, **options) -> bytes:
    sink = io.BytesIO()
    dataset.save_as(sink, enforce_file_format=True, **options)
    return sink.getvalue()


def dicom(pixels, **more) -> bytes:
    return saved(dataset_of(pixels, **more))


def table(size: int, first: int, bits: int, values: np.ndarray) -> Sequence:
    item = Dataset()
    item.LUTDescriptor = [size, first, bits]
    item.add_new("LUTData", "OW", values.astype("<u2").tobytes())
    return Sequence([item])


def code(data: bytes, **options) -> str:
    found = decode(data, **options)
    assert isinstance(found, Reject), "an image came out"
    assert "Mustermann" not in found.detail
    assert "4711" not in found.detail
    return found.code


def test_without_a_window_the_stored_bits_are_the_range():
    found = decode(dicom(RAMP12))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, np.rint(RAMP12 / 4095 * 255))
    np.testing.assert_array_equal(decode(dicom((RAMP12 >> 4).astype(np.uint8), bits=8)), RAMP12 >> 4)


def test_implicit_syntax_and_a_missing_preamble():
    np.testing.assert_array_equal(decode(dicom(RAMP12, syntax=ImplicitVRLittleEndian)), decode(dicom(RAMP12)))
    np.testing.assert_array_equal(decode(dicom(RAMP12)[132:]), decode(dicom(RAMP12)))


def test_monochrome1_is_inverted():
    np.testing.assert_array_equal(decode(dicom(RAMP12, kind="MONOCHROME1")), 255 - decode(dicom(RAMP12)))
    windowed = {"WindowCenter": 2000, "WindowWidth": 1000}
    np.testing.assert_array_equal(
        decode(dicom(RAMP12, kind="MONOCHROME1", **windowed)), 255 - decode(dicom(RAMP12, **windowed))
    )


def test_signed_pixels():
    signed = RAMP12.astype(np.int16) - 2048
    np.testing.assert_array_equal(decode(dicom(signed)), decode(dicom(RAMP12)))
    np.testing.assert_array_equal(
        decode(dicom(signed, WindowCenter=0, WindowWidth=400)),
        decode(dicom(RAMP12, WindowCenter=2048, WindowWidth=400)),
    )


def test_rescale_comes_before_the_window():
    found = decode(dicom(RAMP12, RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=1000, WindowWidth=2001))
    np.testing.assert_array_equal(found, np.rint(np.clip((RAMP12 * 2.0 - 1000 - 999.5) / 2000 + 0.5, 0, 1) * 255))
    upside_down = decode(dicom(RAMP12, RescaleSlope=-1, RescaleIntercept=4095))
    assert upside_down[0, 0] == 255
    assert upside_down[-1, -1] == 0


@pytest.mark.filterwarnings("ignore:overflow")  # the reference's own, far outside a narrow sigmoid
@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("center", "width"), [(2048, 4096), (1000, 500), (100, 2), (3000, 1)])
def test_windows_agree_with_pydicom(function, center, width):
    dataset = dataset_of(RAMP12, WindowCenter=center, WindowWidth=width, VOILUTFunction=function)
    reference = apply_windowing(RAMP12, dataset) / 4095
    ours = np.clip(window(RAMP12.astype(np.float64), center, width, function), 0, 1)
    np.testing.assert_allclose(ours, reference, atol=1e-9)
    np.testing.assert_array_equal(decode(saved(dataset)), np.rint(ours * 255))


def test_the_first_of_several_windows_counts():
    several = decode(dicom(RAMP12, WindowCenter=[1000, 3000], WindowWidth=[500, 100]))
    np.testing.assert_array_equal(several, decode(dicom(RAMP12, WindowCenter=1000, WindowWidth=500)))


def test_lookup_tables():
    rising = np.minimum(np.arange(4096) * 2, 4095)
    found = decode(dicom(RAMP12, VOILUTSequence=table(4096, 0, 12, rising)))
    np.testing.assert_array_equal(found, np.rint(rising[RAMP12] / 4095 * 255))
    falling = np.arange(4095, -1, -1)
    found = decode(dicom(RAMP12, ModalityLUTSequence=table(4096, 0, 12, falling)))
    np.testing.assert_array_equal(found, np.rint(falling[RAMP12] / 4095 * 255))


def test_lookup_tables_of_8_bits_and_with_an_offset():
    ends = np.array([0, 100, 200, 255])
    item = table(4, 1000, 8, ends)
    found = decode(dicom(RAMP12, VOILUTSequence=item))
    np.testing.assert_array_equal(found, ends[np.clip(RAMP12.astype(int) - 1000, 0, 3)])
    item[0].LUTData = ends.astype(np.uint8).tobytes()
    np.testing.assert_array_equal(decode(dicom(RAMP12, VOILUTSequence=item)), found)


def test_the_table_over_stored_values_changes_nothing():
    dataset = dataset_of(RAMP12, WindowCenter=1234.5, WindowWidth=777, kind="MONOCHROME1")
    np.testing.assert_array_equal(decode(saved(dataset)), to_grey(RAMP12, dataset, (0, 4095)))
    deep = RAMP12.astype(np.uint32) << 12
    np.testing.assert_array_equal(decode(dicom(deep, bits=24)), np.rint(deep / (2**24 - 1) * 255))


def test_colour_becomes_luma():
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    assert np.abs(decode(dicom(pixels, bits=8, kind="RGB")) - pixels @ [0.299, 0.587, 0.114]).max() <= 0.51


def jpeg_2000() -> bytes:
    dataset = dataset_of(RAMP12)
    dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
    return saved(dataset)


def test_jpeg_2000():
    pytest.importorskip("openjpeg", reason="pylibjpeg-openjpeg is not installed")
    whole = jpeg_2000()
    np.testing.assert_array_equal(decode(whole), decode(dicom(RAMP12)))
    assert {code(whole[:cut]) for cut in range(len(whole) - 100, 400, -97)} <= {"truncated", "no_pixels"}


def test_what_is_refused():
    assert code(dicom(RAMP12, NumberOfFrames=3)) == "animated"
    assert code(dicom(RAMP12, PixelData=None)) == "no_pixels"
    assert code(dicom(RAMP12, Rows=0)) == "no_pixels"
    assert code(dicom(RAMP12, Columns=None)) == "no_pixels"
    assert code(dicom(RAMP12, Rows=30000, Columns=30000)) == "too_large"
    assert code(dicom(RAMP12), max_pixels=48 * 64 - 1) == "too_large"
    assert code(dicom(RAMP12, kind="PALETTE COLOR")) == "unsupported"
    assert code(dicom(np.zeros((4, 4, 3), np.uint16), kind="YBR_FULL")) == "unsupported"
    assert code(dicom(RAMP12, Rows=49)) == "truncated"
    assert code(b"\0" * 128 + b"DICM") in ("no_pixels", "truncated")
    deflated = dataset_of(RAMP12, syntax="1.2.840.10008.1.2.1.99")
    assert code(saved(deflated)) == "unsupported"


def test_a_compression_without_decoder_is_named():
    dataset = dataset_of(RAMP12, syntax="1.2.840.10008.1.2.4.100")
    dataset.PixelData = encapsulate([b"\xff\xd8" + bytes(100) + b"\xff\xd9"])
    found = decode(saved(dataset))
    assert found.code == "unsupported"
    assert "MPEG2" in found.detail


def test_a_cut_file_never_becomes_an_image():
    whole = dicom(RAMP12, WindowCenter=1000, WindowWidth=500)
    codes = {code(whole[:cut]) for cut in [*range(140, len(whole) - 1, 97), len(whole) - 2]}
    assert codes <= {"truncated", "no_pixels"}
    assert "truncated" in codes


def test_broken_headers_never_raise_print_or_quote_the_patient(capfd, caplog):
    whole = dicom(RAMP12, WindowCenter=1000, WindowWidth=500)
    header = whole.index(RAMP12.tobytes()[:64])
    rng = np.random.default_rng(3)
    for _ in range(300):
        broken = bytearray(whole)
        for position in rng.integers(132, header, 4):
            broken[position] = rng.integers(256)
        found = decode(bytes(broken), max_pixels=1_000_000)
        assert "Muster" not in getattr(found, "detail", "")
        assert isinstance(found, Reject) or (found.dtype == np.uint8 and found.ndim == 2)
    assert capfd.readouterr() == ("", "")
    assert caplog.text == ""
