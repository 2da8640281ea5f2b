"""What the threads of one process may hold at once: encoded bytes, and memory for pixels.

A worker decodes in 16 threads. Without a common bound 16 images of 64 million pixels need 16 GB; with one, such images
wait for each other, while ordinary radiographs (a few million pixels) never wait.
"""

from __future__ import annotations

import ctypes
import threading
from types import TracebackType

FILE_BYTES = 128_000_000
"""Encoded files held at once; a larger one, such as an uncompressed image of 64 million pixels, is held alone."""
PIXEL_BYTES = 768_000_000
"""Memory for decoding and preparing at once. One image may need more, up to about 1 GB, and is then decoded alone."""
BYTES_PER_PIXEL = 16
"""Memory that one pixel needs at most, measured on images of 64 million: JPEG 2000 in colour takes 15 to decode, the
other formats 2 to 12 (tests/data/test_decoding_bombs.py), and the encoder `pixels` takes 16 to prepare one."""
DEEP_BYTES_PER_PIXEL = 24
"""The same for 16-bit colour of PNG, which is decoded twice: its upper and its lower bytes."""
TRIM_BYTES = 128_000_000
"""Leases after which freed memory goes back to the system, a few ms; images from 8 million pixels on."""


def trim() -> None:
    """Gives freed memory back. glibc keeps it for the thread that freed it: 16 threads together up to 1 GB."""
    if _LIBC is not None:
        _LIBC.malloc_trim(0)


def _libc() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(None)
        library.malloc_trim.argtypes = [ctypes.c_size_t]
    except (OSError, AttributeError, TypeError):  # another C library
        return None
    return library


_LIBC = _libc()


class Budget:
    """Bytes that leases share. A lease larger than the whole budget is granted when no other is open."""

    def __init__(self, capacity: int):
        self.capacity = capacity
        self.used = 0
        self._changed = threading.Condition()

    def lease(self, size: int = 0) -> Lease:
        """A context manager. It holds `size` bytes, or waits with `take` until the size is known."""
        return Lease(self, size)

    def _take(self, size: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self.used == 0 or self.used + size <= self.capacity)
            self.used += size

    def _give(self, size: int) -> None:
        with self._changed:
            self.used -= size
            self._changed.notify_all()


class Lease:
    """One share of a Budget, from `take` to the end of the `with` block. Used by one thread."""

    def __init__(self, budget: Budget, size: int):
        self.budget, self.wanted, self.held = budget, size, 0

    def take(self, size: int) -> None:
        """Waits until `size` bytes are free. Once a lease only: who holds some and waits for more blocks for ever."""
        if self.held:
            raise RuntimeError("a lease is taken once")
        if size > 0:
            self.budget._take(size)
            self.held = size

    def __enter__(self) -> Lease:
        if self.wanted:
            self.take(self.wanted)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        if self.held:
            self.budget._give(self.held)
            self.held = 0


files = Budget(FILE_BYTES)
pixels = Budget(PIXEL_BYTES)
"""Whoever holds both takes `files` first; nothing waits for `files` while it holds `pixels`."""
