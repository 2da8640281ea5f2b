"""The directory of a zip archive as an Arrow table, read with two ranges: the end of the file, and the directory.

Nothing is unpacked here, and no Python object is kept for a member: an archive may hold millions.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from chexray.data.containers.listing import Directory, damaged, files_of, matches
from chexray.data.containers.zip_member import LOCAL_BYTES
from chexray.data.containers.zip_names import decoded, extra_fields
from chexray.errors import ManifestError
from chexray.storage import Storage
from chexray.text import shown

MAX_DIRECTORY_BYTES = 1_000_000_000
"""Bytes of one directory: about 8 million members with names of 60 bytes."""

_AT_ONCE = 1 << 16
"""Members whose fields are picked out at once: each takes 400 bytes meanwhile."""
_TAIL_BYTES = 65_535 + 22 + 20 + 56  # the longest comment, and the three records in front of it
_END, _END64, _LOCATOR = b"PK\5\6", b"PK\6\6", b"PK\6\7"
_UNKNOWN32 = 0xFFFFFFFF
_RECORD = np.dtype(
    [
        ("signature", "<u4"), ("made_by", "<u2"), ("version", "<u2"), ("flags", "<u2"), ("method", "<u2"),
        ("time", "<u4"), ("crc", "<u4"), ("compressed", "<u4"), ("size", "<u4"), ("name", "<u2"), ("extra", "<u2"),
        ("comment", "<u2"), ("disk", "<u2"), ("internal", "<u2"), ("external", "<u4"), ("offset", "<u4"),
    ]
)  # fmt: skip
_RECORD_SIGNATURE = 0x02014B50


def index(uri: str, storage: Storage) -> pa.Table:
    """The files of a zip archive, in the order of the archive: name, uri (strings) and size (int64) of each.

    Raises ManifestError for an archive whose directory is damaged or contradicts itself, and StorageError.
    """
    return read(uri, storage).table


def read(uri: str, storage: Storage) -> Directory:
    """The same, with what was left out: links, members of an operating system, older members of one name."""
    found = storage.stat([uri])[0]
    if found is None:
        raise ManifestError(f"{shown(uri)}: there is no such file.")
    place = _end(uri, storage, found.size)
    data = storage.read_range(uri, place.start, place.length)
    if len(data) < place.length:
        raise _damaged(uri, "its directory is cut")
    records, names = _records(uri, data, place.n)
    return _directory(uri, records, names, data, place)


def _damaged(uri: str, what: str) -> ManifestError:
    return damaged(uri, "zip", what)


@dataclass(frozen=True)
class _Place:
    """Where the directory lies. shift: what stands in front of the archive, which its own offsets do not count."""

    start: int
    length: int
    n: int
    shift: int


def _end(uri: str, storage: Storage, size: int) -> _Place:
    first = max(0, size - _TAIL_BYTES)
    tail = storage.read_range(uri, first, size - first)
    at = len(tail)
    while True:  # the mark may also stand in the comment: then the length of the comment is another
        at = tail.rfind(_END, 0, at)
        if at < 0:
            raise _damaged(uri, "its end, where the directory stands, is missing")
        if at + 22 <= len(tail) and at + 22 + int.from_bytes(tail[at + 20 : at + 22], "little") == len(tail):
            break
    disk, directory_disk, _, n, length, offset = struct.unpack_from("<4H2I", tail, at + 4)
    end = at
    if at >= 20 and tail[at - 20 : at - 16] == _LOCATOR:
        end = at - 20 - 56
        if end < 0 or tail[end : end + 4] != _END64:
            raise _damaged(uri, "its ZIP64 record is not where it should be")
        disk, directory_disk, _, n, length, offset = struct.unpack_from("<2I4Q", tail, end + 16)
    if disk or directory_disk:
        raise ManifestError(f"{shown(uri)}: is one part of a split zip archive. Join its parts (zip -s 0) first.")
    start = first + end - length
    if length > MAX_DIRECTORY_BYTES:
        raise ManifestError(
            f"{shown(uri)}: its directory announces {length:,} bytes, at most {MAX_DIRECTORY_BYTES:,} are read. Split "
            "the archive."
        )
    if start < 0 or start < offset or n * _RECORD.itemsize > length:
        raise _damaged(uri, f"its end announces {n:,} members in {length:,} bytes from {offset:,} on, out of bounds")
    return _Place(start, length, n, start - offset)


def _records(uri: str, data: bytes, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The fixed fields of each member, (n,) _RECORD, and where its name begins, (n,) int64."""
    places = np.empty(n, np.int64)
    lengths = struct.Struct("<HHH").unpack_from
    at = 0
    for member in range(n):
        if at + 46 > len(data):
            raise _damaged(uri, f"its directory ends after {member:,} of {n:,} members")
        places[member] = at
        name, extra, comment = lengths(data, at + 28)
        at += 46 + name + extra + comment
    if at != len(data):
        raise _damaged(uri, f"its {n:,} members take {at:,} bytes of a directory of {len(data):,}")
    raw = np.frombuffer(data, np.uint8)
    records = np.empty(n, _RECORD)
    for first in range(0, n, _AT_ONCE):
        some = places[first : first + _AT_ONCE, None] + np.arange(_RECORD.itemsize)
        records[first : first + _AT_ONCE] = raw[some].reshape(-1).view(_RECORD)
    broken = records["signature"] != _RECORD_SIGNATURE
    if broken.any():
        raise _damaged(uri, f"member {int(np.argmax(broken)) + 1:,} of its directory has no signature")
    return records, places + _RECORD.itemsize


