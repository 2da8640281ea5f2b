"""One member of a zip archive: its bytes checked against everything that the directory said of it."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from chexray.data.rejects import Reject

LOCAL_BYTES = 30
"""Length of a local header without its name and its extra fields."""
STORED, DEFLATED = 0, 8
METHODS = {9: "Deflate64", 12: "bzip2", 14: "LZMA", 93: "Zstandard", 95: "xz", 98: "PPMd", 99: "AES encryption"}
_LOCAL = struct.Struct("<4sHHHHHIIIHH").unpack_from


@dataclass(frozen=True)
class ZipMember:
    """A member as the directory describes it. It lies in [start, end) of the file, which begins with its local header.

    compressed, size: bytes of its data as stored and as they are. crc: of its data.
    """

    file: str
    name: bytes
    start: int
    end: int
    compressed: int
    size: int
    crc: int
    method: int

    @property
    def largest(self) -> int:
        """Bytes of the largest of its forms: unpacked, packed, and as it lies in the archive."""
        return max(self.compressed, self.size, self.end - self.start)

    def unpack(self, stored: memoryview) -> bytes | Reject:
        """The data from the bytes [start, end) of the archive, or why there are none. At most `size` bytes are made.

        Where the data begin is taken from the local header: its extra fields have another length than the directory's.
        """
        if len(stored) < LOCAL_BYTES:
            return Reject("truncated", "the archive ends before the member")
        signature, _, flags, method, *_, name_length, extra = _LOCAL(stored)
        name_end = LOCAL_BYTES + name_length
        if signature != b"PK\3\4" or bytes(stored[LOCAL_BYTES:name_end]) != self.name:
            return Reject("corrupt", "another thing lies where the directory of the archive says that the member is")
        if flags & 1:
            return Reject("unsupported", "an encrypted member of a zip archive")
        if method != self.method or method not in (STORED, DEFLATED):
            how = METHODS.get(method, "")
            kind = f"compression method {method}{f' ({how})' if how else ''}"
            return Reject("unsupported", f"a member with {kind}. Write the zip with deflate or stored")
        data = stored[name_end + extra : name_end + extra + self.compressed]
        if len(data) < self.compressed:
            return Reject("truncated", f"{len(data)} of {self.compressed} bytes of the member are in the archive")
        found = bytes(data) if method == STORED else self._inflated(data)
        if isinstance(found, Reject):
            return found
        if len(found) != self.size:
            return Reject("corrupt", f"the member has {len(found)} bytes, its directory says {self.size}")
        if zlib.crc32(found) != self.crc:
            return Reject("corrupt", "the member does not match its checksum")
        return found

    def _inflated(self, data: memoryview) -> bytes | Reject:
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            found = inflater.decompress(data, self.size + 1)
        except zlib.error:
            return Reject("corrupt", "the compressed data of the member are damaged")
        if len(found) > self.size:
            return Reject("corrupt", f"the member expands beyond the {self.size} bytes that its directory says")
        return found if inflater.eof else Reject("corrupt", "the compressed data of the member end early")
