"""DICOM radiographs to uint8 as a viewer shows them: rescale, window, then MONOCHROME1 inverted.

Only the elements that describe pixels are parsed, and no message quotes a value, so patient data stay in the file.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from chexray.data.bands import bands
from chexray.data.depth import Depth, Facts, chosen, full_range, levels
from chexray.data.dicom_frames import check_bytes, check_elements, check_frame, only_frame
from chexray.data.dicom_levels import grey_of, is_shifted
from chexray.data.dicom_syntax import RLE, decoded, decodes, missing, settle_syntax, syntax_of
from chexray.data.luma import luma
from chexray.data.memory import BYTES_PER_PIXEL, Lease
from chexray.data.rejects import Reject, check_size

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

PIXEL_ELEMENTS = [
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "RescaleSlope", "RescaleIntercept"),
    *("ModalityLUTSequence", "VOILUTSequence", "VOILUTFunction", "WindowCenter", "WindowWidth"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit", "PresentationLUTShape"),
    *("PixelData", "FloatPixelData", "DoubleFloatPixelData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
]
DEFLATED = b"1.2.840.10008.1.2.1.99"
JPEG_FAMILY = "1.2.840.10008.1.2.4."
_FIRST_GROUPS = (0x02, 0x08, 0x10, 0x18, 0x20, 0x28)
"""Groups that a data set without preamble may begin with."""


def has_magic(data: bytes) -> bool:
    """True for a DICOM file with its 128-byte preamble, whatever that preamble imitates."""
    return data[128:132] == b"DICM"


def looks_bare(data: bytes) -> bool:
    """True for what starts like a DICOM data set without preamble: a known group, a small element number."""
    if len(data) <= 16:
        return False
    if data[:2] == b"\0\x08":  # big endian, which is explicit
        return data[2] == 0 and data[3] < 0x80 and data[4:6].isalpha()
    return data[0] in _FIRST_GROUPS and data[1] == 0 and data[3] == 0 and data[2] < 0x80


def decode_dicom(data: bytes, max_pixels: int, lease: Lease, depth: Depth | None, facts: Facts) -> np.ndarray | Reject:
    """The single frame of a DICOM file, (height, width) uint8, or a Reject. Takes its memory from `lease`.

    Greyscale goes through the modality LUT or rescale, then the VOI LUT, else the first window (LINEAR, LINEAR_EXACT
    or SIGMOID, PS3.3 C.11.2), else the full range of BitsStored; where that is all that is allocated, of `depth`.
    That becomes 0..255. RGB becomes luma. A file that does not name its transfer syntax has the one it was read by.
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
    settle_syntax(dataset)
    if reject := check_elements(dataset) or _check(dataset, max_pixels) or check_frame(dataset):
        return reject
    facts.container = "DICOM"
    facts.mode = f"{dataset.PhotometricInterpretation}, {int(dataset.BitsStored)} of {int(dataset.BitsAllocated)} bits"
    lease.take(int(dataset.Rows) * int(dataset.Columns) * BYTES_PER_PIXEL)
    try:
        pixels, kind = _stored(dataset)
    except MemoryError:
        raise
    except Exception as error:
        return _reject_undecoded(dataset, error)
    if isinstance(pixels, Reject):
        return pixels
    if pixels.ndim == 3:
        return _luma(pixels, kind, dataset, depth, facts)
    if pixels.ndim != 2 or pixels.shape != (dataset.Rows, dataset.Columns):
        return Reject("corrupt", "DICOM whose pixel data have another shape than its header")
    return grey_of(pixels, dataset, depth, facts)


def _stored(dataset: Dataset) -> tuple[np.ndarray | Reject, str]:
    """The stored pixels, (height, width) or (height, width, samples), and their photometric interpretation.

    As `pixel_array` gives them, but for the conversion of YBR to RGB, which needs 12 bytes a sample.
    """
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.pixels.utils import as_pixel_options

    decoder = get_decoder(dataset.file_meta.TransferSyntaxUID)
    if not decoder.is_native and decoder.UID != RLE:
        frame = only_frame(dataset)
        if isinstance(frame, Reject):
            return frame, ""
        if decodes(dataset, frame):
            return decoded(dataset, frame), str(dataset.PhotometricInterpretation)
        if reject := missing(dataset, frame):
            return reject, ""
    options = as_pixel_options(dataset, allow_excess_frames=False)
    if decoder.is_native:
        options["view_only"] = True  # a view of the file's bytes in place of a copy
        options["correct_unused_bits"] = not is_shifted(dataset)  # which it would take the values for
    pixels, found = decoder.as_array(dataset, raw=True, **options)
    return pixels, str(found["photometric_interpretation"])


def _luma(pixels: np.ndarray, kind: str, dataset: Dataset, depth: Depth | None, facts: Facts) -> np.ndarray | Reject:
    """(h, w, 3) uint8 or uint16 to (h, w) uint8, ITU-R 601."""
    from PIL import Image
    from pydicom.pixels.processing import convert_color_space

    height, width, _ = pixels.shape
    if pixels.dtype != np.uint8:
        used = int(dataset.BitsStored)
        bits = chosen(float(pixels.min()), float(pixels.max()), facts, depth=depth, declared=used if used < 16 else 0)
        if isinstance(bits, Reject):
            return bits
    grey = np.empty((height, width), np.uint8)
    for rows in bands(height, width):
        colour = pixels[rows]
        if pixels.dtype != np.uint8:
            grey[rows] = levels(luma(colour), *full_range(bits))
            continue
        if kind in ("YBR_FULL", "YBR_FULL_422"):
            colour = convert_color_space(colour, "YBR_FULL", "RGB")
        grey[rows] = np.asarray(Image.fromarray(colour).convert("L"))
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
    if bits not in ((8, 16, 32) if grey else (8, 16) if kind == "RGB" else (8,)):
        return Reject("unsupported", f"DICOM of {bits} bits {'a pixel' if grey else 'a colour channel'}")
    if not 1 <= int(dataset.get("BitsStored") or 0) <= bits:
        return Reject("corrupt", "DICOM whose BitsStored is not between 1 and BitsAllocated")
    syntax = syntax_of(dataset)
    if not syntax:
        return Reject("unsupported", "DICOM of compressed pixel data that does not name its transfer syntax")
    # JPEG 2000 decoders fill the missing part of a cut stream with grey and do not complain.
    if syntax.startswith(JPEG_FAMILY) and b"\xff\xd9" not in bytes(dataset.PixelData[-64:]):
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
