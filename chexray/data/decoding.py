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

from chexray.data import memory, png, tiff
from chexray.data.bands import bands
from chexray.data.depth import Depth, Facts, full_range, levels
from chexray.data.headers import check_header
from chexray.data.memory import Lease
from chexray.data.rejects import Reject, check_size
from chexray.data.silence import quiet
from chexray.data.tiff import Layout

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["MAX_PIXELS", "Reject", "decode", "decode_and"]

T = TypeVar("T")

MAX_PIXELS = 64_000_000
"""Three times the largest detectors (about 4300 x 4300); a radiograph above it is an attack or an accident."""
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")
_plugins = threading.Lock()


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS, bits: int | None = None) -> np.ndarray | Reject:
    """The image in `data`, (height, width) uint8, or a Reject. Thread-safe and silent; never raises for bad data.

    PNG and JPEG in any mode, single-frame GIF, BMP, TIFF and WebP, and DICOM (see `chexray.data.dicom`).
    Colour becomes ITU-R 601 luma, transparency is laid on black, EXIF orientation and colour profiles are ignored.
    More than 8 bits, grey or colour, become 8 by one linear scale from 0 to 2^bits - 1 (see `chexray.data.depth`).
    bits: this scale, whatever the file declares. Without it, what the file declares (DICOM BitsStored below 16, PNG
    sBIT, TIFF Min/MaxSampleValue), or else the smallest of 8, 10, 12, 14 and 16 bits that holds the image: right for
    one image that stands alone, while images of a set share one depth (`chexray.data.looks`).
    """
    depth = None if bits is None else Depth(bits, given=True)
    return decode_and(lambda pixels: pixels, data, max_pixels=max_pixels, depth=depth)


def decode_and(
    use: Callable[[np.ndarray], T],
    data: bytes,
    *,
    max_pixels: int = MAX_PIXELS,
    depth: Depth | None = None,
    facts: Facts | None = None,
) -> T | Reject:
    """What `use` makes of the decoded image, or the Reject. The image's memory counts until `use` returns, so that
    whoever keeps something smaller holds no more than `memory.PIXEL_BYTES` of pixels, in any number of threads.

    depth: of the image's set; None for an image that stands alone. facts: is told what the file is.
    """
    if not data:
        return Reject("empty", "0 bytes")
    quiet()
    facts = Facts() if facts is None else facts
    with memory.pixels.lease() as lease:
        found = _decoded(data, max_pixels, lease, depth, facts)
        answer = found if isinstance(found, Reject) else use(found)
        if lease.held >= memory.TRIM_BYTES:
            del found
            memory.trim()
        return answer


def _decoded(data: bytes, max_pixels: int, lease: Lease, depth: Depth | None, facts: Facts) -> np.ndarray | Reject:
    """The image or the Reject, whatever the decoders raise or return."""
    try:
        found = _by_format(data, max_pixels, lease, depth, facts)
    except MemoryError:
        return Reject("out_of_memory", f"no memory to decode an image of {len(data)} bytes", transient=True)
    except Exception as error:  # decoders raise anything at all on hostile bytes
        return Reject("corrupt", f"the decoder failed ({type(error).__name__})")
    if isinstance(found, Reject):
        return found
    if not isinstance(found, np.ndarray) or found.ndim != 2 or found.dtype != np.uint8 or not found.size:
        return Reject("corrupt", "the decoder gave something other than one greyscale image")
    facts.height, facts.width = found.shape
    return check_size(found.shape[1], found.shape[0], max_pixels) or found


def _by_format(data: bytes, max_pixels: int, lease: Lease, depth: Depth | None, facts: Facts) -> np.ndarray | Reject:
    from chexray.data import dicom

    if dicom.has_magic(data):
        return dicom.decode_dicom(data, max_pixels, lease, depth, facts)
    if reject := check_header(data, max_pixels):
        return reject
    layout = tiff.read_layout(data)
    if isinstance(layout, Reject):
        return layout
    found = _open(layout.files[0] if layout else data)
    if isinstance(found, Reject):
        return dicom.decode_dicom(data, max_pixels, lease, depth, facts) if dicom.looks_bare(data) else found
    with found:
        width, height = (layout.width, layout.height) if layout else found.size
        if reject := check_size(width, height, max_pixels):
            return reject
        facts.container, facts.mode = str(found.format).replace("MPO", "JPEG"), _mode(found)
        lease.take(width * height * _bytes_per_pixel(found, data, layout) + _of_tables(found, data))
        return _grey(found, data, layout, depth, facts)


