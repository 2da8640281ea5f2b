"""Where a local Ray keeps its files: what is asked for, if it can be used, and one line where nothing can."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections import namedtuple
from pathlib import Path

import pytest

from chexray.config import RayConfig
from chexray.doctor import machine
from chexray.doctor.case import Case
from chexray.errors import ResourceError
from chexray.storage import places
from chexray.storage.places import LEAST_BYTES, LONGEST, SOCKET_CHARS, choose, problem_of

usage = namedtuple("usage", "total used free")


@pytest.fixture
def short():
    """A function that makes folders with short paths."""
    made = []

    def make() -> str:
        made.append(tempfile.mkdtemp(prefix="p-", dir="/tmp"))
        return made[-1]

    yield make
    for folder in made:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def default(short, monkeypatch) -> str:
    folder = short()
    monkeypatch.setattr(places, "DEFAULT", Path(folder))
    return folder


def broken(monkeypatch, folder: str, number: int) -> None:
    """Nothing can be made in `folder` any more."""
    make = tempfile.mkdtemp

    def mkdtemp(*, prefix: str, dir: str) -> str:
        if dir == folder:
            raise OSError(number, os.strerror(number), dir)
        return make(prefix=prefix, dir=dir)

    monkeypatch.setattr(places.tempfile, "mkdtemp", mkdtemp)


def test_the_setting_wins_then_ray_tmpdir_then_tmpdir(short, default) -> None:
    mine, ray, system = short(), short(), short()
    assert choose(mine, {"RAY_TMPDIR": ray, "TMPDIR": system}) == (mine, [])
    assert choose(None, {"RAY_TMPDIR": ray, "TMPDIR": system}) == (ray, [])
    assert choose(None, {"RAY_TMPDIR": "", "TMPDIR": system}) == (system, [])
    assert choose(None, {}) == (default, [])
    assert not any(os.listdir(folder) for folder in (mine, ray, system, default))


def test_a_tmpdir_too_long_for_rays_sockets_is_passed_over_with_a_note(tmp_path, default) -> None:
    long = tmp_path / ("x" * 90)
    long.mkdir()
    folder, (note,) = choose(None, {"TMPDIR": str(long)})
    assert folder == default
    assert note.startswith(f"note: Ray's files go to {default}, since TMPDIR=/")
    assert f"leave room for {LONGEST}" in note


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EROFS, "cannot be written (read-only file system)"),
        (errno.EACCES, "cannot be written (permission denied)"),
        (errno.ENOSPC, "is full (no space left on device)"),
        (errno.EDQUOT, "is full (disk quota exceeded)"),
    ],
)
def test_a_folder_that_takes_nothing_is_passed_over_or_one_line(short, default, monkeypatch, number, words) -> None:
    bad = short()
    broken(monkeypatch, bad, number)
    folder, (note,) = choose(None, {"RAY_TMPDIR": bad})
    assert folder == default
    assert f"RAY_TMPDIR={bad} {words}" in note
    with pytest.raises(ResourceError, match=r"no folder for its sockets and logs: ray\.temp_dir=") as raised:
        choose(bad, {"TMPDIR": short()})
    assert words in str(raised.value)
    assert "Set ray.temp_dir, RAY_TMPDIR or TMPDIR to a folder" in str(raised.value)
    monkeypatch.setattr(places, "DEFAULT", Path(bad))
    with pytest.raises(ResourceError, match=r"TMPDIR=/nowhere does not exist; /tmp/.* Set ray\.temp_dir"):
        choose(None, {"TMPDIR": "/nowhere"})


def test_a_folder_with_too_little_room_is_named_and_20_mb_are_enough(short, monkeypatch) -> None:
    folder, free = short(), LEAST_BYTES - 1
    monkeypatch.setattr(places.shutil, "disk_usage", lambda _: usage(1e9, 0, free))
    assert problem_of(folder) == "is full (10 MB free)"
    free = 2_000_000
    assert problem_of(folder) == "is full (2 MB free)"
    free = 20_000_000
    assert problem_of(folder) == ""


def test_a_file_a_gone_folder_and_one_without_sockets_are_told(short, monkeypatch) -> None:
    folder = short()
    Path(folder, "file").touch()
    assert problem_of(f"{folder}/file") == "is a file"
    assert problem_of(f"{folder}/gone") == "does not exist"

    class NoSockets:
        def __init__(self, *_):
            raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(places.socket, "socket", NoSockets)
    assert problem_of(folder) == "cannot hold sockets (operation not permitted)"
    assert os.listdir(folder) == ["file"]


def test_the_longest_path_leaves_room_for_the_longest_socket() -> None:
    longest = "x" * LONGEST + "/cxr-12345678/r2/session_2026-12-31_23-59-59_999999_4194304/sockets/plasma_store"
    assert len(longest) == SOCKET_CHARS


def test_doctor_looks_where_a_run_would(short, default, monkeypatch) -> None:
    from chexray import parse_config

    roomy = usage(1e12, 0, 9e11)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: roomy)
    bad, good = short(), short()
    broken(monkeypatch, bad, errno.EROFS)
    (look,) = machine.pending(Case(None, environment={"RAY_TMPDIR": bad}))
    found = look.at()
    assert found.state == "note"
    assert f"Ray's files go to {default}, since RAY_TMPDIR={bad} cannot be written (read-only" in found.detail
    data = {"real": "a", "synthetic": "b", "encoders": ["pixels"], "ray": {"temp_dir": good}}
    found = machine.chosen(Case(parse_config(data), environment={"RAY_TMPDIR": bad}))
    assert found.state == "ok"
    assert found.detail.startswith(f"{good} has ")


def test_the_setting_is_checked() -> None:
    from pydantic import ValidationError

    assert RayConfig(temp_dir="/scratch").temp_dir == "/scratch"
    with pytest.raises(ValidationError):
        RayConfig(temp_dir="")
