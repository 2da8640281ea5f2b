"""Headers of tar archives: ustar, PAX and GNU long names, each checked by its checksum."""

from __future__ import annotations

from dataclasses import dataclass

BLOCK = 512
FILE_TYPES = b"0\x007"
HARD_LINK, SYMBOLIC_LINK, FOLDER, SPARSE = b"1", b"2", b"5", b"S"
WITHOUT_DATA = b"123456"
LONG_NAME, LONG_LINK, PAX, PAX_GLOBAL = b"L", b"K", b"x", b"g"
CONTINUED = b"M"


class NoHeader(Exception):
    """512 bytes that are no header. The text says why."""


@dataclass(frozen=True)
class Header:
    """kind: one byte. size: of the data behind the header. link: what a link leads to."""

    name: bytes
    kind: bytes
    size: int
    link: bytes
    continues: bool


def parse(block: bytes) -> Header:
    """The header in 512 bytes. Raises NoHeader."""
    stored = _number(block[148:156])
    blanked = block[:148] + b" " * 8 + block[156:]
    signed = sum(blanked) - 256 * sum(byte > 127 for byte in blanked)
    if stored not in (sum(blanked), signed):
        raise NoHeader("does not match its checksum")
    name = block[:100].split(b"\0", 1)[0]
    if block[257:263] == b"ustar\0" and (prefix := block[345:500].split(b"\0", 1)[0]):
        name = prefix + b"/" + name
    kind = block[156:157]
    if kind in (b"0", b"\0") and name.endswith(b"/"):  # as before POSIX
        kind = FOLDER
    continues = kind == SPARSE and block[482] != 0
    return Header(name, kind, _number(block[124:136]), block[157:257].split(b"\0", 1)[0], continues)


def _number(field: bytes) -> int:
    """A number in octal digits, or in binary where the first bit is set."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    text = field.strip(b" \0")
    if text and not (text.isdigit() and not set(text) & set(b"89")):
        raise NoHeader("holds a number that is none")
    return int(text or b"0", 8)


def pax_fields(data: bytes) -> dict[bytes, bytes]:
    """The fields of a PAX header: lines `length key=value`. Raises NoHeader."""
    fields: dict[bytes, bytes] = {}
    at = 0
    while at < len(data) and data[at]:
        blank = data.find(b" ", at, at + 10)
        digits = data[at:blank] if blank > 0 else b""
        end = at + int(digits) if digits.isdigit() else 0
        line = data[blank + 1 : end - 1] if blank < end <= len(data) else b""
        if b"=" not in line or data[end - 1 : end] != b"\n":
            raise NoHeader("holds a PAX field that is none")
        key, _, value = line.partition(b"=")
        fields[key] = value
        at = end
    return fields