def _directory(uri: str, records: np.ndarray, names: np.ndarray, data: bytes, place: _Place) -> Directory:
    size, compressed, offset = _wide(uri, records, names, data)
    start = offset + place.shift
    if (offset < 0).any() or (start >= place.start).any():
        raise _damaged(uri, "its directory names places outside of it")
    end = _ends(uri, start, records["name"], compressed, place.start)
    named = _names(data, names, records["name"])
    texts = decoded(named, (records["flags"] & 0x800) != 0, names + records["name"], records["extra"], data)
    by_unix, mode = (records["made_by"] >> 8) == 3, records["external"] >> 28
    crc = pa.py_buffer(records["crc"].astype(">u4").tobytes().hex().encode())
    crc = pa.Array.from_buffers(pa.binary(8), len(records), [None, crc]).cast(pa.binary()).cast(pa.string())
    numbers = [pa.array(values).cast(pa.string()) for values in (start, end, compressed, size, records["method"])]
    return files_of(
        uri,
        named,
        texts,
        size,
        [*numbers[:4], crc, numbers[4]],
        folders=matches(texts, r"[/\\]$") | (by_unix & (mode == 0o04)),
        others={"symbolic links": by_unix & (mode == 0o12)},
        encrypted=(records["flags"] & 1) != 0,
    )


def _wide(uri: str, records: np.ndarray, names: np.ndarray, data: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Size, compressed size and offset of each member, (n,) int64, with those that ZIP64 keeps in extra fields."""
    fields = [records[name].astype(np.int64) for name in ("size", "compressed", "offset")]
    for member in np.flatnonzero(np.any([values == _UNKNOWN32 for values in fields], axis=0)):
        at = int(names[member]) + int(records["name"][member])
        end = at + int(records["extra"][member])
        for kind, start, length in extra_fields(data, at, end):
            if kind == 1:
                wanted = [values for values in fields if values[member] == _UNKNOWN32]
                if length < 8 * len(wanted) or start + 8 * len(wanted) > end:
                    raise _damaged(uri, f"the ZIP64 field of member {member + 1:,} is too short")
                for values, number in zip(wanted, struct.unpack_from(f"<{len(wanted)}Q", data, start), strict=True):
                    if number >= 1 << 62:
                        raise _damaged(uri, f"member {member + 1:,} announces {number:,} bytes")
                    values[member] = number
                break
    return fields[0], fields[1], fields[2]


def _ends(uri: str, start: np.ndarray, name_length: np.ndarray, compressed: np.ndarray, directory: int) -> np.ndarray:
    """Where each member ends at the latest: where the next one or the directory begins.

    The local header may have other extra fields, so that the end is not known before it is read. Members that overlap
    share their data, by which some bytes become petabytes.
    """
    order = np.argsort(start, kind="stable")
    end = np.empty_like(start)
    end[order] = np.append(start[order][1:], directory)
    least = start + LOCAL_BYTES + name_length + compressed
    if (least > end).any():
        first = int(np.argmax(least > end))
        raise _damaged(
            uri,
            f"member {first + 1:,} reaches into the next one or the directory, as in a zip bomb or an archive beyond 4 "
            "GB that was written without ZIP64",
        )
    return np.minimum(end, least + 65_535 + 24)  # the longest extra field, and what may stand behind the data


def _names(data: bytes, places: np.ndarray, lengths: np.ndarray) -> pa.Array:
    """The names as they stand in the directory, (n,) binary."""
    raw, offsets = np.frombuffer(data, np.uint8), np.zeros(len(places) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    found = np.empty(int(offsets[-1]), np.uint8)
    for first in range(0, len(places), _AT_ONCE):
        some = lengths[first : first + _AT_ONCE].astype(np.int64)
        begin, end = offsets[first], offsets[min(first + _AT_ONCE, len(places))]
        # The n-th byte of a name lies n bytes behind its beginning.
        within = np.arange(begin, end) - np.repeat(offsets[first : first + len(some)], some)
        found[begin:end] = raw[np.repeat(places[first : first + _AT_ONCE], some) + within]
    buffers = [None, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(found)]
    return pa.Array.from_buffers(pa.binary(), len(places), buffers)
