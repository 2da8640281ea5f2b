"""DICOM radiographs to uint8 as a viewer shows them: rescale, window, then MONOCHROME1 inverted.

Only the elements that describe pixels are parsed, and no message quotes a value, so patient data stay in the file.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from chexray.data.decoding import Reject, check_size, quiet

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


def decode_dicom(data: bytes, max_pixels: int) -> np.ndarray | Reject:
    """The single frame of a DICOM file, (height, width) uint8, or a Reject.

    Greyscale goes through the modality LUT or rescale, then the VOI LUT, else the first window (LINEAR, LINEAR_EXACT
    or SIGMOID, PS3.3 C.11.2), else the full range of BitsStored; that becomes 0..255. RGB of 8 bits becomes luma.
    """
    import pydicom
    from pydicom.errors import InvalidDicomError
    from pydicom.pixels.utils import pixel_array

    quiet()
    if DEFLATED in data[:4096]:
        # Inflating happens while reading, without a limit: 1 MB can become gigabytes.
        return Reject("unsupported", "DICOM with the deflated transfer syntax. Convert it to explicit little endian.")
    try:
        dataset = pydicom.dcmread(io.BytesIO(data), force=True, specific_tags=list(PIXEL_ELEMENTS))
    except (InvalidDicomError, EOFError, OSError):
        return Reject("truncated", f"the DICOM file ends early, after {len(data)} bytes")
    if "PixelData" not in dataset:
        return Reject("no_pixels", "DICOM without integer pixel data")
    if reject := _check(dataset, max_pixels):
        return reject
    try:
        pixels = pixel_array(dataset)
    except MemoryError:
        raise
    except Exception as error:
        return _reject_undecoded(dataset, error)
    if pixels.ndim == 3:
        from PIL import Image

        return np.array(Image.fromarray(pixels).convert("L"))
    if pixels.dtype.itemsize > 2:
        return to_grey(pixels, dataset)
    # A table over all stored values: exact in float64 without a float64 image.
    values = np.arange(np.iinfo(pixels.dtype).min, np.iinfo(pixels.dtype).max + 1, dtype=pixels.dtype)
    return to_grey(values, dataset)[pixels.astype(np.int32) - int(values[0])]


def _check(dataset: Dataset, max_pixels: int) -> Reject | None:
    """What can be refused before pixels are decoded."""
    if int(dataset.get("NumberOfFrames") or 1) > 1:
        return Reject("animated", f"DICOM of {int(dataset.NumberOfFrames)} frames")
    if reject := check_size(int(dataset.get("Columns") or 0), int(dataset.get("Rows") or 0), max_pixels):
        return reject
    kind, bits = str(dataset.get("PhotometricInterpretation")), int(dataset.get("BitsAllocated") or 0)
    grey = kind in ("MONOCHROME1", "MONOCHROME2")
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
