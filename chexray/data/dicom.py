"""DICOM radiographs to uint8 as a viewer shows them: rescale, window, then MONOCHROME1 inverted.

Only the elements that describe pixels are parsed, and no message quotes a value, so patient data stay in the file.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from chexray.data.bands import bands
from chexray.data.dicom_frames import check_bytes, check_elements, check_frame
from chexray.data.memory import BYTES_PER_PIXEL, Lease
from chexray.data.rejects import Reject, check_size

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

PIXEL_ELEMENTS = [
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "RescaleSlope", "RescaleIntercept"),
    *("ModalityLUTSequence", "VOILUTSequence", "VOILUTFunction", "WindowCenter", "WindowWidth"),
    *("PixelData", "FloatPixelData", "DoubleFloatPixelData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
]
DEFLATED = b"1.2.840.10008.1.2.1.99"
JPEG_FAMILY = "1.2.840.10008.1.2.4."


def has_magic(data: bytes) -> bool:
    """True for a DICOM file with its 128-byte preamble, whatever that preamble imitates."""
    return data[128:132] == b"DICM"


def looks_bare(data: bytes) -> bool:
    """True for what starts like a DICOM data set without preamble: group 2 or 8, an even, small element number."""
    return len(data) > 16 and data[:2] in (b"\x02\x00", b"\x08\x00") and data[3] == 0 and data[2] < 0x80


def decode_dicom(data: bytes, max_pixels: int, lease: Lease) -> np.ndarray | Reject:
    """The single frame of a DICOM file, (height, width) uint8, or a Reject. Takes its memory from `lease`.

    Greyscale goes through the modality LUT or rescale, then the VOI LUT, else the first window (LINEAR, LINEAR_EXACT
    or SIGMOID, PS3.3 C.11.2), else the full range of BitsStored; that becomes 0..255. RGB of 8 bits becomes luma.
    """
    import pydicom
    from pydicom.errors import InvalidDicomError

    if DEFLATED in data[:4096]:
        # Inflating happens while reading, without a limit: 1 MB can become gigabytes.
        return Reject("unsupported", "DICOM with the deflated transfer syntax. Convert it to explicit little endian.")
    if reject := check_bytes(data):
        return reject
    try:
        dataset = pydicom.dcmread(io.BytesIO(data), force=True, specific_tags=list(PIXEL_ELEMENTS))
    except (InvalidDicomError, EOFError, OSError):
        return Reject("truncated", f"the DICOM file ends early, after {len(data)} bytes")
    if "PixelData" not in dataset:
        return Reject("no_pixels", "DICOM without integer pixel data")
    if reject := check_elements(dataset) or _check(dataset, max_pixels) or check_frame(dataset):
        return reject
    lease.take(int(dataset.Rows) * int(dataset.Columns) * BYTES_PER_PIXEL)
    try:
        pixels, kind = _stored(dataset)
    except MemoryError:
        raise
    except Exception as error:
        return _reject_undecoded(dataset, error)
    if pixels.ndim == 3:
        return _luma(pixels, kind)
    if pixels.ndim != 2 or pixels.shape != (dataset.Rows, dataset.Columns):
        return Reject("corrupt", "DICOM whose pixel data have another shape than its header")
    return _levels(pixels, dataset)


def _stored(dataset: Dataset) -> tuple[np.ndarray, str]:
    """The stored pixels, (height, width) or (height, width, samples), and their photometric interpretation.

    As `pixel_array` gives them, but for the conversion of YBR to RGB, which needs 12 bytes a sample.
    """
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.pixels.utils import as_pixel_options

    decoder = get_decoder(dataset.file_meta.TransferSyntaxUID)
    options = as_pixel_options(dataset, allow_excess_frames=False)
    if decoder.is_native:
        options["view_only"] = True  # a view of the file's bytes in place of a copy
    pixels, found = decoder.as_array(dataset, raw=True, **options)
    return pixels, str(found["photometric_interpretation"])


def _luma(pixels: np.ndarray, kind: str) -> np.ndarray:
    """(h, w, 3) uint8 to (h, w) uint8, ITU-R 601."""
    from PIL import Image
    from pydicom.pixels.processing import convert_color_space

    height, width, _ = pixels.shape
    grey = np.empty((height, width), np.uint8)
    for rows in bands(height, width):
        colour = pixels[rows]
        if kind in ("YBR_FULL", "YBR_FULL_422"):
            colour = convert_color_space(colour, "YBR_FULL", "RGB")
        grey[rows] = np.asarray(Image.fromarray(colour).convert("L"))
    return grey


def _levels(pixels: np.ndarray, dataset: Dataset) -> np.ndarray:
    """(h, w) of stored values to display grey levels, a band at a time: float64 of a whole image is 8 bytes a pixel."""
    height, width = pixels.shape
    grey = np.empty((height, width), np.uint8)
    if pixels.dtype.itemsize > 2:
        for rows in bands(height, width):
            grey[rows] = to_grey(pixels[rows], dataset)
        return grey
    # A table over all stored values: exact in float64 without a float64 image.
    values = np.arange(np.iinfo(pixels.dtype).min, np.iinfo(pixels.dtype).max + 1, dtype=pixels.dtype)
    table = to_grey(values, dataset)
    for rows in bands(height, width):
        grey[rows] = table[pixels[rows].astype(np.int32) - int(values[0])]
    return grey


def _check(dataset: Dataset, max_pixels: int) -> Reject | None:
    """What can be refused before pixels are decoded."""
    if int(dataset.get("NumberOfFrames") or 1) > 1:
        return Reject("animated", f"DICOM of {int(dataset.NumberOfFrames)} frames")
    if reject := check_size(int(dataset.get("Columns") or 0), int(dataset.get("Rows") or 0), max_pixels):
        return reject
    kind, bits = str(dataset.get("PhotometricInterpretation")), int(dataset.get("BitsAllocated") or 0)
    grey = kind in ("MONOCHROME1", "MONOCHROME2")
    if int(dataset.get("SamplesPerPixel") or 1) not in (1, 3):
        return Reject("unsupported", "DICOM of neither 1 nor 3 samples a pixel")
    if not grey and not (kind == "RGB" or kind.startswith("YBR_")):
        return Reject("unsupported", "DICOM whose photometric interpretation is neither MONOCHROME, RGB nor YBR")
    if bits not in ((8, 16, 32) if grey else (8,)):
        return Reject("unsupported", f"DICOM of {bits} bits {'a pixel' if grey else 'a colour channel'}")
    syntax = dataset.file_meta.get("TransferSyntaxUID", "") if hasattr(dataset, "file_meta") else ""
    # JPEG 2000 decoders fill the missing part of a cut stream with grey and do not complain.
    if str(syntax).startswith(JPEG_FAMILY) and b"\xff\xd9" not in bytes(dataset.PixelData[-64:]):
        return Reject("truncated", "DICOM whose compressed pixel data end early")
    return None


def _reject_undecoded(dataset: Dataset, error: Exception) -> Reject:
    """Unsupported, truncated or corrupt. pydicom's own words are used only to tell which."""
    words = str(error)
    if isinstance(error, NotImplementedError) or "missing dependencies" in words:
        syntax = dataset.file_meta.get("TransferSyntaxUID", None) if hasattr(dataset, "file_meta") else None
        return Reject("unsupported", f"no decoder for the DICOM transfer syntax {getattr(syntax, 'name', '')!a}")
    if "less than" in words or isinstance(error, EOFError):
        return Reject("truncated", "DICOM with fewer pixels than its header announces")
    return Reject("corrupt", f"the DICOM pixel data cannot be decoded ({type(error).__name__})")


