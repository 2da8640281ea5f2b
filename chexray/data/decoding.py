"""Image files to arrays: any PNG, JPEG or DICOM to (height, width) uint8 greyscale, or a Reject that says why not.

Pixels keep their native size and are never stretched per image: two images that differ in brightness still do after
decoding. What `decode` returns for given bytes is part of every stored feature (`encoders.base.DECODER_VERSION`).
"""

from __future__ import annotations

import io
import logging
import re
import threading
import warnings
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 64_000_000
"""Three times the largest detectors (about 4300 x 4300); a radiograph above it is an attack or an accident."""
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_NOISY = r"(PIL|pydicom|pylibjpeg|openjpeg|chexray\.data)\b"
_plugins = threading.Lock()


@dataclass(frozen=True)
class Reject:
    """Why one image has no pixels. `transient` is true when another try may bring them.

    `code` is one of not_found, denied, unavailable, unreadable (storage); empty, truncated, corrupt, not_an_image,
    unsupported, animated, no_pixels, too_large, out_of_memory (content). `detail` is one line without patient data.
    """

    code: str
    detail: str
    transient: bool = False


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS) -> np.ndarray | Reject:
    """The image in `data`, (height, width) uint8, or a Reject. Thread-safe and silent; never raises for bad data.

    PNG and JPEG in any mode, single-frame GIF, BMP, TIFF and WebP, and DICOM (see `chexray.data.dicom`).
    Colour becomes ITU-R 601 luma, transparency is laid on black, EXIF orientation and colour profiles are ignored.
    More than 8 bits are shifted by the smallest power of two that holds the image's maximum: scanners store 10 or 12
    bits in 16-bit files, where a shift by 8 leaves them black, and a stretch would make each image its own scale.
    Float pixels are taken in [0, 1] when none exceeds 1, otherwise as whole grey levels. Colour of 16 bits a channel
    keeps its upper 8.
    """
    if not data:
        return Reject("empty", "0 bytes")
    quiet()
    try:
        from chexray.data import dicom

        if dicom.has_magic(data):
            return dicom.decode_dicom(data, max_pixels)
        if data.startswith(PNG_SIGNATURE) and (reject := _check_png(data)):
            return reject
        found = _open(data)
        if isinstance(found, Reject):
            return dicom.decode_dicom(data, max_pixels) if dicom.looks_bare(data) else found
        with found:
            return check_size(*found.size, max_pixels) or _grey(found, data)
    except MemoryError:
        return Reject("out_of_memory", f"no memory to decode an image of {len(data)} bytes", transient=True)
    except Exception as error:  # decoders raise anything at all on hostile bytes
        return Reject("corrupt", f"the decoder failed ({type(error).__name__})")


def check_size(width: int, height: int, max_pixels: int) -> Reject | None:
    """The Reject of an image without pixels or with too many, before any is decoded; None when its size is fine."""
    if width < 1 or height < 1:
        return Reject("no_pixels", f"{width} x {height} pixels")
    if width * height > max_pixels:
        return Reject("too_large", f"{width} x {height} pixels, more than {max_pixels}")
    return None


def quiet() -> None:
    """Keeps decoders from printing: their warnings are not actionable here, and pydicom's quote patient data.

    `warnings.catch_warnings` is not thread-safe, so one filter is put in front of the others, again when a test runner
    has taken it out.
    """
    rule = ("ignore", None, Warning, re.compile(_NOISY), 0)
    if rule not in warnings.filters:
        warnings.filterwarnings("ignore", module=_NOISY)
        logging.getLogger("pydicom").setLevel(logging.CRITICAL)


def _check_png(data: bytes) -> Reject | None:
    """Walks the chunks: Pillow shows a PNG with a flipped byte, or one cut after its last row, without a word."""
    position, animated = len(PNG_SIGNATURE), False
    while position + 12 <= len(data):
        size, kind = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        end = position + 12 + size
        if end > len(data):
            break
        # Upper case marks the chunks pixels depend on; a wrong sum elsewhere (text, time) harms nobody.
        body = memoryview(data)[position + 4 : end - 4]
        if kind[:1].isupper() and zlib.crc32(body) != int.from_bytes(data[end - 4 : end], "big"):
            return Reject("corrupt", f"checksum of PNG chunk {kind.decode('latin-1')!a} does not match")
        if kind == b"acTL":
            animated = int.from_bytes(body[4:8], "big") > 1
        if kind == b"IHDR" and 0 in (int.from_bytes(body[4:8], "big"), int.from_bytes(body[8:12], "big")):
            return check_size(int.from_bytes(body[4:8], "big"), int.from_bytes(body[8:12], "big"), 0)
        if kind == b"IEND":
            return Reject("animated", "an animated PNG") if animated else None
        position = end
    return Reject("truncated", f"the PNG ends after {len(data)} bytes without its end mark")


