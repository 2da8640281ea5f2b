"""The names of a zip archive's members as text, whose encoding the format leaves open."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from chexray.data.containers.listing import is_ascii

UNICODE_PATH = 0x7075
_MAYBE_UNICODE = re.compile(rb"up..\x01", re.DOTALL)


def extra_fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(kind, start, length) of each extra field in data[at:end]; one that reaches beyond the end is the last."""
    while at + 4 <= end:
        kind, length = struct.unpack_from("<HH", data, at)
        yield kind, at + 4, length
        at += 4 + length


def decoded(named: pa.Array, utf8: np.ndarray, extra: np.ndarray, n_extra: np.ndarray, data: bytes) -> pa.Array:
    """The names as text, (n,) string.

    named: (n,) binary. utf8: whether the archive says that the name is UTF-8. extra, n_extra: where the extra fields of
    each member stand in the directory `data`, which is in the order of the members. The Unicode path field of Info-ZIP
    and 7-Zip counts first. A name that is no UTF-8 is in the code page of DOS: macOS and many tools write UTF-8 without
    saying so.
    """
    paths = _unicode_paths(named, extra, n_extra, data)
    if not paths and is_ascii(named):
        return named.cast(pa.string())
    texts = [_text(name, flag) for name, flag in zip(named.to_pylist(), utf8.tolist(), strict=True)]
    for member, path in paths.items():
        texts[member] = path
    return pa.array(texts, pa.string())


def _text(name: bytes, utf8: bool) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name.decode("utf-8" if utf8 else "cp437", "backslashreplace")


def _unicode_paths(named: pa.Array, extra: np.ndarray, n_extra: np.ndarray, data: bytes) -> dict[int, str]:
    """{member: its name by the Unicode path field}, where the field was written for the name that stands beside it."""
    found: dict[int, str] = {}
    hits = np.array([hit.start() for hit in _MAYBE_UNICODE.finditer(data)], np.int64)
    members = np.searchsorted(extra, hits, side="right") - 1
    for member in np.unique(members[members >= 0]).tolist():
        end = int(extra[member] + n_extra[member])
        for kind, start, length in extra_fields(data, int(extra[member]), end):
            if kind != UNICODE_PATH or length < 6 or start + length > end or data[start] != 1:
                continue
            crc, path = int.from_bytes(data[start + 1 : start + 5], "little"), data[start + 5 : start + length]
            if crc == zlib.crc32(named[member].as_py()):
                found[member] = path.decode("utf-8", "backslashreplace")
    return found
