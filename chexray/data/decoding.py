"""Image files to arrays: any PNG, JPEG or DICOM to (height, width) uint8 greyscale, or a Reject that says why not.

Pixels keep their native size and are never stretched per image: two images that differ in brightness still do after
decoding. What `decode` returns for given bytes is part of every stored feature (`encoders.base.DECODER_VERSION`).
"""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from chexray.data import memory
from chexray.data.bands import bands
from chexray.data.headers import PNG_SIGNATURE, check_header
from chexray.data.memory import Lease
from chexray.data.rejects import Reject, check_size
from chexray.data.silence import quiet

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["MAX_PIXELS", "Reject", "decode", "decode_and"]

T = TypeVar("T")

MAX_PIXELS = 64_000_000
"""Three times the largest detectors (about 4300 x 4300); a radiograph above it is an attack or an accident."""
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")
_plugins = threading.Lock()


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS) -> np.ndarray | Reject:
    """The image in `data`, (height, width) uint8, or a Reject. Thread-safe and silent; never raises for bad data.

    PNG and JPEG in any mode, single-frame GIF, BMP, TIFF and WebP, and DICOM (see `chexray.data.dicom`).
    Colour becomes ITU-R 601 luma, transparency is laid on black, EXIF orientation and colour profiles are ignored.
    More than 8 bits are shifted by the smallest power of two that holds the image's maximum: scanners store 10 or 12
    bits in 16-bit files, where a shift by 8 leaves them black, and a stretch would make each image its own scale.
    Float pixels are taken in [0, 1] when none exceeds 1, otherwise as whole grey levels. Colour of 16 bits a channel
    keeps its upper 8.
    """
    return decode_and(lambda pixels: pixels, data, max_pixels=max_pixels)


def decode_and(use: Callable[[np.ndarray], T], data: bytes, *, max_pixels: int = MAX_PIXELS) -> T | Reject:
    """What `use` makes of the decoded image, or the Reject. The image's memory counts until `use` returns, so that
    whoever keeps something smaller holds no more than `memory.PIXEL_BYTES` of pixels, in any number of threads."""
    if not data:
        return Reject("empty", "0 bytes")
    quiet()
    with memory.pixels.lease() as lease:
        found = _decoded(data, max_pixels, lease)
        answer = found if isinstance(found, Reject) else use(found)
        if lease.held >= memory.TRIM_BYTES:
            del found
            memory.trim()
        return answer


def _decoded(data: bytes, max_pixels: int, lease: Lease) -> np.ndarray | Reject:
    """The image or the Reject, whatever the decoders raise or return."""
    try:
        found = _by_format(data, max_pixels, lease)
    except MemoryError:
        return Reject("out_of_memory", f"no memory to decode an image of {len(data)} bytes", transient=True)
    except Exception as error:  # decoders raise anything at all on hostile bytes
        return Reject("corrupt", f"the decoder failed ({type(error).__name__})")
    if isinstance(found, Reject):
        return found
    if not isinstance(found, np.ndarray) or found.ndim != 2 or found.dtype != np.uint8 or not found.size:
        return Reject("corrupt", "the decoder gave something other than one greyscale image")
    return check_size(found.shape[1], found.shape[0], max_pixels) or found


def _by_format(data: bytes, max_pixels: int, lease: Lease) -> np.ndarray | Reject:
    from chexray.data import dicom

    if dicom.has_magic(data):
        return dicom.decode_dicom(data, max_pixels, lease)
    if reject := check_header(data, max_pixels):
        return reject
    found = _open(data)
    if isinstance(found, Reject):
        return dicom.decode_dicom(data, max_pixels, lease) if dicom.looks_bare(data) else found
    with found:
        if reject := check_size(*found.size, max_pixels):
            return reject
        lease.take(_cost(found, data))
        return _grey(found, data)


def _cost(image: Image.Image, data: bytes) -> int:
    """Bytes of memory that decoding and preparing will need at most."""
    cost = image.size[0] * image.size[1] * memory.BYTES_PER_PIXEL
    # The Huffman tables of a lossless WebP take 5 kB for 20 bits of file, whatever its size in pixels.
    return cost + min(2000 * len(data), 400_000_000) if image.format == "WEBP" else cost


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
        image = _load(image)
    except (OSError, SyntaxError, ValueError, EOFError, LookupError) as error:
        return _reject_broken(name, data, error)
    if name == "JPEG" and data.rfind(b"\xff\xd9") < data.find(b"\xff\xda"):
        return Reject("truncated", f"the JPEG ends after {len(data)} bytes without its end mark")
    if image.mode.startswith("I") or image.mode == "F":
        return _deep(image)
    transparent = image.has_transparency_data
    width, height = image.size
    grey = np.empty((height, width), np.uint8)
    for rows, band in _bands(image):
        grey[rows] = np.asarray(_flat(band, transparent))
    deep_colour = data.startswith(PNG_SIGNATURE) and data[24] == 16 and data[25] != 0
    if deep_colour and grey.max() < 16:
        return Reject("unsupported", "a 16-bit colour PNG whose values fill 12 bits or fewer. Save it as greyscale.")
    return grey


def _load(image: Image.Image) -> Image.Image:
    """The image with its pixels; for WebP without the decoder's two canvases beside it (8 bytes a pixel)."""
    if image.format == "WEBP" and hasattr(image, "_get_next") and hasattr(image, "_decoder"):
        from PIL import Image

        opened: Any = image
        pixels = opened._get_next()[0]
        opened._decoder = None
        return Image.frombuffer(image.mode, image.size, pixels, "raw", opened.rawmode, 0, 1)
    image.load()
    return image


def _bands(image: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    """(rows, that part of a decoded image); an image of one band is not copied."""
    width, height = image.size
    for rows in bands(height, width):
        whole = rows == slice(0, height)
        yield rows, image if whole else image.crop((0, rows.start, width, rows.stop))


def _flat(image: Image.Image, transparent: bool) -> Image.Image:
    """8-bit greyscale of an image of 8 bits a channel; transparency lies on black."""
    if transparent:
        from PIL import Image

        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        black.alpha_composite(image.convert("RGBA"))
        image = black
    elif image.mode not in ("1", "L", "P", "RGB"):
        image = image.convert("RGB")  # CMYK, YCbCr, LAB have no luma of their own in Pillow
    return image if image.mode == "L" else image.convert("L")


def _deep(image: Image.Image) -> np.ndarray | Reject:
    """(h, w) uint8 of an image of more than 8 bits, by the rule `decode` documents."""
    lowest, highest = [], []
    for _, band in _bands(image):
        pixels = np.asarray(band)
        if not np.isfinite(pixels).all():
            return Reject("corrupt", "pixels that are NaN or infinite")
        lowest.append(pixels.min())
        highest.append(pixels.max())
    if min(lowest) < 0:
        return Reject("unsupported", "negative pixels, whose grey scale is unknown")
    top = max(highest)
    if top >= 2**32:
        return Reject("unsupported", "float pixels of 2^32 and more")
    width, height = image.size
    grey = np.empty((height, width), np.uint8)
    for rows, band in _bands(image):
        grey[rows] = _shifted(np.asarray(band), top)
    return grey


def _shifted(pixels: np.ndarray, top: float) -> np.ndarray:
    if pixels.dtype.kind == "f":
        if top <= 1:
            return np.rint(pixels * 255).astype(np.uint8)
        pixels = pixels.astype(np.int64)
    bits = max(8, int(top).bit_length())
    return (pixels >> (bits - 8)).astype(np.uint8)
