"""Sizes and counts from the headers of PNG, JPEG, GIF, WebP and TIFF, read before Pillow allocates anything.

Pillow opens a file by reading all of its header, and for some formats allocates the canvas then; a header can announce
more than any of its pixels. Each function returns the Reject of a file that asks for more than its image is worth, or
None; a file that is merely broken is left to the decoder, which says so.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator

from chexray.data.rejects import Reject, check_size

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_CHUNKS = 100_000
"""Chunks of a PNG: 800 MB in the 8 kB that libpng writes. A million empty ones take Pillow seconds."""
MAX_SCANS = 100
"""Scans of a JPEG; encoders write 3 to 20. Each costs a pass over the whole image and needs 10 bytes of file."""
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
MAX_EXIF = 1 << 20
"""Bytes of EXIF in a JPEG. Pillow turns each number in it into an object 50 times as large."""
MAX_VALUES = 200_000
"""Numbers in one TIFF tag, but for the places of strips and tiles. Colour maps hold 3 x 65,536."""
MAX_PARTS = 500_000
"""Strips or tiles of a TIFF; 64 million pixels in tiles of 16 x 16 are 250,000."""
MAX_ENTRIES = 4096
"""Tags of a TIFF; real files hold 10 to 100."""


def check_header(data: bytes, max_pixels: int) -> Reject | None:
    """The Reject of a file whose header alone condemns it."""
    for start, check in _CHECKS:
        if data.startswith(start):
            return check(data, max_pixels)
    return None


def check_png(data: bytes, max_pixels: int) -> Reject | None:
    """Walks the chunks: Pillow shows a PNG with a flipped byte, or one cut after its last row, without a word."""
    position, animated, count = len(PNG_SIGNATURE), False, 0
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
        if kind == b"IHDR" and (
            reject := check_size(int.from_bytes(body[4:8], "big"), int.from_bytes(body[8:12], "big"), max_pixels)
        ):
            return reject
        if kind == b"IEND":
            return Reject("animated", "an animated PNG") if animated else None
        count += 1
        if count > MAX_CHUNKS:
            return Reject("corrupt", f"a PNG of more than {MAX_CHUNKS} chunks")
        position = end
    return Reject("truncated", f"the PNG ends after {len(data)} bytes without its end mark")


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, start, end of its content) of each segment from the start of a JPEG or JPEG-LS to its first scan."""
    position = 2
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            return
        marker = data[position + 1]
        if marker == 0xFF:  # padding
            position += 1
            continue
        if marker == 0 or marker == 1 or 0xD0 <= marker <= 0xD9:  # no content
            position += 2
            continue
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        yield marker, position + 4, end
        if marker == 0xDA:
            return
        position = max(end, position + 2)


def jpeg_frame(data: bytes) -> tuple[int, int, int, int] | None:
    """(width, height, components, bits) of the frame header of a JPEG or JPEG-LS; None without exactly one."""
    frames = [start for marker, start, end in jpeg_segments(data) if marker in _FRAMES and end - start >= 6]
    if len(frames) != 1 or frames[0] + 6 > len(data):
        return None
    bits, height, width, components = struct.unpack_from(">BHHB", data, frames[0])
    return width, height, components, bits


def check_jpeg(data: bytes, max_pixels: int) -> Reject | None:
    """A JPEG whose size, number of scans or EXIF is beyond reason."""
    frame = jpeg_frame(data)
    if frame and frame[0] * frame[1] > max_pixels:
        return check_size(frame[0], frame[1], max_pixels)
    exif = sum(end - start for _, start, end in jpeg_segments(data) if data.startswith(b"Exif", start))
    if exif > MAX_EXIF:
        return Reject("corrupt", f"a JPEG with {exif} bytes of EXIF")
    # In coded data every 0xFF is followed by 0 or a marker: what is found are scans, and those of a thumbnail.
    scans = data.count(b"\xff\xda")
    return Reject("corrupt", f"a JPEG of {scans} scans") if scans > MAX_SCANS else None


