"""Bytes of a valid file, damaged: flipped, cut, spliced, repeated, with lengths that lie."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence

LENGTHS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
INTERESTING = (b"\x00" * 8, b"\xff" * 8, b"\x80", b"\x7f\xff\xff\xff", b"\n", b"\r\n", b"\x1b[2J", b"../", b"\x00")


def mutated(data: bytes, rng: random.Random, others: Sequence[bytes] = ()) -> bytes:
    """One to eight changes of `data`; others: files of the same kind, to splice with."""
    found = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 3, 5, 8])):
        found = _change(found, rng, others)
    return bytes(found)


def _change(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> bytearray:
    if not data:
        return bytearray(rng.randbytes(rng.choice([0, 1, 64])))
    at = _place(data, rng)
    match rng.randrange(9):
        case 0 | 1:
            data[at] ^= 1 << rng.randrange(8)
        case 2:
            data[at] = rng.randrange(256)
        case 3:
            del data[at:]
        case 4:
            del data[at : at + rng.choice([1, 2, 4, 16, 256])]
        case 5:
            size = rng.choice([1, 4, 32, 512])
            data[at:at] = data[at : at + size] * rng.choice([1, 2, 50])
        case 6:
            width, order = rng.choice([1, 2, 4]), rng.choice("<>")
            value = rng.choice(LENGTHS) & (256**width - 1)
            data[at : at + width] = struct.pack(order + {1: "B", 2: "H", 4: "I"}[width], value)
        case 7:
            data[at : at + 1] = rng.choice(INTERESTING)
        case _:
            other = rng.choice(others) if others else bytes(data)
            start = rng.randrange(len(other)) if other else 0
            size = rng.choice([4, 64, 1024, len(other)])
            data[at : at + rng.choice([0, size])] = other[start : start + size]
    return data


def _place(data: bytearray, rng: random.Random) -> int:
    """Headers and tails steer a reader, so half of the changes are there."""
    draw, n = rng.random(), len(data)
    if draw < 0.35:
        return rng.randrange(min(n, 128))
    if draw < 0.5:
        return n - 1 - rng.randrange(min(n, 256))
    return rng.randrange(n)
