"""A session of tests that leaves a process or a folder behind fails and names it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import leftovers
import pytest
from leftovers import MARK, Session


def test_a_process_and_a_folder_that_are_left_fail_the_session(monkeypatch) -> None:
    environment = dict(os.environ)
    session = Session(environment)
    assert session.end(0.0) == []
    session = Session(environment)
    Path(session.folder, "cxr-left").mkdir()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env=environment)
    monkeypatch.setattr(leftovers, "THIS", session)
    monkeypatch.setattr(leftovers, "GRACE_S", 0.0)
    session.end = lambda: Session.end(session, 0.0)  # type: ignore[method-assign]
    ended = SimpleNamespace(exitstatus=pytest.ExitCode.OK)
    leftovers.pytest_sessionfinish(ended)  # type: ignore[arg-type]
    assert ended.exitstatus == pytest.ExitCode.TESTS_FAILED
    process, folder = session.left
    assert process.startswith(f"process {child.pid}: ")
    assert "input()" in process
    assert folder == f"folder {session.folder}/cxr-left"
    assert child.wait(10) == -9
    assert not Path(session.folder).exists()


def test_a_title_over_the_environment_hides_no_process_of_ray(tmp_path) -> None:
    session = Session({})
    for pid, command, environ, opened in (
        ("7", "ray::TrainController", "XYZ", f"{session.folder}/cxr-1/r1/session/logs/worker.err"),
        ("8", "ray::IDLE", "XYZ", "/tmp/ray/session/logs/worker.err"),
        ("9", "tail", "XYZ", f"{session.folder}/cxr-1/r1/session/logs/worker.err"),
        ("10", "python", f"A=1\0{MARK}={session.mark}", "/dev/null"),
        ("11", "python resource_tracker", f"{MARK}={session.mark}", "/dev/null"),
    ):
        (tmp_path / pid / "fd").mkdir(parents=True)
        (tmp_path / pid / "fd" / "2").symlink_to(opened)
        (tmp_path / pid / "cmdline").write_text(command)
        (tmp_path / pid / "environ").write_text(environ)
    assert sorted(session.alive(tmp_path)) == [7, 10]
    session.end(0.0)
