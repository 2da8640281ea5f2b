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
    ended = SimpleNamespace(exitstatus=pytest.ExitCode.OK, config=SimpleNamespace())
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


def test_a_process_of_xdist_hands_on_what_was_left_and_the_first_one_finds_what_it_started(monkeypatch) -> None:
    first = Session({})
    worker = Session({MARK: first.mark, "PYTEST_XDIST_WORKER": "gw0"})
    monkeypatch.setattr(leftovers, "THIS", worker)
    Path(worker.folder, "cxr-left").mkdir()
    worker.end = lambda: Session.end(worker, 0.0)  # type: ignore[method-assign]
    ended = SimpleNamespace(exitstatus=pytest.ExitCode.OK, config=SimpleNamespace(workeroutput={}))
    leftovers.pytest_sessionfinish(ended)  # type: ignore[arg-type]

    environment = {**os.environ, MARK: worker.mark}
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env=environment) as child:
        assert child.pid in first.alive()
        assert child.pid not in Session({}).alive()
        child.kill()
    monkeypatch.setattr(leftovers, "THIS", first)
    leftovers.pytest_testnodedown(SimpleNamespace(workeroutput=ended.config.workeroutput))
    leftovers.pytest_testnodedown(SimpleNamespace())  # it died
    assert first.left == [f"folder {worker.folder}/cxr-left"]
    first.end(0.0)
