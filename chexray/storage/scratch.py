"""Folders for the time of one process: readable by its user only, and removed however the process ends.

Beside a process with such a folder waits another (`reaper`), which removes the folder, and ends what was started for
it, once the process is gone. What both left, after a power cut or on a system without processes to spare, a later
process removes.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from chexray.storage import reaper
from chexray.storage.places import DEFAULT, PREFIX, choose

_LOCK = "lock"
_ABANDONED_S = 24 * 3600.0
"""After this long a folder without a lock, such as version 0.1.0 made them, is taken for a killed run's."""
_JUST_MADE_S = 60.0
"""A folder without a lock may be about to get one."""
_REAPED_S = 2.0
"""How long the end of a process waits for its reaper, which needs some 30 ms."""

_open: list[str] = []
"""The folders of this process that are in use, the outermost first."""
_handles: set[int] = set()
"""Locks and pipes that a forked child must not keep: its parent's end would go unseen."""


def place() -> Path:
    """Where scratch folders lie when nobody says where. Raises ResourceError when no folder can be used."""
    return Path(choose(None, os.environ)[0])


@contextmanager
def scratch(kind: str = "", at: str = "", note: Callable[[str], object] = lambda _: None) -> Iterator[str]:
    """A new folder of mode 0700 below `at`, removed at the end; those that killed processes of this user left are
    removed too. One of a `kind` lies inside the folder that this process has already, if it has one.

    A lock says whose folder is in use: it ends with its process, however that ended, and passes to no child.
    note: is given a line when leftovers would have to wait for the next run.
    """
    if kind and _open:
        folder = tempfile.mkdtemp(prefix=kind, dir=_open[-1])
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return
    parent = Path(at) if at else place()
    for each in {parent, DEFAULT}:
        remove_leftovers(each)
    folder = tempfile.mkdtemp(prefix=f"{PREFIX}{kind}", dir=parent)
    lock = os.open(os.path.join(folder, _LOCK), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    _handles.add(lock)
    waiting = _reaper(folder, note)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _open.append(folder)
        yield folder
    finally:
        if folder in _open:
            _open.remove(folder)
        if reaper.processes_of(folder):  # before the files go, since they would write new ones
            reaper.end_processes_of(folder)
        shutil.rmtree(folder, ignore_errors=True)
        _handles.discard(lock)
        os.close(lock)
        if waiting is not None:
            _dismiss(waiting)


def _reaper(folder: str, note: Callable[[str], object]) -> subprocess.Popen[bytes] | None:
    """The process that waits for the end of this one, out of reach of Ctrl-C; None where none can be started."""
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", reaper.__file__, folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
    except (OSError, ValueError, TypeError) as error:  # no processes left, or no interpreter: Python is embedded
        reason = getattr(error, "strerror", None) or type(error).__name__
        note(f"note: nothing watches this run ({reason}): if it is killed, the next run removes {folder}")
        return None
    assert process.stdin is not None
    _handles.add(process.stdin.fileno())
    return process


def _dismiss(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    _handles.discard(process.stdin.fileno())
    process.stdin.close()
    with suppress(subprocess.TimeoutExpired):  # it ends by itself
        process.wait(_REAPED_S)


def _let_go() -> None:
    for handle in _handles:
        with suppress(OSError):
            os.close(handle)
    _handles.clear()
    _open.clear()


os.register_at_fork(after_in_child=_let_go)


def remove_leftovers(parent: Path) -> list[str]:
    """Removes the scratch folders of this user whose process is gone, and ends what was started for them; returns
    their paths."""
    removed = []
    with suppress(OSError):
        for entry in sorted(os.scandir(parent), key=lambda entry: entry.name):
            with suppress(OSError):
                found = entry.stat(follow_symlinks=False)
                mine = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
                if entry.name.startswith(PREFIX) and mine and _is_abandoned(entry.path, found.st_mtime):
                    if reaper.processes_of(entry.path):
                        reaper.end_processes_of(entry.path)
                    shutil.rmtree(entry.path, ignore_errors=True)
                    removed.append(entry.path)
    return removed


def _is_abandoned(folder: str, changed: float) -> bool:
    try:
        lock = os.open(os.path.join(folder, _LOCK), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        # Just made, by version 0.1.0, or what Ray wrote again into a folder that was being removed.
        age = time.time() - changed
        return age > _ABANDONED_S or (age > _JUST_MADE_S and _held_a_ray(folder))
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True


def _held_a_ray(folder: str) -> bool:
    """Whether a Ray ran in the folder and runs no more: nobody listens at its sockets. Processes of a container that
    shares the folder cannot be seen, but their sockets answer."""
    sessions = list(Path(folder).glob("r*/session_*"))
    return bool(sessions) and not any(map(_answers, Path(folder).glob("r*/session_*/sockets/*")))


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.settimeout(1.0)
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:  # a listener with much to do, or one that is another's: leave it alone
            return True
    return True
