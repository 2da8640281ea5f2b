"""Failures of storage as rejects: one image that cannot be fetched loses no other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from chexray.data.rejects import Reject
from chexray.errors import StorageError

_CODES = ("not_found", "denied", "unavailable", "corrupt", "too_large")


def guarded(fetch: Callable[[], object]) -> Any:
    """What `fetch` returns, or the Reject of its failure."""
    try:
        return fetch()
    except StorageError as error:
        code = getattr(error, "code", "")
        return Reject(code if code in _CODES else "unreadable", str(error), error.transient)
    except MemoryError:
        return Reject("out_of_memory", "no memory to fetch the image", transient=True)
    except Exception as error:  # one odd name must not lose the whole chunk
        return Reject("unreadable", f"cannot be fetched ({type(error).__name__})")
