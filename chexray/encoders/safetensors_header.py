"""What a safetensors file says it holds, read and checked before a byte of a tensor is.

Layout: 8 bytes with the length of the header, the header (JSON), the tensors one after another without gaps.
"""

from __future__ import annotations

import io
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from chexray.encoders.fields import parse_json
from chexray.text import quoted, shown

LARGEST_HEADER = 32_000_000
"""Bytes; that of a network of 2,000 tensors has 250,000."""
MOST_TENSORS = 100_000
MOST_DIMENSIONS = 8

ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_COUNT_BYTES = {"I64": 8, "I32": 4}
INTEGER_NAMES = re.compile(
    r"(?:.*\.)?(?:num_batches_tracked|position_ids|relative_position_index|attention_bias_idxs)", re.DOTALL
)
"""Tensors of whole numbers that published networks hold: counters and tables of positions. Weights are floats."""


@dataclass(frozen=True)
class Header:
    """shapes: name -> shape. dtypes: name -> such as "F32". metadata: what whoever saved the file added."""

    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]
    metadata: dict[str, str]


def read_header(source: Path | bytes) -> Header:
    """The checked header of a file, or of the bytes of one. Raises ValueError with what is wrong, OSError."""
    with open(source, "rb") if isinstance(source, Path) else io.BytesIO(source) as stream:
        size = stream.seek(0, io.SEEK_END)
        stream.seek(0)
        return _checked(*_raw(stream, size))


def _raw(stream: BinaryIO, size: int) -> tuple[dict[str, Any], int]:
    """The header as JSON, and how many bytes of tensors follow it."""
    length = int.from_bytes(stream.read(8), "little")
    if size < 8 or length > size - 8:
        raise ValueError("its header is longer than the file")
    if length > LARGEST_HEADER:
        raise ValueError(f"its header has {length:,} bytes, more than {LARGEST_HEADER:,}")
    try:
        header = parse_json(stream.read(length))
    except json.JSONDecodeError:
        raise ValueError("its header is not JSON") from None
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    return header, size - 8 - length


def _checked(header: dict[str, Any], n_bytes: int) -> Header:
    metadata = header.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise ValueError("its metadata are not texts")
    if len(header) > MOST_TENSORS:
        raise ValueError(f"it lists {len(header):,} tensors, more than {MOST_TENSORS:,}")
    spans, shapes, dtypes = [], {}, {}
    for name, entry in header.items():
        shapes[name], dtypes[name], span = _tensor(name, entry)
        spans.append(span)
    end = 0
    for start, stop in sorted(spans):
        if start != end:
            raise ValueError("its tensors overlap or leave gaps")
        end = stop
    if end != n_bytes:
        raise ValueError(f"its tensors take {end:,} bytes, the file holds {n_bytes:,}")
    return Header(shapes, dtypes, metadata)


def _tensor(name: str, entry: object) -> tuple[tuple[int, ...], str, tuple[int, int]]:
    if not isinstance(entry, dict):
        raise ValueError(f"its entry {quoted(name, 80)} is no object")
    shape: Any = entry.get("shape")
    span: Any = entry.get("data_offsets")
    dtype: Any = entry.get("dtype")
    if not _wholes(shape) or len(shape) > MOST_DIMENSIONS or not _wholes(span) or len(span) != 2:
        raise ValueError(f"the shape or the place of tensor {quoted(name, 80)} is not valid")
    each = ITEM_BYTES.get(dtype) if isinstance(dtype, str) else None
    if each is None and isinstance(dtype, str) and INTEGER_NAMES.fullmatch(name):
        each = _COUNT_BYTES.get(dtype)
    if each is None:
        raise ValueError(
            f"tensor {quoted(name, 80)} is of type {shown(dtype, 40)}; weights are floats of 16, 32 or 64 bits, "
            "and quantised ones are not read"
        )
    if span[1] - span[0] != each * math.prod(shape):
        raise ValueError(f"tensor {quoted(name, 80)} is not as long as its shape says")
    return tuple(shape), dtype, (span[0], span[1])


def _wholes(values: object) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**48 for value in values)
