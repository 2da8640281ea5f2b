"""Pictures stored as nested lists of numbers in Parquet: Array3D (height, width, channels), Array2D (height, width).

A Python object for each pixel would take 100 times the time and memory: only offsets are looked at, and the numbers are
taken as they lie.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import pyarrow as pa

from chexray.data import memory
from chexray.data.depth import Facts
from chexray.data.rejects import Reject, check_size
from chexray.text import shown

T = TypeVar("T")


def depth_of(kind: pa.DataType) -> int:
    """How many lists stand inside each other around numbers; 0 for what holds anything else."""
    leaf, depth = _leaf(kind)
    return depth if pa.types.is_integer(leaf) or pa.types.is_floating(leaf) else 0


def is_pixels(kind: pa.DataType) -> bool:
    """Whether pictures can be read from a column of this type."""
    return depth_of(kind) > 1 and not unfit(kind)


def unfit(kind: pa.DataType, described: object = None) -> str:
    """Why no picture can be read from a column of nested lists, "" where it can, for "column 'x' ...".

    described: what Hugging Face metadata say of it: {"_type": "Array3D", "shape": [h, w, c], "dtype": ...}.
    """
    leaf, depth = _leaf(kind)
    if not pa.types.is_integer(leaf):
        return f"holds lists of {leaf} inside each other, expected whole numbers from 0 to 255 (uint8)"
    if depth not in (2, 3):
        return f"holds {depth} lists inside each other, {EXPECTED}"
    shape = described.get("shape") if isinstance(described, dict) else None
    if not isinstance(shape, list) or len(shape) != depth or not all(isinstance(side, int | None) for side in shape):
        return ""
    if depth == 3 and shape[2] not in (1, 3, None):
        return f"holds pixel arrays of {' x '.join(shown(side, 20) for side in shape)}, {EXPECTED}"
    return ""


def values_of(kind: pa.DataType, max_pixels: int) -> int:
    """How many numbers a picture of so many pixels may have in a column of this type."""
    return max_pixels * (1 if _leaf(kind)[1] == 2 else 3)


def pixels_of(cell: pa.Array, max_pixels: int) -> np.ndarray | Reject:
    """The picture in an array of one cell: (height, width) or (height, width, 3) uint8, its own copy.

    8-bit numbers that were stored with a sign are taken as they were before; wider ones must be 0 to 255.
    """
    if cell.null_count:
        return Reject("empty", "the row is null")
    shape: list[int] = []
    values = cell
    while _is_list(values.type):
        lengths = _lengths(values)
        values = values.flatten()
        if values.null_count:
            return Reject("corrupt", "a pixel array with null inside")
        shape.append(int(lengths[0]) if len(lengths) else 0)
        if len(lengths) and (lengths != lengths[0]).any():
            return Reject("corrupt", "a pixel array whose rows differ in length")
        if not shape[-1]:
            return Reject("no_pixels", f"a pixel array of {_by(shape)}")
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (1, 3)):
        return Reject("unsupported", f"a pixel array of {_by(shape)}, {EXPECTED}")
    if reject := check_size(shape[1], shape[0], max_pixels):  # before the numbers are copied
        return reject
    flat = values.to_numpy(zero_copy_only=False)
    bytes_ = _as_bytes(flat)
    if isinstance(bytes_, Reject):
        return bytes_
    return bytes_.reshape(shape[:2] if len(shape) == 2 or shape[2] == 1 else shape).copy()


EXPECTED = "expected (height, width), or (height, width, channels) with 1 or 3 channels last"


def grey_and(
    use: Callable[[np.ndarray], T], pixels: np.ndarray, *, max_pixels: int, facts: Facts | None = None
) -> T | Reject:
    """What `use` makes of a picture as (height, width) uint8 grey, the values that the same picture has as a PNG."""
    from PIL import Image

    height, width = pixels.shape[:2]
    if reject := check_size(width, height, max_pixels):
        return reject
    facts = Facts() if facts is None else facts
    facts.container, facts.mode = "pixel array", "grey, 8 bits" if pixels.ndim == 2 else "RGB, 8 bits"
    facts.height, facts.width = height, width
    with memory.pixels.lease(width * height * memory.BYTES_PER_PIXEL) as lease:
        answer = use(pixels if pixels.ndim == 2 else np.array(Image.fromarray(pixels).convert("L")))
        if lease.held >= memory.TRIM_BYTES:
            memory.trim()
        return answer


def _leaf(kind: pa.DataType) -> tuple[pa.DataType, int]:
    """The type inside all lists, and how many there are."""
    depth = 0
    while _is_list(kind):
        kind, depth = kind.value_type, depth + 1
    return kind, depth


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _lengths(values: pa.Array) -> np.ndarray:
    if pa.types.is_fixed_size_list(values.type):
        return np.full(len(values), values.type.list_size, np.int64)
    return np.diff(values.offsets.to_numpy())


def _as_bytes(flat: np.ndarray) -> np.ndarray | Reject:
    if flat.dtype == np.uint8:
        return flat
    if flat.dtype == np.int8:
        return flat.view(np.uint8)
    low, high = flat.min(), flat.max()
    if low < 0 or high > 255:
        return Reject("unsupported", f"a pixel array with values from {low} to {high}, expected 0 to 255")
    return flat.astype(np.uint8)


def _by(shape: list[int]) -> str:
    return " x ".join(map(str, shape))
