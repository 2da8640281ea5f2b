"""One member of a tar archive: its header and its data as they lie there. A tar keeps no checksum of data."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from chexray.data.containers.tar_headers import BLOCK
from chexray.data.rejects import Reject


@dataclass(frozen=True)
class TarMember:
    """Where a member lies: `size` bytes from `data` on, behind a header of BLOCK bytes, of which `header` is the CRC.

    Another archive that has taken the place of the one that was listed has other headers, or has this member there.
    """

    file: str
    name: bytes
    data: int
    size: int
    header: int

    @property
    def start(self) -> int:
        return self.data - BLOCK

    @property
    def end(self) -> int:
        return self.data + self.size

    @property
    def largest(self) -> int:
        """Bytes of the largest of its forms, of which a tar has one."""
        return self.size

    def unpack(self, stored: memoryview) -> bytes | Reject:
        """The data from the bytes [start, end) of the archive, or why there are none."""
        if len(stored) < BLOCK + self.size:
            there = max(0, len(stored) - BLOCK)
            return Reject("truncated", f"the archive ends after {there} of {self.size} bytes of the member")
        if zlib.crc32(stored[:BLOCK]) != self.header:
            return Reject("corrupt", "the archive has another header there than was listed")
        return bytes(stored[BLOCK : BLOCK + self.size])
