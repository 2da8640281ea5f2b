"""Ends what a process left behind: `python -I -S reaper.py FOLDER` waits for the end of its standard input.

The other end of that pipe is held by the process whose folder it is. It closes however that process ends, also by
SIGKILL; then the processes that were started for the folder are ended, and the folder is removed. Only the standard
library is imported, and little of it: this starts with each run, and waits beside it.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from contextlib import suppress

MARK = "CHEXRAY_SCRATCH"
"""The variable that names the folder in the environment of each process started for it."""
PATIENCE_S = 8.0
"""For processes that are still being started when the pipe closes."""
_SETTLE_S = 0.1


def processes_of(folder: str, proc: str = "/proc") -> list[int]:
    """The processes of this user that were started for `folder`, without this one; [] on systems without /proc.

    They have MARK in their environment. Ray writes the titles of its processes over their command line and sometimes
    over the first of their environment: a process with such a title counts when a file of the folder is open in it.
    Who merely reads a file there, or names the folder on its command line, is somebody else.
    """
    mark, below = os.fsencode(f"{MARK}={folder}"), folder + "/"
    found = []
    with suppress(OSError):
        for name in os.listdir(proc):
            # Processes of others, and those that end meanwhile, cannot be read.
            with suppress(OSError):
                if not name.isdigit() or int(name) == os.getpid() or os.stat(f"{proc}/{name}").st_uid != os.getuid():
                    continue
                with open(f"{proc}/{name}/environ", "rb") as file:
                    is_marked = mark in file.read().split(b"\0")
                if is_marked or (_has_title(f"{proc}/{name}") and _opens(f"{proc}/{name}/fd", below)):
                    found.append(int(name))
    return found


def _has_title(process: str) -> bool:
    with open(f"{process}/cmdline", "rb") as file:
        return file.read(5) == b"ray::"


def _opens(handles: str, below: str) -> bool:
    for name in os.listdir(handles):
        with suppress(OSError):
            if os.readlink(f"{handles}/{name}").startswith(below):
                return True
    return False


def end_processes_of(folder: str, patience_s: float = PATIENCE_S) -> None:
    """SIGKILL to the processes of `folder` until none is left, at most for `patience_s`.

    One that cannot be ended yet (it waits for a dead file system) does not hold up the rest.
    """
    end, was_empty = time.monotonic() + patience_s, False
    while time.monotonic() < end:
        found = processes_of(folder)
        if not found and was_empty:
            return
        # A process that was just being started shows at the second look.
        was_empty = not found
        for pid in found:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_SETTLE_S)


def main() -> None:
    folder = sys.argv[1]
    # What ends a whole group or session of processes must not end this one before its work.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while os.read(0, 1024):
        pass
    if not os.path.isdir(folder) and not processes_of(folder):
        return  # the process ended as it should
    end_processes_of(folder)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