def _mode(image: Image.Image) -> str:
    names = {"L": "grey, 8 bits", "P": "palette", "RGB": "RGB, 8 bits", "1": "black and white"}
    return names.get(image.mode, f"{image.mode}, 8 bits")


def _bytes_per_pixel(image: Image.Image, data: bytes, layout: Layout | None) -> int:
    """Bytes of memory that decoding and preparing one pixel will need at most."""
    if layout is not None:
        return max(memory.BYTES_PER_PIXEL, 3 * layout.pixel_bytes)
    deep_colour = png.is_deep(data) and image.mode[0] != "I"
    return memory.DEEP_BYTES_PER_PIXEL if deep_colour else memory.BYTES_PER_PIXEL


def _of_tables(image: Image.Image, data: bytes) -> int:
    """The Huffman tables of a lossless WebP take 5 kB for 20 bits of file, whatever its size in pixels."""
    return min(2000 * len(data), 400_000_000) if image.format == "WEBP" else 0


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


def _grey(
    image: Image.Image, data: bytes, layout: Layout | None, depth: Depth | None, facts: Facts
) -> np.ndarray | Reject:
    """Decodes the pixels of an opened image."""
    # The further pictures of a phone's JPEG are views and previews of the first.
    if getattr(image, "is_animated", False) and image.format != "MPO":
        return Reject("animated", f"a {image.format} of several frames")
    name = str(image.format)
    deep = name == "PNG" and png.is_deep(data)
    try:
        low = png.low_bytes(image, data) if deep and image.mode[0] != "I" else None
        image = _load(image)
        planes = [image] + [_loaded_plane(file) for file in layout.files[1:]] if layout else []
    except (OSError, SyntaxError, ValueError, EOFError, LookupError) as error:
        return _reject_broken(name, data, error)
    if name in ("JPEG", "MPO") and data.rfind(b"\xff\xd9") < data.find(b"\xff\xda"):
        return Reject("truncated", f"the JPEG ends after {len(data)} bytes without its end mark")
    if layout is not None:
        return tiff.grey_of(planes, layout, depth, facts)
    if deep:
        return png.grey_of(image, low, data, depth, facts)
    if image.mode.startswith("I") or image.mode == "F":
        return _deep(image, depth, facts)
    transparent = image.has_transparency_data
    width, height = image.size
    grey = np.empty((height, width), np.uint8)
    for rows, band in _bands(image):
        grey[rows] = np.asarray(_flat(band, transparent))
    return grey


def _loaded_plane(file: bytes) -> Image.Image:
    found = _open(file)
    if isinstance(found, Reject):
        raise SyntaxError(found.detail)
    found.load()
    return found


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


def _deep(image: Image.Image, depth: Depth | None, facts: Facts) -> np.ndarray | Reject:
    """(h, w) uint8 of an image of more than 8 bits that Pillow decodes as it is: TIFF of 12 packed bits, and what is
    compressed in ways that `tiff` leaves alone."""
    facts.mode = f"grey, {image.mode}"
    lowest, highest = [], []
    for _, band in _bands(image):
        pixels = np.asarray(band)
        if not np.isfinite(pixels).all():
            return Reject("corrupt", "pixels that are NaN or infinite")
        lowest.append(float(pixels.min()))
        highest.append(float(pixels.max()))
    packed = getattr(image, "tag_v2", {}).get(258, (16,))[0]
    bits = tiff.whole_depth(
        min(lowest), max(highest), facts, depth, packed if 8 < packed < 16 else 0, of_floats=image.mode == "F"
    )
    if isinstance(bits, Reject):
        return bits
    width, height = image.size
    grey = np.empty((height, width), np.uint8)
    for rows, band in _bands(image):
        pixels = np.asarray(band)
        grey[rows] = levels(pixels.astype(pixels.dtype.newbyteorder("=")), *full_range(bits))
    return grey