def to_grey(stored: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Stored values, any shape, to display grey levels 0..255 as uint8."""
    bits, signed = int(dataset.BitsStored), bool(dataset.PixelRepresentation)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    if dataset.get("ModalityLUTSequence"):
        values, high = _lookup(stored, dataset.ModalityLUTSequence[0])
        low = 0
    else:
        slope, intercept = (float(dataset.get(name) or 0) for name in ("RescaleSlope", "RescaleIntercept"))
        slope = slope or 1.0  # absent, or a zero that would erase the image
        values = stored.astype(np.float64) * slope + intercept
        low, high = sorted((low * slope + intercept, high * slope + intercept))

    if dataset.get("VOILUTSequence"):
        values, high = _lookup(values, dataset.VOILUTSequence[0])
        level = values / high
    elif dataset.get("WindowCenter") not in (None, "") and dataset.get("WindowWidth") not in (None, ""):
        center, width = (float(np.ravel(element)[0]) for element in (dataset.WindowCenter, dataset.WindowWidth))
        level = window(values, center, width, str(dataset.get("VOILUTFunction") or "LINEAR"))
    else:
        level = (values - low) / (high - low)
    level = np.clip(level, 0, 1)
    return np.rint(255 * (1 - level if dataset.PhotometricInterpretation == "MONOCHROME1" else level)).astype(np.uint8)


def _lookup(values: np.ndarray, item: Dataset) -> tuple[np.ndarray, float]:
    """Values through one LUT item, and the greatest level it can hold; beyond its ends the end entries count.

    pydicom's own fails on tables of 10 and 12 bits, which are the common ones ("uint12" is no type).
    """
    entries, first, bits = (int(number) for number in item.LUTDescriptor)
    data = item.LUTData
    if isinstance(data, bytes):
        # Entries of 8 bits may be packed two to a word.
        words = ">u2" if item.original_encoding[1] is False else "<u2"
        data = np.frombuffer(data, np.uint8 if len(data) == entries else words)
    table = np.asarray(data, np.float64)[: entries or 2**16]
    return table[np.clip(np.rint(values).astype(np.int64) - first, 0, len(table) - 1)], 2.0**bits - 1


def window(values: np.ndarray, center: float, width: float, function: str = "LINEAR") -> np.ndarray:
    """Values to display levels, 0 to 1 inside the window and possibly beyond outside (PS3.3 C.11.2.1.2, C.11.2.1.3)."""
    if width < (1 if function == "LINEAR" else np.finfo(float).tiny):
        raise ValueError("window width out of range")
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -700, 700)))
    if function == "LINEAR_EXACT":
        return (values - center) / width + 0.5
    if width == 1:
        return (values > center - 0.5).astype(np.float64)
    return (values - (center - 0.5)) / (width - 1) + 0.5
