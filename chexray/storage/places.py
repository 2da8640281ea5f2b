"""Where temporary files may lie: a folder that takes files, locks and sockets, with a path short enough for Ray's."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import socket
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from chexray.errors import ResourceError
from chexray.text import shown

PREFIX = "cxr-"
DEFAULT = Path("/tmp") if Path("/tmp").is_dir() else Path(tempfile.gettempdir())
SOCKET_CHARS = 107
"""Longest path of a socket on Linux."""
_RAYS_SOCKET = f"/{PREFIX}12345678/r1/session_2026-11-30_12-48-50_364512_4194304/sockets/plasma_store"
LONGEST = SOCKET_CHARS - len(_RAYS_SOCKET)
"""Longest path of the folder that is chosen: 27 characters."""
LEAST_BYTES = 10_000_000
"""Ray's own files of a short run take 2 MB. What spills from memory has its own check in `chexray doctor`."""


def choose(setting: str | None, environment: Mapping[str, str]) -> tuple[str, list[str]]:
    """(folder, notes on folders that were asked for and cannot be used).

    The folder is `setting` (ray.temp_dir), or the first of RAY_TMPDIR, TMPDIR and /tmp that can be used. Raises
    ResourceError with what is wrong with each when there is none.
    """
    wanted = {"ray.temp_dir": setting} if setting else {name: environment.get(name) for name in _VARIABLES}
    places = {os.path.abspath(os.path.expanduser(path)): f"{name}=" for name, path in wanted.items() if path}
    if not setting:
        places.setdefault(str(DEFAULT), "")
    problems: list[str] = []
    for folder, name in places.items():
        problem = problem_of(folder)
        if not problem:
            return folder, [f"note: Ray's files go to {folder}, since {why}" for why in problems]
        problems.append(f"{name}{shown(folder)} {problem}")
    raise ResourceError(
        f"Ray has no folder for its sockets and logs: {'; '.join(problems)}. Set ray.temp_dir, RAY_TMPDIR or TMPDIR to "
        f"a folder that you may write to, on a local disk with {LEAST_BYTES / 1e6:g} MB free, with a path of at most "
        f"{LONGEST} characters."
    )


_VARIABLES = ("RAY_TMPDIR", "TMPDIR")


def problem_of(folder: str) -> str:
    """Why Ray cannot keep its files below `folder`, "" where it can. Something of each kind is made there, and removed.

    Programs need not run from there: a noexec mount will do.
    """
    if not os.path.isdir(folder):
        return "is a file" if os.path.exists(folder) else "does not exist"
    if len(os.fsencode(folder)) > LONGEST:
        return f"is too long ({len(os.fsencode(folder))} characters; Ray's sockets below it leave room for {LONGEST})"
    doing = "be written"
    probe = ""
    try:
        probe = tempfile.mkdtemp(prefix=f"{PREFIX}probe-", dir=folder)
        with open(os.path.join(probe, "file"), "wb") as file:
            file.write(bytes(65536))
            file.flush()
            doing = "hold locks"
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        doing = "hold sockets"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(os.path.join(probe, "socket"))
        free = shutil.disk_usage(folder).free
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return f"is full ({(error.strerror or '').lower()})"
        return f"cannot {doing} ({(error.strerror or type(error).__name__).lower()})"
    finally:
        if probe:
            with suppress(OSError):
                shutil.rmtree(probe)
    if free < LEAST_BYTES:
        return f"is full ({free / 1e6:.2g} MB free)"
    return ""
