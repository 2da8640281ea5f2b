"""A remote file as a seekable stream, read in ranges."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, BinaryIO

from chexray.storage.uris import FileStat

if TYPE_CHECKING:
    from chexray.storage import Storage

TAIL_BYTES = 1 << 16
"""What is kept of the end of a remote file: Arrow asks for the last 64 KiB first, and most footers fit."""


def stream(storage: Storage, found: FileStat) -> BinaryIO:
    """A remote file to read from; `storage` retries each part of it."""
    return io.BufferedReader(_Ranges(storage, found), buffer_size=1 << 16)


class _Ranges(io.RawIOBase):
    """A remote file as a seekable stream; each read is one ranged GET with the retries of its storage.

    The end, where Parquet keeps its footer, is fetched once: it is read to check the schema, and again by Arrow.
    """

    def __init__(self, storage: Storage, found: FileStat):
        self.storage, self.found, self.position = storage, found, 0
        self.tail_start, self.tail = max(0, found.size - TAIL_BYTES), b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.found.size}[whence]
        self.position = start + offset
        return self.position

    def readinto(self, buffer: memoryview) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        wanted = min(len(buffer), self.found.size - self.position)
        if wanted > 0 and self.position >= self.tail_start:
            length = self.found.size - self.tail_start
            self.tail = self.tail or self.storage.read_range(self.found.uri, self.tail_start, length)
            start = self.position - self.tail_start
            data = self.tail[start : start + wanted]
        else:
            data = self.storage.read_range(self.found.uri, self.position, wanted)
        buffer[: len(data)] = data
        self.position += len(data)
        return len(data)
