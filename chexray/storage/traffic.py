"""How much this process read through `Storage`: bytes, and requests that brought some.

Parquet files of the local disk are read by Arrow itself and are not counted.
"""

from __future__ import annotations

import threading

_lock = threading.Lock()
_read = [0, 0]


def counted(data: bytes) -> bytes:
    """The same bytes, added to what was read."""
    with _lock:
        _read[0] += len(data)
        _read[1] += 1
    return data


def taken() -> tuple[int, int]:
    """(bytes, requests) since the last call in this process."""
    with _lock:
        found = _read[0], _read[1]
        _read[:] = 0, 0
    return found
