"""Folders for the time of one process: readable by its user only, and removed by a later process if it was killed."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "cxr-"
_LOCK = "lock"
_ABANDONED_S = 24 * 3600.0
"""After this long a folder of version 0.1.0, which held no lock, is taken for a killed run's."""


def place() -> Path:
    """Where scratch folders lie. /tmp where there is one: Ray's sockets below may not pass 107 characters."""
    return Path("/tmp") if Path("/tmp").is_dir() else Path(tempfile.gettempdir())


@contextmanager
def scratch(kind: str = "") -> Iterator[str]:
    """A new folder of mode 0700, removed at the end; those that killed processes of this user left are removed too.

    A lock says whose folder is in use: it ends with its process, however that ended, and passes to no child.
    """
    remove_leftovers(place())
    folder = tempfile.mkdtemp(prefix=f"{PREFIX}{kind}", dir=place())
    lock = os.open(os.path.join(folder, _LOCK), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def remove_leftovers(parent: Path) -> list[str]:
    """Removes the scratch folders of this user whose process is gone; returns their paths."""
    removed = []
    with suppress(OSError):
        for entry in sorted(os.scandir(parent), key=lambda entry: entry.name):
            with suppress(OSError):
                found = entry.stat(follow_symlinks=False)
                mine = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
                if entry.name.startswith(PREFIX) and mine and _is_abandoned(entry.path, found.st_mtime):
                    shutil.rmtree(entry.path, ignore_errors=True)
                    removed.append(entry.path)
    return removed


def _is_abandoned(folder: str, changed: float) -> bool:
    try:
        lock = os.open(os.path.join(folder, _LOCK), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        # Either just made, or by version 0.1.0.
        return time.time() - changed > _ABANDONED_S
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True
