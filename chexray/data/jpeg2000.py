"""What a JPEG 2000 codestream asks for, read from its marker segments before a decoder allocates it (ISO 15444-1).

A stream of 1 kB can announce 46,000 x 46,000 pixels (SIZ); 64 million code blocks of one pixel, or 65,535 layers of
nothing (COD, COC), each of which costs OpenJPEG hundreds of bytes or a loop. Later headers override earlier ones, so
those of all tile parts are read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_COD, _COC, _SOT, _SOD, _EOC = 0xFF52, 0xFF53, 0xFF90, 0xFF93, 0xFFD9
_MAIN = {0xFF00 | low for low in (*range(0x50, 0x54), 0x55, *range(0x57, 0x5A), *range(0x5C, 0x62), 0x63, 0x64, 0x74)}
_MAIN |= {0xFF75, 0xFF77, 0xFF78, _SOT}
"""Marker segments that OpenJPEG reads in the main header; past another it searches byte by byte."""
MAX_TILES = 4096
"""OpenJPEG takes 9 kB for each; 64 million pixels in tiles of 128 x 128 are 3,906."""
MAX_BLOCKS = 1_000_000
"""Code blocks, 300 bytes each (measured); encoders use blocks of 32 x 32 to 64 x 64: 64 million pixels are 62,500."""
MAX_PACKETS = 2_000_000
"""Passes of the decoder's loop, whether the file holds data for them or not."""


@dataclass(frozen=True)
class Codestream:
    """Size, components, bits of the deepest, and whether components are sampled alike.

    excess: what makes its decoding cost more than its pixels are worth, or "".
    """

    width: int
    height: int
    components: int
    bits: int
    even: bool
    excess: str


def read_codestream(data: bytes) -> Codestream | None:
    """The codestream in `data`, bare or in a JP2 file; None when it is not one or its headers contradict themselves."""
    start = _start(data)
    try:
        return _read(data, start) if start is not None else None
    except (struct.error, IndexError, ZeroDivisionError, ValueError):
        return None


def _start(data: bytes) -> int | None:
    """Where the codestream begins: at once, or in the first jp2c box."""
    if data.startswith(b"\xff\x4f\xff\x51"):
        return 0
    if not data.startswith(b"\0\0\0\x0cjP  "):
        return None
    position = 12
    while position + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, position)
        head = 16 if size == 1 else 8
        if kind == b"jp2c":
            begin = position + head
            return begin if data.startswith(b"\xff\x4f\xff\x51", begin) else None
        if size == 1:
            size = struct.unpack_from(">Q", data, position + 8)[0]
        if size < head:
            return None
        position += size
    return None


def _read(data: bytes, start: int) -> Codestream:
    right, bottom, left, top, tile_width, tile_height = struct.unpack_from(">6I", data, start + 8)
    count = struct.unpack_from(">H", data, start + 40)[0]
    sizes = [struct.unpack_from(">3B", data, start + 42 + 3 * i) for i in range(count)]
    if left or top:  # decoders allocate from the origin on, whatever of it the image shows
        raise ValueError("an image that does not begin at the origin")
    width, height = right, bottom
    tiles = -(-right // tile_width) * -(-bottom // tile_height)
    across, down = min(width, tile_width), min(height, tile_height)

    layers, levels, smallest, precinct, unknown = 1, 0, 1 << 12, 1 << 30, b"pclr" in data[:start]
    for marker, body, end in _segments(data, start):
        if marker not in (_COD, _COC):
            unknown = True
            continue
        styled = data[body] & 1 if marker == _COD else data[body + (1 if count < 257 else 2)] & 1
        style = body + (5 if marker == _COD else 2 if count < 257 else 3)
        if marker == _COD:
            layers = max(layers, struct.unpack_from(">H", data, body + 2)[0])
        levels = max(levels, data[style])
        # Exponents of block and precinct; a precinct of a sub-band is half as wide as one of the resolution.
        wide, high = (data[style + 1] & 15) + 2, (data[style + 2] & 15) + 2
        precincts = [(value & 15, value >> 4) for value in data[style + 5 : end]] if styled else []
        smallest = min([smallest, *(1 << min(wide, max(0, x - 1)) + min(high, max(0, y - 1)) for x, y in precincts)])
        smallest = min(smallest, 1 << wide + high)
        precinct = min([precinct, *(1 << x + y for x, y in precincts)])

    blocks = tiles * count * max(1, across * down // smallest + levels)
    packets = layers * tiles * count * (levels + 1) * max(1, across * down // precinct)
    excess = (
        f"{tiles} tiles" * (tiles > MAX_TILES)
        or f"{blocks} code blocks" * (blocks > MAX_BLOCKS)
        or f"{packets} packets" * (packets > MAX_PACKETS)
        or f"{levels} levels" * (levels > 32)
        or "an unknown marker or a palette" * unknown
    )
    bits = max(((depth & 0x7F) + 1 for depth, _, _ in sizes), default=0)
    even = len({(x, y) for _, x, y in sizes}) <= 1
    return Codestream(width, height, count, bits, even, excess)


def _segments(data: bytes, start: int) -> Iterator[tuple[int, int, int]]:
    """(marker, start, end of its content) of every COD and COC, in the main header and in those of tile parts, and of
    the first marker of the main header that is not known."""
    position, part, part_end = start + 2, 0, 0
    while position + 4 <= len(data):
        marker, size = struct.unpack_from(">HH", data, position)
        if marker == _EOC:
            return
        if marker == _SOD:
            if part_end <= part:
                return
            position = part_end
            continue
        if marker == _SOT:
            part, part_end = position, position + struct.unpack_from(">I", data, position + 6)[0]
        elif marker in (_COD, _COC) or not (part or marker in _MAIN):
            yield marker, position + 4, position + 2 + size
            if marker not in _MAIN:
                return
        position += 2 + max(2, size)
