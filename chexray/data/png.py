"""PNG of 16 bits a channel at their full depth. Pillow keeps the upper 8 bits of colour."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from chexray.data.bands import bands
from chexray.data.depth import Depth, Facts, chosen, full_range, levels
from chexray.data.headers import PNG_SIGNATURE
from chexray.data.luma import luma
from chexray.data.rejects import Reject

if TYPE_CHECKING:
    from PIL import Image

_LOW = {"RGB;16B": ("RGB", "RGB;16L"), "RGBA;16B": ("RGBA", "RGBA;16L"), "LA;16B": ("RGBA", "RGBA")}
"""Pillow's name of a layout -> mode and layout by which it takes the lower bytes. Of grey with alpha all four."""


def is_deep(data: bytes) -> bool:
    """Whether a PNG has 16 bits a channel."""
    return data.startswith(PNG_SIGNATURE) and data[24] == 16


def low_bytes(image: Image.Image, data: bytes) -> Image.Image | None:
    """The lower bytes of an opened image of 16-bit colour, decoded; for grey with alpha all bytes, as RGBA."""
    from PIL import PngImagePlugin

    # The name is one layout for the decoder of the file, which has undone filters and interlacing by then.
    second: Any = PngImagePlugin.PngImageFile(io.BytesIO(data), "")
    codec, box, place, layout = second.tile[0]
    if layout not in _LOW:
        return None
    second._mode, layout = _LOW[layout]
    second.tile = [type(second.tile[0])(codec, box, place, layout)]
    second.load()
    return second


def grey_of(
    image: Image.Image, low: Image.Image | None, data: bytes, depth: Depth | None, facts: Facts
) -> np.ndarray | Reject:
    """(h, w) uint8 of a loaded PNG of 16 bits. low: its lower bytes, None for grey without alpha."""
    colour, has_alpha = data[25] in (2, 6), data[25] in (4, 6)
    facts.mode = f"{'RGB' if colour else 'grey'}{' and alpha' if has_alpha else ''}, 16 bits"
    clear = image.info.get("transparency")

    def band(rows: slice) -> tuple[np.ndarray, np.ndarray | None]:
        """Colours (h, w, 1 or 3) uint16, and how much of them is seen (h, w), or None for all."""
        box = (0, rows.start, image.size[0], rows.stop)
        if low is None:
            values = np.asarray(image.crop(box)).astype(np.uint16)[..., None]
        elif colour:
            values = np.asarray(image.crop(box)).astype(np.uint16)
            values <<= 8
            values |= np.asarray(low.crop(box))
        else:
            values = np.ascontiguousarray(np.asarray(low.crop(box))).view(">u2").astype(np.uint16)
        seen = values[..., -1] if has_alpha else None
        values = values[..., :-1] if has_alpha else values[..., :3]
        if isinstance(clear, int | tuple) and not has_alpha:
            seen = np.where((values == np.asarray(clear)).all(axis=-1), 0, 65535).astype(np.uint16)
        return values, seen

    width, height = image.size
    lowest, highest, any_low = 65535, 0, False
    significant = _significant(data)
    for rows in bands(height, width):
        values, _ = band(rows)
        lowest, highest = min(lowest, int(values.min())), max(highest, int(values.max()))
        if significant and not any_low:
            any_low = bool((values & ((1 << 16 - significant) - 1)).any())
    bits = chosen(lowest, highest, facts, depth=depth, declared=_declared(significant, highest, any_low))
    if isinstance(bits, Reject):
        return bits
    black, white = full_range(bits)
    grey = np.empty((height, width), np.uint8)
    for rows in bands(height, width):
        values, seen = band(rows)
        single = luma(values) if colour else values[..., 0]
        if seen is not None:
            opaque = white if seen.max() <= white else 65535.0
            single = single * (seen / opaque)
        grey[rows] = levels(np.ascontiguousarray(single), black, white)
    return grey


def _significant(data: bytes) -> int:
    """Bits of sBIT, the most of any colour; 0 without the chunk, which stands before the pixels."""
    position = len(PNG_SIGNATURE)
    while position + 12 <= len(data):
        size, kind = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        if kind == b"IDAT":
            break
        if kind == b"sBIT":
            found = max(data[position + 8 : position + 8 + min(size, 3 if data[25] in (2, 6) else 1)], default=0)
            return found if 8 <= found < 16 else 0
        position += 12 + size
    return 0


def _declared(significant: int, highest: int, any_low: bool) -> int:
    """The depth that sBIT declares. Its samples should fill 16 bits, with the significant ones on top (PNG 11.3.2.7),
    but many writers leave them at the bottom. Samples on top are beyond the significant bits or have nothing below."""
    if not significant:
        return 0
    return significant if any_low and highest < 1 << significant else 16
