"""How the pixels of a DICOM file are encoded where it does not say, and decoders that pydicom has no plug-in for."""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from chexray.data.headers import jpeg_frame, jpeg_segments
from chexray.data.rejects import Reject

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

JPEG = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 57, 70))
JPEG_LS = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (80, 81))
JPEG_2000 = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (90, 91, 92, 93, 201, 202, 203))
RLE = "1.2.840.10008.1.2.5"
NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
_FRAMES = {0xC0: 50, 0xC1: 51, 0xC3: 70, 0xF7: 80}
"""Marker of a frame of JPEG -> last number of the syntax that holds such frames."""
REMEDY = "pip install 'chexray[dicom]' (imagecodecs, BSD licence) decodes it"


def syntax_of(dataset: Dataset) -> str:
    """The transfer syntax that the file names, "" for none."""
    return str(getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", "") or "")


def settle_syntax(dataset: Dataset) -> None:
    """Names the transfer syntax of a file that does not: native, as pydicom read it, or what the pixels begin like."""
    if syntax_of(dataset) or "PixelData" not in dataset:
        return
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import UID

    implicit, little = dataset.original_encoding
    found = NATIVE[0 if implicit else 1 if little is not False else 2]
    data = bytes(dataset.PixelData[: 1 << 16])
    if dataset["PixelData"].is_undefined_length or data[:4] == b"\xfe\xff\x00\xe0":
        found = _encapsulated(data)
    if not hasattr(dataset, "file_meta"):
        dataset.file_meta = FileMetaDataset()
    if found:
        dataset.file_meta.TransferSyntaxUID = UID(found)


def _encapsulated(data: bytes) -> str:
    """The syntax of compressed pixels, by what the first fragment begins with; "" for none that is known."""
    begin = data.find(b"\xff\xd8\xff")
    if data.find(b"\xff\x4f\xff\x51") >= 0:
        return "1.2.840.10008.1.2.4.91"
    for marker, _, _ in jpeg_segments(data[begin:]) if begin >= 0 else ():
        if marker in _FRAMES:
            return f"1.2.840.10008.1.2.4.{_FRAMES[marker]}"
    return ""


@cache
def imagecodecs() -> Any:
    """The package, or None where it is not installed."""
    return importlib.import_module("imagecodecs") if importlib.util.find_spec("imagecodecs") else None


def decodes(dataset: Dataset, frame: bytes) -> bool:
    """Whether imagecodecs is to decode the frame: JPEG of more than 8 bits or lossless, and JPEG-LS, grey or RGB."""
    syntax, samples = syntax_of(dataset), int(dataset.get("SamplesPerPixel") or 1)
    if imagecodecs() is None or not (samples == 1 or dataset.PhotometricInterpretation == "RGB"):
        return False
    if syntax in JPEG_LS or (syntax in JPEG and syntax[-2:] in ("57", "70")):
        return True
    return syntax in JPEG and samples == 1 and _bits(frame) > 8


def decoded(dataset: Dataset, frame: bytes) -> np.ndarray:
    """(h, w) or (h, w, 3) of the frame, of the type that BitsAllocated and PixelRepresentation name. Its size was
    checked."""
    codecs = imagecodecs()
    pixels = codecs.jpegls_decode(frame) if syntax_of(dataset) in JPEG_LS else codecs.jpeg8_decode(frame)
    pixels = pixels.astype(f"u{max(pixels.dtype.itemsize, int(dataset.BitsAllocated) // 8)}", copy=False)
    if not dataset.get("PixelRepresentation"):
        return pixels
    # The stream knows no sign: bit BitsStored - 1 is it.
    unused = pixels.dtype.itemsize * 8 - min(int(dataset.BitsStored), max(_bits(frame), 1))
    return (pixels << unused).view(f"i{pixels.dtype.itemsize}") >> unused


def _bits(frame: bytes) -> int:
    found = jpeg_frame(frame) if frame.startswith(b"\xff\xd8") else None
    return found[3] if found else 0


def missing(dataset: Dataset, frame: bytes) -> Reject | None:
    """The Reject of a frame that no installed package decodes but one that may be installed does."""
    from pydicom.pixels.decoders.base import get_decoder

    syntax = syntax_of(dataset)
    if imagecodecs() is not None or syntax not in JPEG | JPEG_LS:
        return None
    deep = syntax in JPEG and syntax[-2:] in ("50", "51") and _bits(frame) > 8
    # Where Pillow is asked for 12 bits, or nothing is installed for the syntax.
    if not deep and get_decoder(syntax).is_available:
        return None
    name = "JPEG of 12 bits" if deep else "JPEG-LS" if syntax in JPEG_LS else "JPEG Lossless"
    return Reject("unsupported", f"DICOM with the transfer syntax {syntax} ({name}): {REMEDY}")
