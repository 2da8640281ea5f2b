"""Gives freed memory back to the system between the stages of a run."""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress

import pyarrow as pa


def trim_memory() -> None:
    """What a stage freed goes back: the C library keeps it else, because later small objects lie between, and a driver
    that read 237,388 rows holds hundreds of megabytes that nothing uses. Does nothing where glibc is not the C library.
    """
    gc.collect()
    pa.default_memory_pool().release_unused()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
