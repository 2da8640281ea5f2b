"""status.json and log.txt: fresh while a run lives, whole when it ends."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from chexray.errors import StorageError
from chexray.run.directory import RunDirectory
from chexray.storage import Storage


@dataclass(frozen=True)
class Watched(Storage):
    """Says when a file was written a number of times; fails the writes whose numbers are in `fails`."""

    written: list[str] = field(default_factory=list)
    enough: threading.Event = field(default_factory=threading.Event)
    fails: tuple[int, ...] = ()

    def write(self, uri: str, data: bytes) -> None:
        self.written.append(uri)
        if len(self.written) >= 4:
            self.enough.set()
        if len(self.written) in self.fails:
            raise StorageError(f"{uri}: busy")
        super().write(uri, data)


def directory(tmp_path: Path, storage: Storage) -> RunDirectory:
    moments = (f"2026-01-01T00:{n // 60:02d}:{n % 60:02d}Z" for n in range(3600))
    return RunDirectory(str(tmp_path), "run-1", storage, clock=lambda: next(moments))


@pytest.mark.parametrize("fails", [(), (3,)], ids=["", "one write fails"])
def test_a_silent_stage_renews_its_status(tmp_path: Path, fails: tuple[int, ...]) -> None:
    storage = Watched(fails=fails)
    run = directory(tmp_path, storage)
    run.status("reducing", done=3, total=9)
    before = json.loads((tmp_path / "status.json").read_text())
    with run.beating(every=0.0):
        assert storage.enough.wait(30)
    after = json.loads((tmp_path / "status.json").read_text())
    assert after["updated_at"] > before["updated_at"]
    assert {**after, "updated_at": ""} == {**before, "updated_at": ""}


def test_an_ended_run_is_not_touched_again(tmp_path: Path) -> None:
    run = directory(tmp_path, storage := Watched())
    with run.beating(every=0.0):
        run.status("done", exit_code=0)
        n = len(storage.written)
    assert len(storage.written) == n
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "done"


def test_the_log_goes_with_the_next_status_and_only_when_it_grew(tmp_path: Path) -> None:
    run = directory(tmp_path, storage := Watched())
    run.hear("encode: 3/9 images")
    run.status("encoding")
    run.status("encoding")
    assert [Path(uri).name for uri in storage.written] == ["log.txt", "status.json", "status.json"]
    assert (tmp_path / "log.txt").read_text() == "2026-01-01T00:00:00Z encode: 3/9 images\n"


def test_what_is_missing_or_torn_reads_as_nothing(tmp_path: Path) -> None:
    run = directory(tmp_path, Storage())
    assert run.read_json("status.json") == {}
    (tmp_path / "status.json").write_text('{"state": "do')
    assert run.read_json("status.json") == {}


def test_the_log_of_earlier_attempts_is_kept(tmp_path: Path) -> None:
    for words in ("the head was lost", "done"):
        run = directory(tmp_path, Storage())
        run.continue_log()
        run.hear(words)
        run.status("done")
    log = (tmp_path / "log.txt").read_text().splitlines()
    assert [line.split(" ", 1)[1] for line in log] == ["the head was lost", "--- again", "done"]