def _open(data: bytes) -> Image.Image | Reject:
    """The image with its header read and no pixel decoded.

    Not PIL.Image.open: it tries 40 formats (PostScript among them), and answers large images by a warning or by an
    error without their size, from a limit that is global to the process.
    """
    from PIL import Image

    with _plugins:
        Image.init()
    for name in FORMATS:
        factory, accept = Image.OPEN.get(name, (None, None))
        if factory is None or accept is None or accept(data[:16]) is not True:
            continue
        try:
            return factory(io.BytesIO(data), "")
        except (OSError, SyntaxError, ValueError, LookupError, TypeError, EOFError, ArithmeticError) as error:
            return _reject_text(data) or _reject_broken(name, data, error)
        except Exception as error:  # struct.error, and what comes with new versions
            return _reject_broken(name, data, error)
    return _reject_text(data) or Reject("not_an_image", f"{len(data)} bytes of no known image format")


def _reject_text(data: bytes) -> Reject | None:
    if re.search(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]", data[:512]):
        return None
    try:
        data[:512].decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < 500:  # not merely a character cut in two
            return None
    return Reject("not_an_image", "a text file")


def _reject_broken(name: str, data: bytes, error: Exception) -> Reject:
    """Truncated, unsupported or corrupt. The decoder's own words are used only to tell which."""
    words = str(error)
    if "cannot handle" in words or "unsupported" in words.lower():
        return Reject("unsupported", f"a kind of {name} that is not supported")
    cut = "truncated" in words.lower() or isinstance(error, EOFError)
    if cut or (name == "JPEG" and b"\xff\xd9" not in data[-1024:]):
        return Reject("truncated", f"the {name} ends early, after {len(data)} bytes")
    return Reject("corrupt", f"the {name} cannot be decoded ({type(error).__name__})")


def _grey(image: Image.Image, data: bytes) -> np.ndarray | Reject:
    """Decodes the pixels of an opened image."""
    if getattr(image, "is_animated", False):
        return Reject("animated", f"a {image.format} of several frames")
    name = str(image.format)
    try:
        image.load()
    except (OSError, SyntaxError, ValueError, EOFError, LookupError) as error:
        return _reject_broken(name, data, error)
    if name == "JPEG" and data.rfind(b"\xff\xd9") < data.find(b"\xff\xda"):
        return Reject("truncated", f"the JPEG ends after {len(data)} bytes without its end mark")
    if image.mode.startswith("I") or image.mode == "F":
        return to_8_bits(np.asarray(image))
    if image.has_transparency_data:
        from PIL import Image

        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        black.alpha_composite(image.convert("RGBA"))
        image = black
    elif image.mode not in ("1", "L", "P", "RGB"):
        image = image.convert("RGB")  # CMYK, YCbCr, LAB have no luma of their own in Pillow
    grey = np.array(image.convert("L"))
    deep_colour = data.startswith(PNG_SIGNATURE) and data[24] == 16 and data[25] != 0
    if deep_colour and grey.max() < 16:
        return Reject("unsupported", "a 16-bit colour PNG whose values fill 12 bits or fewer. Save it as greyscale.")
    return grey


def to_8_bits(pixels: np.ndarray) -> np.ndarray | Reject:
    """(h, w) of integers or floats to uint8, by the rule `decode` documents."""
    if not np.isfinite(pixels).all():
        return Reject("corrupt", "pixels that are NaN or infinite")
    if pixels.min() < 0:
        return Reject("unsupported", "negative pixels, whose grey scale is unknown")
    if pixels.dtype.kind == "f":
        if pixels.max() <= 1:
            return np.rint(pixels * 255).astype(np.uint8)
        if pixels.max() >= 2**32:
            return Reject("unsupported", "float pixels of 2^32 and more")
        pixels = pixels.astype(np.int64)
    bits = max(8, int(pixels.max()).bit_length())
    return (pixels >> (bits - 8)).astype(np.uint8)