def check_gif(data: bytes, max_pixels: int) -> Reject | None:
    """A GIF whose screen or first frame is too large: Pillow fills the frame while it opens the file."""
    if len(data) < 13:
        return None
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    position = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    while position < len(data) and data[position] != 0x2C:
        if data[position] == 0x3B:
            return None
        if data[position] == 0x21:  # an extension: its label, then blocks up to an empty one
            position += 2
            while position < len(data) and data[position]:
                position += 1 + data[position]
        position += 1
    if position + 9 <= len(data):
        left, top, across, down = struct.unpack_from("<4H", data, position + 1)
        width, height = max(width, left + across), max(height, top + down)
    return check_size(width, height, max_pixels)


def check_webp(data: bytes, max_pixels: int) -> Reject | None:
    """A WebP whose canvas is too large: Pillow allocates it while it opens the file."""
    kind, body = data[12:16], data[20:30]
    if data[8:12] != b"WEBP" or len(body) < 10:
        return None
    if kind == b"VP8X":
        width, height = (int.from_bytes(body[at : at + 3], "little") + 1 for at in (4, 7))
    elif kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 ":
        width, height = (int.from_bytes(body[at : at + 2], "little") & 0x3FFF for at in (6, 8))
    else:
        return None
    return check_size(width, height, max_pixels)


def check_tiff(data: bytes, max_pixels: int) -> Reject | None:
    """A TIFF whose image, tiles, strips or tags are beyond reason, by its first directory."""
    order, big = "<" if data[:2] == b"II" else ">", 43 in data[2:4]
    tags: dict[int, tuple[int, int]] = {}
    try:
        place = struct.unpack_from(f"{order}{'Q' if big else 'I'}", data, 8 if big else 4)[0]
        count = struct.unpack_from(f"{order}{'Q' if big else 'H'}", data, place)[0]
        place += 8 if big else 2
        if count > MAX_ENTRIES:
            return Reject("corrupt", f"a TIFF of {count} tags")
        for _ in range(count):
            tag, kind, number = struct.unpack_from(f"{order}HH{'Q' if big else 'I'}", data, place)
            form = {3: "H", 16: "Q"}.get(kind, "I")
            value = struct.unpack_from(f"{order}{form}", data, place + (12 if big else 8))[0]
            tags.setdefault(tag, (number, value))
            if number > MAX_VALUES and kind not in (1, 2, 7) and tag not in (273, 279, 324, 325):
                return Reject("corrupt", f"a TIFF tag of {number} values")
            place += 20 if big else 12
    except struct.error:
        return None

    def first(tag: int, default: int = 0) -> int:
        return tags.get(tag, (1, default))[1]

    width, height = first(256), first(257)
    if not width or not height:
        return None
    if reject := check_size(width, height, max_pixels):
        return reject
    across, down = (first(322, width), first(323, height)) if 324 in tags else (width, first(278, height))
    across, down = max(1, across), max(1, down if 324 in tags else min(down, height))
    if across * down > max(4 * width * height, 1 << 22):
        return Reject("corrupt", f"a TIFF of {width} x {height} pixels in tiles of {across} x {down}")
    parts = -(-width // across) * -(-height // down) * max(1, min(first(277, 1), 8))
    found = max(tags.get(tag, (0, 0))[0] for tag in (273, 279, 324, 325))
    if parts > MAX_PARTS or found > max(1024, 8 * parts):
        return Reject("corrupt", f"a TIFF of {width} x {height} pixels in {max(parts, found)} strips or tiles")
    return None


_CHECKS: tuple[tuple[bytes | tuple[bytes, ...], Callable[[bytes, int], Reject | None]], ...] = (
    (PNG_SIGNATURE, check_png),
    (b"\xff\xd8\xff", check_jpeg),
    ((b"GIF87a", b"GIF89a"), check_gif),
    (b"RIFF", check_webp),
    ((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"II\0*", b"MM*\0"), check_tiff),  # Pillow takes swapped ones too
)
