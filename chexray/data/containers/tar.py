"""What a tar archive holds, found by walking from header to header; the data between them are not read.

A tar has no directory. On this machine a header costs one small read. Elsewhere it costs one request, or for members up
to 256 kB a share of a request of 1 MiB, so that a remote archive of small members is read once as a whole.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from chexray.data.containers import tar_headers as headers
from chexray.data.containers.listing import Directory, damaged, files_of
from chexray.data.containers.tar_headers import BLOCK, Header, NoHeader
from chexray.errors import ManifestError
from chexray.spelling import plural
from chexray.storage import Storage, is_remote
from chexray.text import shown

MAX_HEADERS = 5_000_000
"""Headers of one archive."""
MAX_FIELD_BYTES = 1 << 20
"""Bytes of the extended header of one member."""
MAX_ZEROS = 2 << 20
"""Zero bytes, the marks of the end, between two archives that were joined. Longer runs are the end."""
_HEADER_BYTES = 4096
_AHEAD_BYTES = 1 << 20
_NEAR_BYTES = 256 << 10


def index(uri: str, storage: Storage) -> pa.Table:
    """The files of a tar archive, in its order: name, uri (strings) and size (int64) of each.

    Raises ManifestError for an archive that is cut, damaged or compressed, and StorageError.
    """
    return read(uri, storage).table


def read(uri: str, storage: Storage) -> Directory:
    """The same, with what was left out: links that lead nowhere, devices, sparse files, older members of one name."""
    found = storage.stat([uri])[0]
    if found is None:
        raise ManifestError(f"{shown(uri)}: there is no such file.")
    walk = _Walk(uri, found.size, _Window(uri, found.size, storage))
    names: list[bytes] = []
    starts: list[int] = []
    sizes: list[int] = []
    sums: list[int] = []
    kinds: list[str] = []
    at_name: dict[bytes, int] = {}
    for header, start, crc in walk:
        kind = _kind(header)
        size = header.size
        if header.kind == headers.HARD_LINK and (earlier := at_name.get(header.link)) is not None:
            start, size, kind, crc = starts[earlier], sizes[earlier], kinds[earlier], sums[earlier]
        at_name[header.name] = len(names)
        names.append(header.name)
        starts.append(start)
        sizes.append(size)
        sums.append(crc)
        kinds.append(kind)
    named = pa.array(names, pa.binary())
    what = np.array(kinds, dtype=object)
    others = {each: what == each for each in dict.fromkeys(kinds) if each not in ("", "folder")}
    texts = pa.array([name.decode("utf-8", "backslashreplace") for name in names], pa.string())
    at = [pa.array(values, pa.int64()).cast(pa.string()) for values in (starts, sizes)]
    at.append(pa.array([f"{crc:08x}" for crc in sums], pa.string()))
    return files_of(
        uri, named, texts, np.array(sizes, np.int64), at, folders=what == "folder", others=others, notes=walk.notes
    )


def _kind(header: Header) -> str:
    """What a member is, "" for a file."""
    if header.kind == headers.FOLDER:
        return "folder"
    if header.kind == headers.HARD_LINK:
        return "hard links to no earlier member"
    if header.kind == headers.SYMBOLIC_LINK:
        return "symbolic links"
    if header.kind == headers.SPARSE:
        return "sparse files"
    return "" if header.kind in headers.FILE_TYPES else "devices and other special members"


@dataclass
class _Walk:
    """(header, where its data start, its CRC) of each member, with long names in place. notes: what is odd about the
    archive."""

    uri: str
    size: int
    window: _Window
    notes: list[str] = field(default_factory=list)
    n: int = 0

    def __iter__(self) -> Iterator[tuple[Header, int, int]]:
        at, zeros, n_headers = 0, 0, 0
        fields: dict[bytes, bytes] = {}
        while at < self.size and zeros <= MAX_ZEROS:
            block = self.window.get(at, BLOCK)
            if not block.strip(b"\0"):
                zeros, at = zeros + BLOCK, at + BLOCK
                continue
            header = self._header(block, at, zeros)
            if header is None:
                self.notes.append("bytes behind the end mark of the archive are left out")
                return
            n_headers, zeros = n_headers + 1, 0
            if n_headers > MAX_HEADERS:
                raise ManifestError(f"{shown(self.uri)}: holds more than {MAX_HEADERS:,} headers. Split the archive.")
            at += BLOCK
            if header.kind in (headers.PAX, headers.PAX_GLOBAL, headers.LONG_NAME, headers.LONG_LINK):
                fields |= self._fields(header, at)
                at += _padded(header.size)
                continue
            while header.continues and at < self.size:
                more = self.window.get(at, BLOCK)
                header = Header(header.name, header.kind, header.size, header.link, len(more) > 504 and more[504] != 0)
                at += BLOCK
            header, fields = self._named(header, fields), {}
            self._check_end(at + header.size)
            yield header, at, zlib.crc32(block)
            at += _padded(header.size)
            self.n += 1
        if at < self.size:
            self.notes.append(
                f"the archive ends after {plural(self.n, 'member')} with more than {MAX_ZEROS:,} zero bytes: what may "
                f"stand in its last {self.size - at:,} bytes is left out"
            )
        elif not zeros:
            self.notes.append(f"the archive has no end mark behind its {plural(self.n, 'member')}: it may be cut")

    def _header(self, block: bytes, at: int, zeros: int) -> Header | None:
        """The header in a block; None where the archive has ended before and something else follows."""
        if len(block) < BLOCK:
            raise self._damaged(f"it ends within a header after {plural(self.n, 'whole member')}")
        try:
            header = headers.parse(block)
        except NoHeader as error:
            if zeros >= 2 * BLOCK:
                return None
            if at == 0:
                raise self._no_tar(block) from None
            raise self._damaged(f"the header after {plural(self.n, 'whole member')} (byte {at:,}) {error}") from None
        if header.kind == headers.CONTINUED:
            raise self._damaged("it continues a volume before it; join the volumes first")
        return header

    def _fields(self, header: Header, at: int) -> dict[bytes, bytes]:
        """What an extended header says of the next member; {} for one of the whole archive, which names no member."""
        if header.size > MAX_FIELD_BYTES:
            raise self._damaged(f"an extended header after {plural(self.n, 'member')} announces {header.size:,} bytes")
        self._check_end(at + header.size)
        data = self.window.get(at, header.size)
        if header.kind == headers.PAX_GLOBAL:
            return {}
        if header.kind == headers.PAX:
            try:
                return headers.pax_fields(data)
            except NoHeader as error:
                raise self._damaged(f"the header after {plural(self.n, 'whole member')} {error}") from None
        return {b"path" if header.kind == headers.LONG_NAME else b"linkpath": data.split(b"\0", 1)[0]}

    def _named(self, header: Header, fields: dict[bytes, bytes]) -> Header:
        """The header of a member with what its extended header says."""
        size = fields.get(b"size", b"")
        if size and not (size.isdigit() and len(size) < 19):
            raise self._damaged(f"the size of the member after {plural(self.n, 'whole one')} is no number")
        sparse = any(key.startswith(b"GNU.sparse.") for key in fields)
        return Header(
            fields.get(b"path", header.name),
            headers.SPARSE if sparse else header.kind,
            0 if header.kind in headers.WITHOUT_DATA else int(size) if size else header.size,
            fields.get(b"linkpath", header.link),
            False,
        )

    def _check_end(self, end: int) -> None:
        if end > self.size:
            raise self._damaged(
                f"it is cut: the member after {plural(self.n, 'whole one')} would end at byte {end:,} of {self.size:,}"
            )

    def _damaged(self, what: str) -> ManifestError:
        return damaged(self.uri, "tar", what)

    def _no_tar(self, block: bytes) -> ManifestError:
        packed = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}
        tool = next((tool for mark, tool in packed.items() if block.startswith(mark)), "")
        if tool:
            return ManifestError(
                f"{shown(self.uri)}: is a compressed tar, of which no part can be read by itself. Decompress it first "
                f"({tool}), or write a zip."
            )
        return damaged(self.uri, "tar", "it does not begin with a header")


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


@dataclass
class _Window:
    """Bytes of a file that are read ahead of the walk."""

    uri: str
    size: int
    storage: Storage
    start: int = 0
    held: bytes = b""

    def get(self, start: int, length: int) -> bytes:
        """`length` bytes from `start` on; fewer at the end of the file."""
        length = min(length, self.size - start)
        if start < self.start or start + length > self.start + len(self.held):
            near = is_remote(self.uri) and start - (self.start + len(self.held)) < _NEAR_BYTES
            ahead = max(length, _AHEAD_BYTES if near else _HEADER_BYTES)
            self.held = self.storage.read_range(self.uri, start, min(ahead, self.size - start))
            self.start = start
        first = start - self.start
        return self.held[first : first + length]
