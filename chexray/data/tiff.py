"""Greyscale and RGB TIFF of 16, 32 and 64 bits a sample, at their full depth.

Pillow keeps the upper 8 bits of colour, knows no float16, float64 or unsigned 32 bits, and shows MinIsWhite as a
negative. Here the file is given another directory, by which it is a grey image of bytes, as wide as a row of samples
has bytes. Pillow and libtiff undo any compression of it, and what the bytes mean is decided here.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from chexray.data.bands import bands
from chexray.data.depth import DEPTHS, Depth, Facts, chosen, full_range, levels
from chexray.data.luma import luma
from chexray.data.rejects import Reject

if TYPE_CHECKING:
    from PIL import Image

_TYPES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d", 16: "Q"}
_KEPT = (256, 257, 259, 266, 273, 278, 279, 322, 323, 324, 325)
_RAW, _PACKBITS = 1, 32773
_LOSSLESS = frozenset({_RAW, 5, 8, 32946, _PACKBITS, 34925, 50000})
"""Compressions of bytes: none, LZW, Deflate, PackBits, LZMA, Zstandard. Others compress samples."""
MAX_SAMPLE_BYTES = 12
"""Bytes of one pixel; three floats of 32 bits."""
MAX_PLANAR_BYTES = 256_000_000
"""Bytes of a file in separate planes, each of which is read from a copy of it."""
_KINDS = {1: "u", 2: "i", 3: "f", 4: "u"}


@dataclass(frozen=True)
class Layout:
    """How the samples of a TIFF lie in its bytes. kind: numpy's type of a sample, with its order of bytes.

    declared: the depth that the file says it uses, or 0. tile: width of a tile in pixels, 0 for strips. alpha: whether
    the last sample says how much of the pixel is seen. files: the bytes by which it is a grey image of bytes; where
    the samples lie in separate planes, one for each.
    """

    width: int
    height: int
    samples: int
    colours: int
    kind: np.dtype[Any]
    white_is_zero: bool
    alpha: bool
    predictor: int
    tile: int
    orientation: int
    declared: int
    files: tuple[bytes, ...]

    @property
    def pixel_bytes(self) -> int:
        return self.samples * self.kind.itemsize


def read_layout(data: bytes) -> Layout | Reject | None:
    """The layout of a TIFF of more than 8 bits a sample. None for other files, which Pillow decodes as they are."""
    if data[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return None
    try:
        entries, following = _directory(data)
        return _layout(data, entries, following)
    except (struct.error, ValueError, IndexError, OverflowError):
        return None


def _directory(data: bytes) -> tuple[dict[int, tuple[int, int, bytes]], bytes]:
    """{tag: (type, count, the 4 or 8 bytes of value or place)} of the first directory, and the place of the next."""
    order, big = _order(data), data[2:4].strip(b"\0") == b"+"
    wide, head, size = ("Q", 8, 20) if big else ("I", 2, 12)
    place = struct.unpack_from(f"{order}{wide}", data, 8 if big else 4)[0]
    count = struct.unpack_from(f"{order}{'Q' if big else 'H'}", data, place)[0]
    if count > 4096:
        raise ValueError("too many tags")
    entries: dict[int, tuple[int, int, bytes]] = {}
    for at in range(place + head, place + head + count * size, size):
        tag, kind, number = struct.unpack_from(f"{order}HH{wide}", data, at)
        entries.setdefault(tag, (kind, number, data[at + size - (8 if big else 4) : at + size]))
    end = place + head + count * size
    return entries, data[end : end + (8 if big else 4)]


def _order(data: bytes) -> str:
    return "<" if data[:2] == b"II" else ">"


def _values(data: bytes, entries: dict[int, tuple[int, int, bytes]], tag: int, limit: int = 8) -> list[float]:
    """The first numbers of a tag; empty where it is absent or of another type."""
    kind, number, held = entries.get(tag, (0, 0, b""))
    if kind not in _TYPES or not number:
        return []
    form = f"{_order(data)}{min(number, limit)}{_TYPES[kind]}"
    if number * struct.calcsize(_TYPES[kind]) <= len(held):
        return list(struct.unpack_from(form, held))
    place = struct.unpack(f"{_order(data)}{'Q' if len(held) == 8 else 'I'}", held)[0]
    return list(struct.unpack_from(form, data, place))


def _layout(data: bytes, entries: dict[int, tuple[int, int, bytes]], following: bytes) -> Layout | Reject | None:
    def first(tag: int, default: int) -> int:
        return int((_values(data, entries, tag) or [default])[0])

    width, height, samples, bits = first(256, 0), first(257, 0), first(277, 1), _values(data, entries, 258)
    formats, photometric, compression = _values(data, entries, 339) or [1], first(262, 1), first(259, _RAW)
    if not width or not height or not bits or set(bits) - {16, 32, 64} or len(set(bits)) > 1 or len(set(formats)) > 1:
        return None
    colours = {0: 1, 1: 1, 2: 3}.get(photometric, 0)
    if not colours or compression not in _LOSSLESS or not colours <= samples <= colours + 1:
        return None
    kind = _KINDS.get(int(formats[0]))
    if kind is None or (samples > 1 and kind == "i"):
        return None
    planar, tile = first(284, 1) == 2 and samples > 1, first(322, 0)
    sample = np.dtype(f"{_order(data)}{kind}{int(bits[0]) // 8}")
    predictor = first(317, 1) if compression not in (_RAW, _PACKBITS) else 1
    if samples * sample.itemsize > MAX_SAMPLE_BYTES or predictor not in (1, 2, 3):
        return Reject("unsupported", f"a TIFF of {samples} x {int(bits[0])} bits a pixel")
    if planar and len(data) * samples > MAX_PLANAR_BYTES:
        return Reject("unsupported", f"a TIFF of {len(data)} bytes in separate planes")
    if predictor == 3 and (kind != "f" or (tile and width % tile)):
        return Reject("unsupported", "a TIFF whose predictor does not fit its samples or tiles")
    files = tuple(
        _as_bytes(data, _of_plane(data, entries, plane, samples), following, sample.itemsize)
        for plane in range(samples if planar else 0)
    ) or (_as_bytes(data, entries, following, samples * sample.itemsize),)
    return Layout(
        width, height, samples, colours, sample, photometric == 0, samples > colours and first(338, 2) == 2,
        predictor, tile, first(274, 1),
        _declared(data, entries, kind), files,
    )  # fmt: skip


def _declared(data: bytes, entries: dict[int, tuple[int, int, bytes]], kind: str) -> int:
    """The depth that Min/MaxSampleValue or SMin/SMaxSampleValue declare, or 0.

    Many writers put the extremes of the one image there. Only the whole range of a depth says what white is.
    """
    for lowest, highest in ((340, 341), (280, 281)):
        high = _values(data, entries, highest)
        low = _values(data, entries, lowest) or [0]
        if not high:
            continue
        for bits in sorted({*range(8, 17), *DEPTHS, *(-each for each in range(8, 17)), *((1,) if kind == "f" else ())}):
            if full_range(bits) == (low[0], high[0]):
                return bits
    return 0


def _of_plane(
    data: bytes, entries: dict[int, tuple[int, int, bytes]], plane: int, samples: int
) -> dict[int, tuple[int, int, bytes]]:
    """The directory with the strips or tiles of one plane only: the planes lie one after the other."""
    found = dict(entries)
    for tag in (273, 279, 324, 325):
        if tag not in entries:
            continue
        kind, number, held = entries[tag]
        each, size = number // samples, struct.calcsize(_TYPES[kind])
        if number % samples:
            raise ValueError("planes that share a strip")
        form = f"{_order(data)}{'Q' if len(held) == 8 else 'I'}"
        if each == 1:
            value = _values(data, entries, tag)[plane]
            found[tag] = (16 if len(held) == 8 else 4, 1, struct.pack(form, int(value)))
        else:
            place = struct.unpack(form, held)[0] + plane * each * size
            found[tag] = (kind, each, struct.pack(form, place))
    return found


def _as_bytes(data: bytes, entries: dict[int, tuple[int, int, bytes]], following: bytes, pixel_bytes: int) -> bytes:
    """The file with a directory at its end by which it is a grey image of bytes."""
    order, big = _order(data), len(following) == 8
    wide = "Q" if big else "I"
    kept = {tag: entries[tag] for tag in _KEPT if tag in entries}
    for tag in (256, 322):
        if tag in kept:
            value = int(_values(data, entries, tag)[0]) * pixel_bytes
            kept[tag] = (4, 1, struct.pack(f"{order}I", value).ljust(len(following), b"\0"))
    for tag, value in ((258, 8), (262, 1), (277, 1)):
        kept[tag] = (3, 1, struct.pack(f"{order}H", value).ljust(len(following), b"\0"))
    body = struct.pack(f"{order}{'Q' if big else 'H'}", len(kept))
    for tag in sorted(kept):
        kind, number, held = kept[tag]
        body += struct.pack(f"{order}HH{wide}", tag, kind, number) + held
    place = len(data) + len(data) % 2
    head = data[:8] + struct.pack(f"{order}Q", place) if big else data[:4] + struct.pack(f"{order}I", place)
    return head + data[len(head) :] + bytes(len(data) % 2) + body + following


def grey_of(planes: list[Image.Image], layout: Layout, depth: Depth | None, facts: Facts) -> np.ndarray | Reject:
    """(h, w) uint8 of the loaded images of bytes that `layout.files` are."""
    facts.mode = f"{'RGB' if layout.colours > 1 else 'grey'}, {layout.kind.name}"

    def band(rows: slice) -> np.ndarray:
        parts = [np.asarray(image.crop((0, rows.start, image.size[0], rows.stop))) for image in planes]
        if len(parts) == 1:
            return _samples(parts[0], layout)
        single = replace(layout, samples=1)
        return np.concatenate([_samples(part, single) for part in parts], axis=2)

    lowest, highest = np.inf, -np.inf
    for rows in bands(layout.height, layout.width):
        values = band(rows)[..., : layout.colours]
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            return Reject("corrupt", "pixels that are NaN or infinite")
        lowest, highest = min(lowest, float(values.min())), max(highest, float(values.max()))
    bits = whole_depth(lowest, highest, facts, depth, layout.declared, of_floats=layout.kind.kind == "f")
    if isinstance(bits, Reject):
        return bits
    black, white = full_range(bits)
    grey = np.empty((layout.height, layout.width), np.uint8)
    for rows in bands(layout.height, layout.width):
        grey[rows] = _grey(band(rows), layout, black, white)
    return np.ascontiguousarray(_TURNS.get(layout.orientation, lambda pixels: pixels)(grey))


def whole_depth(
    lowest: float, highest: float, facts: Facts, depth: Depth | None, declared: int, *, of_floats: bool = False
) -> int | Reject:
    """As `chosen`; negative values need a depth of two's complement that was declared or given."""
    given = depth.bits if depth and depth.given else declared
    if lowest < 0 and given >= 0:
        return Reject("unsupported", "negative pixels, whose grey scale is unknown. Give the set `bits`, such as -12")
    return chosen(lowest, highest, facts, depth=depth, declared=declared, of_floats=of_floats)


