"""Nothing outlives a process with a scratch folder: its folder and what was started for it go with it, however it
ends. What killed processes of other versions left goes with the next one."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from chexray.storage import reaper, scratch
from chexray.storage.reaper import MARK, processes_of

STARTS = """
import os, signal, subprocess, sys, time
from chexray.storage.scratch import scratch
with scratch(at=sys.argv[1]) as folder, scratch("train-") as inner:
    environment = {**os.environ, "CHEXRAY_SCRATCH": folder}
    # As a worker of Ray's: in a session of its own, deaf to polite signals, its parent gone.
    deaf = "import signal, sys; [signal.signal(n, signal.SIG_IGN) for n in (1, 2, 15)]; print(1, flush=True); input()"
    stays, pipe = os.pipe()
    worker = subprocess.Popen([sys.executable, "-c", deaf], env=environment, start_new_session=True, stdin=stays,
                              pass_fds=[pipe], stdout=subprocess.PIPE)
    worker.stdout.readline()
    how = sys.argv[2]
    if how == "fork" and os.fork() == 0:
        sys.stdin.readline()  # a child of the user's own that goes on, and holds what it inherited
        os._exit(0)
    print(worker.pid, inner, flush=True)
    if how == "exit":
        os._exit(3)
    if how in ("kill", "fork"):
        os.kill(os.getpid(), signal.SIGKILL)
"""


def within(seconds: float, holds: Callable[[], bool]) -> bool:
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize("how", ["end", "kill", "exit", "fork"])
def test_folder_and_workers_go_with_the_process(tmp_path, how) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", STARTS, str(tmp_path), how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    worker, inner = process.stdout.readline().split()
    (folder,) = {Path(inner).parent, *tmp_path.glob("cxr-*")}
    process.wait(30)
    assert within(10, lambda: not is_alive(int(worker)) and not folder.exists())
    if how == "end":
        assert process.returncode == 0
    process.communicate()  # ends: nobody else holds the output


def test_only_what_was_started_for_the_folder_is_ended(tmp_path) -> None:
    folder = "/tmp/cxr-1"
    for pid, command, environ, opened in (
        ("7", "python\0worker", f"A=1\0{MARK}={folder}\0B=2", "/dev/null"),
        ("8", "ray::TrainController", "written over", f"{folder}/r1/session/logs/worker.err"),
        ("9", "ray::IDLE", "written over", "/tmp/cxr-12/r1/session/logs/worker.err"),
        ("10", f"tail\0-f\0{folder}/r1/session/logs/worker.err", "A=1", f"{folder}/r1/session/logs/worker.err"),
        ("11", "python", f"{MARK}=/tmp/cxr-12", "/dev/null"),
        ("12", "python", f"X{MARK}={folder}", "/dev/null"),
        (str(os.getpid()), "python", f"{MARK}={folder}", "/dev/null"),
    ):
        (tmp_path / pid / "fd").mkdir(parents=True)
        (tmp_path / pid / "fd" / "1").symlink_to(opened)
        (tmp_path / pid / "cmdline").write_text(command)
        (tmp_path / pid / "environ").write_text(environ)
    (tmp_path / "13").mkdir()  # ended meanwhile
    (tmp_path / "meminfo").touch()
    assert sorted(processes_of(folder, str(tmp_path))) == [7, 8]
    assert processes_of(folder, str(tmp_path / "none")) == []


def test_where_no_process_can_be_started_the_run_goes_on_with_a_note(tmp_path, monkeypatch) -> None:
    def full(*_, **__):
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", full)
    notes: list[str] = []
    with scratch.scratch(at=str(tmp_path), note=notes.append) as folder:
        assert Path(folder).is_dir()
    assert not Path(folder).exists()
    (note,) = notes
    assert "nothing watches this run (Resource temporarily unavailable)" in note
    assert "the next run removes" in note


def test_what_ends_the_group_of_the_run_does_not_end_its_reaper_and_the_run_does(tmp_path) -> None:
    with scratch.scratch(at=str(tmp_path)) as folder:
        assert within(10, lambda: _watching(folder))  # a process bears its name once it has begun
        watching = _watching(folder)
        assert len(watching) == 1
        assert os.getsid(watching[0]) == watching[0]  # Ctrl-C and a closed terminal do not reach it
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            assert within(10, lambda: _ignores(watching[0], number))  # noqa: B023
    assert within(10, lambda: not is_alive(watching[0]))


def _watching(folder: str) -> list[int]:
    return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _watches(pid, folder)]


def _watches(pid: int, folder: str) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().endswith(b"reaper.py\0" + folder.encode() + b"\0")
    except OSError:
        return False


def _ignores(pid: int, number: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    ignored = next(line for line in status.splitlines() if line.startswith("SigIgn"))
    return bool(int(ignored.split()[1], 16) >> (number - 1) & 1)


def test_what_a_ray_left_without_a_lock_is_removed_once_nobody_listens(tmp_path) -> None:
    def made(name: str, sockets: str = "") -> Path:
        folder = tmp_path / name
        (folder / sockets).mkdir(parents=True)
        os.utime(folder, (time.time() - 120, time.time() - 120))
        return folder

    session = "r/session_2026-01-01_00-00-00_000000_1/sockets"
    dead, live, empty = made("cxr-dead", session), made("cxr-live", session), made("cxr-empty")
    here = os.getcwd()
    with socket.socket(socket.AF_UNIX) as left, socket.socket(socket.AF_UNIX) as listener:
        try:  # relative, since a path of a test is too long for a socket
            os.chdir(dead / session)
            left.bind("raylet")
            left.close()
            os.chdir(live / session)
            listener.bind("raylet")
            listener.listen()
            os.chdir(tmp_path)
            assert scratch.remove_leftovers(Path(".")) == ["./cxr-dead"]
        finally:
            os.chdir(here)
    assert not dead.exists()
    assert live.exists()
    assert empty.exists()


def test_workers_that_a_killed_run_left_are_ended_with_its_folder(tmp_path, monkeypatch) -> None:
    left = tmp_path / "cxr-killed"
    left.mkdir()
    (left / "lock").touch()
    environment = {**os.environ, MARK: str(left)}
    worker = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env=environment)
    try:
        assert within(10, lambda: worker.pid in reaper.processes_of(str(left)))
        with scratch.scratch(at=str(tmp_path)):
            assert not left.exists()
        assert worker.wait(10) == -signal.SIGKILL
    finally:
        worker.kill()
        worker.communicate()
