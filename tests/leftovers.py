"""What a session of tests leaves behind, which is a failure of the session: processes and temporary folders.

Everything that the tests start inherits a variable that names the session, and the folder where a local Ray and its
like keep their files. Who still has the variable GRACE_S after the last test, or a folder that is still there then, is
named, ended and removed, and the session fails. Under pytest-xdist each process has a folder of its own and looks after
what its tests started; the first process shows what was left, and looks after those that died.
"""

from __future__ import annotations

import os
import secrets
import signal
import time
from collections.abc import MutableMapping
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from chexray.storage.scratch import scratch

MARK = "CHEXRAY_TEST_SESSION"
GRACE_S = 10.0
ENDS_WITH_US = ("resource_tracker", "forkserver")
"""Helpers of Python's multiprocessing: they live as long as the process that the tests run in."""


class Session:
    """One session of tests: its mark, its folder, and what was found at its end."""

    def __init__(self, environment: MutableMapping[str, str] = os.environ):
        self._stack = ExitStack()
        # Short, since Ray's sockets lie below; it goes with this process, however that ends.
        self.folder = environment["RAY_TMPDIR"] = self._stack.enter_context(scratch(at="/tmp"))
        first = environment.get(MARK) if "PYTEST_XDIST_WORKER" in environment else None
        self.mark = environment[MARK] = f"{first or ''}{secrets.token_hex(8)}."
        self.left: list[str] = []

    def alive(self, proc: Path = Path("/proc")) -> dict[int, str]:
        """{process: its command line} of what the tests of this process, and of those that it started, have started.
        Ray may write a title over the environment of a process; such a one has files of the session's folder open."""
        found = {}
        for entry in proc.iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            with suppress(OSError):
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                marked = f"\0{MARK}={self.mark}".encode() in b"\0" + (entry / "environ").read_bytes()
                if (marked or (command.startswith("ray::") and self._opened_by(entry))) and not any(
                    word in command for word in ENDS_WITH_US
                ):
                    found[int(entry.name)] = command
        return found

    def _opened_by(self, process: Path) -> bool:
        for handle in (process / "fd").iterdir():
            with suppress(OSError):
                if os.readlink(handle).startswith(f"{self.folder}/"):
                    return True
        return False

    def folders(self) -> list[str]:
        return sorted(set(os.listdir(self.folder)) - {"lock"}) if os.path.isdir(self.folder) else []

    def end(self, grace_s: float = GRACE_S) -> list[str]:
        """What is left after at most `grace_s`, one line each; then it is ended and removed."""
        until = time.monotonic() + grace_s
        while (self.alive() or self.folders()) and time.monotonic() < until:
            time.sleep(0.1)
        processes = self.alive()
        self.left += [f"process {pid}: {command[:150]}" for pid, command in sorted(processes.items())]
        self.left += [f"folder {self.folder}/{name}" for name in self.folders()]
        for pid in processes:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        self._stack.close()
        return self.left


THIS = Session()


@pytest.hookimpl(trylast=True)  # after pytest-xdist has ended its processes
def pytest_sessionfinish(session: pytest.Session) -> None:
    THIS.end()
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["left"] = THIS.left
    elif THIS.left and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node) -> None:
    """What a process of pytest-xdist found at its end; nothing when it died."""
    THIS.left += getattr(node, "workeroutput", {}).get("left", [])


def pytest_terminal_summary(terminalreporter) -> None:
    if THIS.left:
        terminalreporter.section(f"left {GRACE_S:g} s after the last test", red=True, bold=True)
        for line in THIS.left:
            terminalreporter.line(line)