def _samples(raw: np.ndarray, layout: Layout) -> np.ndarray:
    """(h, bytes) uint8 to (h, w, samples) in this machine's order of bytes, its predictor undone."""
    height = len(raw)
    if layout.predictor == 3:
        return _float_predictor(raw, layout)
    values = np.ascontiguousarray(raw).view(layout.kind).reshape(height, layout.width, layout.samples)
    values = values.astype(layout.kind.newbyteorder("="))
    if layout.predictor == 2:
        for start in range(0, layout.width, layout.tile or layout.width):
            part = values[:, start : start + (layout.tile or layout.width)]
            whole = part.view(f"u{part.dtype.itemsize}")
            np.add.accumulate(whole, axis=1, dtype=whole.dtype, out=whole)
    return values


def _float_predictor(raw: np.ndarray, layout: Layout) -> np.ndarray:
    """TIFF Technical Note 3: bytes of equal weight lie together, the heaviest first, as differences."""
    height, across = len(raw), layout.tile or layout.width
    parts = []
    for start in range(0, layout.width, across):
        part = raw[:, start * layout.pixel_bytes : (start + across) * layout.pixel_bytes]
        summed = part.reshape(height, -1, layout.samples).copy()
        np.add.accumulate(summed, axis=1, dtype=np.uint8, out=summed)
        planes = summed.reshape(height, layout.kind.itemsize, across * layout.samples)
        values = np.ascontiguousarray(planes.transpose(0, 2, 1)).view(layout.kind.newbyteorder(">"))
        parts.append(values.reshape(height, across, layout.samples))
    return np.concatenate(parts, axis=1).astype(layout.kind.newbyteorder("="))


def _grey(values: np.ndarray, layout: Layout, black: float, white: float) -> np.ndarray:
    """Samples to grey levels; transparency lies on black."""
    single = values[..., 0] if layout.colours == 1 else _luma(values)
    if layout.white_is_zero:
        single = (white + black) - single.astype(np.float64)
    if layout.alpha:
        alpha = values[..., -1].astype(np.float64)
        single = single * np.clip(alpha / (white if alpha.max() <= white else full_range(16)[1]), 0, 1)
    return levels(np.ascontiguousarray(single), black, white)


def _luma(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        return luma(values)
    return values[..., :3].astype(np.float64) @ np.array([0.299, 0.587, 0.114])


_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.T,
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels[::-1, ::-1].T,
    8: lambda pixels: np.rot90(pixels),
}
"""Orientation to how the stored rows are turned, as Pillow does for other TIFF."""
