"""The bytes of a table file: bounded in size, inflated, and proven to be UTF-8 text before a parser sees them."""

from __future__ import annotations

import codecs
import zlib
from contextlib import suppress

from chexray.errors import ManifestError, StorageError
from chexray.storage import Storage
from chexray.text import shown

MAX_TABLE_BYTES = 1_000_000_000
"""Bytes of one table, inflated. The largest public one, 377,110 studies of MIMIC-CXR with their reports, has about
500 MB; a parser takes several times a table's size in memory."""

MAX_COLUMNS = 50_000
"""Columns of one table, as many as a Parquet file may have here (`storage.parquet`)."""

MAX_RATIO = 200
"""How much larger than its gzip file a table may be. Tables shrink 3 to 50 times, one prompt for all rows 90 times, a
file of one byte 1,030 times."""

ANY_RATIO_BYTES = 64 << 20
"""Up to this size a table may have shrunk as far as it did."""

_IN_BYTES, _OUT_BYTES = 1 << 14, 1 << 20
_GZIP = 16 + zlib.MAX_WBITS
_BOM = codecs.BOM_UTF8


def table_bytes(path: str, storage: Storage) -> bytes:
    """The content of a table file, inflated when its name ends in .gz. Raises ManifestError; it reads at most
    MAX_TABLE_BYTES and holds no more."""
    where = shown(path)
    try:
        found = storage.stat([path])[0]
        if found is not None and found.size > MAX_TABLE_BYTES:
            raise ManifestError(
                f"{where}: the table has {found.size:,} bytes, at most {MAX_TABLE_BYTES:,} are read. Write it as "
                "Parquet, or split the set."
            )
        data = storage.read(path)
    except StorageError as error:
        raise ManifestError(f"{where}: the table cannot be read ({error})") from error
    return inflated(data, where) if path.lower().endswith(".gz") else data


def inflated(packed: bytes, where: str) -> bytes:
    """What a gzip file of one or more members holds, expanded in small steps up to the limits of this module.

    Raises ManifestError for a damaged, cut or overlong file and for one that expands too far.
    """
    allowed = min(MAX_TABLE_BYTES, max(ANY_RATIO_BYTES, MAX_RATIO * len(packed)))
    parts: list[bytes] = []
    size, begun, n_members = 0, False, 0
    member = zlib.decompressobj(_GZIP)
    # Small slices: what is left of one is copied at the end of each member, and a member may have 20 bytes.
    for start in range(0, len(packed), _IN_BYTES):
        rest = packed[start : start + _IN_BYTES]
        while rest:
            if not begun and n_members:  # tapes and some tools fill up the last block with zeros
                rest = rest.lstrip(b"\0")
                if not rest:
                    break
            begun = True
            try:
                part = member.decompress(rest, _OUT_BYTES)
            except zlib.error:  # its text names no byte of the file, and tells a user nothing
                part = None
            if part is None:
                raise ManifestError(f"{where}: is not a whole gzip file: damaged after {size:,} bytes. Write it again.")
            size += len(part)
            if size > allowed:
                raise ManifestError(
                    f"{where}: its {len(packed):,} bytes expand to more than {allowed:,}, which no table does. "
                    "Decompress it yourself if you trust it, or split the set."
                )
            parts.append(part)
            rest = member.unused_data if member.eof else member.unconsumed_tail
            if member.eof:
                member, begun, n_members = zlib.decompressobj(_GZIP), False, n_members + 1
    if begun or not n_members:
        raise ManifestError(f"{where}: is not a whole gzip file: it ends in the middle. Copy or write it again.")
    return b"".join(parts)


def utf8(data: bytes, where: str) -> bytes:
    """The text as UTF-8 without a byte order mark; UTF-16 is read where such a mark says so.

    Raises ManifestError, with line and byte, unless all of it is text.
    Parsers quote the row they fail at, which may be a patient's: nothing that they could fail to decode reaches them.
    """
    marks = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    if data.startswith(marks) and not data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        with suppress(UnicodeDecodeError):
            return data.decode("utf-16").encode()
    if data.startswith(marks) or data[:4096].count(0) > len(data[:4096]) // 4:
        raise ManifestError(f"{where}: the table is not UTF-8 text: it looks like UTF-16. Save it again as UTF-8.")
    data = data.removeprefix(_BOM)
    place = _first_stray(data)
    if place is not None:
        before = data[:place]
        line = 1 + (before.count(b"\n") or before.count(b"\r"))
        raise ManifestError(
            f"{where}: the table is not UTF-8 text: line {line:,} (byte {place + 1:,}) holds a character of another "
            "encoding. Save it again as UTF-8."
        )
    return data


def _first_stray(data: bytes) -> int | None:
    """Where the first byte is that is no UTF-8, None where there is none; the text is never held as a whole."""
    if data.isascii():
        return None
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(data), _OUT_BYTES):
        chunk = data[start : start + _OUT_BYTES]
        try:
            decoder.decode(chunk, final=start + len(chunk) == len(data))
        except UnicodeDecodeError as error:
            # The decoder puts the bytes of a character that was cut in front of the chunk.
            return start - (len(error.object) - len(chunk)) + error.start
    return None
