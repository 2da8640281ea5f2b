"""`chexray status`: what the folders of runs say, whoever wrote them."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import struct
import subprocess
import sys
import termios
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fixtures.s3 import SECRET
from typer.testing import CliRunner

from chexray.cli import app
from chexray.errors import ConfigError, StorageError
from chexray.jobs.status import read_statuses, spell, unfinished
from chexray.jobs.status_lines import status_lines
from chexray.storage import Storage, join

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


def at(**ago: float) -> str:
    return (NOW - timedelta(**ago)).strftime("%Y-%m-%dT%H:%M:%SZ")


def write(folder: Path, run: str, **body: object) -> None:
    (folder / run).mkdir(parents=True, exist_ok=True)
    (folder / run / "status.json").write_text(json.dumps({"run_id": run, **body}))


def read(folder: Path | str) -> list:
    return read_statuses(str(folder), Storage(), lambda: NOW)


def test_one_run_by_its_folder_or_its_file(tmp_path: Path) -> None:
    write(
        tmp_path, "a-1", state="encoding", started_at=at(hours=1), updated_at=at(seconds=40), done=1200, total=5000,
        rejected=3,
    )  # fmt: skip
    for place in (tmp_path / "a-1", f"{tmp_path}/a-1/", tmp_path / "a-1" / "status.json"):
        (found,) = read(place)
        assert (found.run, found.state, found.progress, found.rejected) == ("a-1", "encoding", "1,200/5,000", 3)
        assert (found.age_s, found.silent_s, found.remark) == (40.0, None, "")
        assert found.uri == str(tmp_path / "a-1")


def test_what_lies_beside_the_runs_is_not_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An output holds features and images, of which there may be 100,000."""
    write(tmp_path, "a-1", state="done", updated_at=at(hours=1))
    (tmp_path / "features" / "pixels").mkdir(parents=True)
    monkeypatch.setattr(Storage, "list", lambda *_: pytest.fail("the whole output was listed"))
    assert [found.run for found in read(tmp_path)] == ["a-1"]


def test_runs_of_a_folder_newest_first(tmp_path: Path) -> None:
    write(tmp_path, "old", state="done", updated_at=at(days=2), exit_code=0, n_rejected=2)
    write(tmp_path, "new", state="planning", updated_at=at(minutes=1))
    write(tmp_path, "middle", state="failed", updated_at=at(hours=3), exit_code=1, message="too many were rejected")
    write(tmp_path / "features", "deep", state="done", updated_at=at(minutes=0))
    (tmp_path / "phantoms").mkdir()
    found = read(tmp_path)
    assert [each.run for each in found] == ["new", "middle", "old"]
    assert [each.exit_code for each in found] == [None, 1, 0]
    assert [each.rejected for each in found] == [None, None, 2]
    assert found[1].remark == "too many were rejected"


@pytest.mark.parametrize("state", ["planning", "waiting", "encoding", "reducing", "training", "a-later-one"])
@pytest.mark.parametrize(("beat", "least"), [(None, 180), (20, 60), (60.0, 180)])
def test_a_run_is_dead_after_three_missed_signs_of_life(tmp_path: Path, state: str, beat: object, least: int) -> None:
    said = {"state": state, "message": "waiting for 2 GPUs"} | ({"heartbeat_s": beat} if beat else {})
    write(tmp_path, "a", **said, updated_at=at(seconds=least))
    assert (read(tmp_path)[0].state, read(tmp_path)[0].remark) == (state, "waiting for 2 GPUs")
    write(tmp_path, "a", **said, updated_at=at(seconds=least + 1))
    (found,) = read(tmp_path)
    assert (found.state, found.silent_s) == ("dead", least + 1)
    assert found.remark == (
        f"waiting for 2 GPUs; no status update for {spell(least + 1)} while {state}, by this machine's clock (3 are "
        "missing): its driver or pod has ended; the same command resumes"
    )


@pytest.mark.parametrize("beat", ["60", True, None, [], -5, 0, float("nan"), float("inf"), 1e300])
def test_an_odd_heartbeat_hides_no_death(tmp_path: Path, beat: object) -> None:
    write(tmp_path, "a", state="encoding", updated_at=at(hours=4), heartbeat_s=beat)
    assert read(tmp_path)[0].state == "dead"


def test_a_later_attempt_does_not_demote_a_run_that_is_done(tmp_path: Path) -> None:
    attempt = {"state": "failed", "exit_code": 2, "message": "no Ray cluster answers", "updated_at": at(minutes=1)}
    write(tmp_path, "a", state="done", exit_code=0, updated_at=at(days=2), attempt=attempt)
    (found,) = read(tmp_path)
    assert (found.state, found.exit_code, found.silent_s) == ("done", 0, None)
    assert found.remark == "a later attempt: failed, no Ray cluster answers"
    attempt = {"state": "encoding", "done": 3, "total": 9, "updated_at": at(minutes=9), "attempt": attempt}
    write(tmp_path, "a", state="done", exit_code=0, updated_at=at(days=2), attempt=attempt)
    (found,) = read(tmp_path)
    assert found.state == "done"
    assert found.remark.startswith("a later attempt: dead, 3/9, no status update for 9 min")


def test_what_a_dead_or_failed_run_has_left_is_said(tmp_path: Path) -> None:
    write(tmp_path, "a", state="training", updated_at=at(hours=1), suites_done=["fidelity", "privacy"])
    assert read(tmp_path)[0].remark.endswith("resumes; results of fidelity, privacy are there")
    assert read(tmp_path)[0].record["suites_done"] == ("fidelity", "privacy")


@pytest.mark.parametrize("state", ["done", "failed", "interrupted"])
def test_a_run_that_has_ended_may_be_silent(tmp_path: Path, state: str) -> None:
    write(tmp_path, "a", state=state, updated_at=at(days=9))
    assert read(tmp_path)[0].silent_s is None


def test_a_clock_ahead_of_ours_is_no_news_from_the_future(tmp_path: Path) -> None:
    write(tmp_path, "a", state="encoding", updated_at=at(minutes=-5))
    (found,) = read(tmp_path)
    assert (found.age_s, found.remark) == (0, "its clock is 5 min ahead of this machine's")


def test_results_of_a_run_that_is_not_done_are_marked(tmp_path: Path) -> None:
    write(tmp_path, "a", state="failed", updated_at=at(hours=1), suites_done=["fidelity"])
    write(tmp_path, "b", state="done", updated_at=at(hours=1))
    (tmp_path / "c").mkdir()
    for place in (tmp_path / "a", f"{tmp_path}/a/", tmp_path / "a" / "results.parquet"):
        assert unfinished(str(place), Storage()) == (
            "a is not done (failed): its results are those of fidelity; the same command resumes"
        )
    for place in (tmp_path / "b", tmp_path / "c", tmp_path / "c" / "results.csv", tmp_path):
        assert unfinished(str(place), Storage()) == ""


def test_nothing_there_is_one_line(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "absent"):
        with pytest.raises(StorageError, match=r"has status\.json there"):
            read(place)


TORN = ["", '{"state": "enc', "[1, 2]", "null", '{"state": 3}', '{"run_id": "x"}', "\xff\xfe", "[" * 50_000]


@pytest.mark.parametrize("text", TORN)
def test_a_torn_file_is_one_line_for_a_run_and_a_row_among_several(tmp_path: Path, text: str) -> None:
    write(tmp_path, "good", state="done", updated_at=at(minutes=1))
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "status.json").write_text(text, encoding="latin-1")
    with pytest.raises(StorageError, match="not the status of a run"):
        read(tmp_path / "torn")
    good, torn = read(tmp_path)
    assert (good.state, torn.state, torn.run) == ("done", "unreadable", "torn")


def test_odd_values_are_left_out(tmp_path: Path) -> None:
    write(
        tmp_path, "a", state="encoding", updated_at="yesterday", done="7", total=True, rejected=float("nan"),
        exit_code=[1], message={"a": 1}, started_at=5,
    )  # fmt: skip
    (found,) = read(tmp_path)
    assert (found.age_s, found.silent_s, found.done, found.total, found.rejected) == (None, None, None, None, None)
    assert (found.exit_code, found.message, found.started_at) == (None, "", "")


def test_a_status_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    write(
        tmp_path,
        "a",
        state="\x1b[2Jdone",
        updated_at=at(seconds=5),
        message="line\none\x1b]0;title\x07 \u202eevil [red]x",
    )
    write(tmp_path, "b", run_id="b", state="done", updated_at=at(hours=2))
    for place in (tmp_path, tmp_path / "a"):
        for more in ([], ["--json"]):
            done = CliRunner().invoke(app, ["status", str(place), *more])
            assert done.exit_code == 0
            assert not {"\x1b", "\x07", "\u202e"} & set(done.stdout)
            assert "[red]x" in done.stdout
    assert read(tmp_path / "a")[0].state == "\\x1b[2Jdone"
    assert read(tmp_path / "a")[0].message == "line\\none\\x1b]0;title\\x07 \\u202eevil [red]x"


def test_the_command(tmp_path: Path) -> None:
    message = "m " * 90 + "end"
    write(tmp_path, "a-1", state="failed", updated_at=at(hours=3), done=1, total=2, exit_code=1, message=message)
    one = CliRunner().invoke(app, ["status", str(tmp_path / "a-1")])
    assert f"a-1: {message}" in one.stdout.splitlines()
    assert f"folder: {tmp_path / 'a-1'}" in one.stdout.splitlines()
    (record,) = json.loads(CliRunner().invoke(app, ["status", str(tmp_path), "--json"]).stdout)
    assert (record["run"], record["state"], record["exit_code"]) == ("a-1", "failed", 1)
    assert isinstance(CliRunner().invoke(app, ["status", str(tmp_path / "none")]).exception, StorageError)
    wrong = CliRunner().invoke(app, ["status", str(tmp_path), "--set", "encode.batch_size=3"])
    assert isinstance(wrong.exception, ConfigError)


LIVE = {"state": "encoding", "done": 74_016, "total": 75_649, "rejected": 1_204}
STOPPED = {"state": "interrupted", "exit_code": 130, "message": "stopped on request; the same command resumes"}


@pytest.mark.parametrize("width", [None, 200, 80, 60, 40, 24])
@pytest.mark.parametrize(
    "name", ["killme2-7c9eadbf9b", "a-name-that-alone-is-longer-than-most-terminals-are-0123456789"]
)
def test_no_width_crops_a_figure(tmp_path: Path, width: int | None, name: str) -> None:
    write(tmp_path, name, **LIVE | {"updated_at": at(minutes=2)})
    write(tmp_path, "stopme-01a222a2e9", **STOPPED, updated_at=at(hours=2))
    lines = status_lines(read(tmp_path), width)
    for figure in (name, "74,016/75,649", "1,204", "2 min ago", "130", "interrupted", "  " + STOPPED["message"]):
        assert any(figure in line for line in lines), figure
    kept = [line for line in lines if STOPPED["message"] not in line and line != name]
    assert width is None or max(map(len, kept)) <= width


def test_a_terminal_of_80_columns_shows_every_figure_whole(tmp_path: Path) -> None:
    """The command itself, on a terminal of its own."""
    write(tmp_path, "killme2-7c9eadbf9b", **LIVE | {"updated_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")})
    write(tmp_path, "stopme-01a222a2e9", **STOPPED, updated_at=at(hours=2))
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    command = [sys.executable, "-m", "chexray.cli", "status", str(tmp_path)]
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    text = b""
    with contextlib.suppress(OSError):  # the end of a terminal is an error
        while part := os.read(master, 10_000):
            text += part
    os.close(master)
    assert process.wait(60) == 0
    lines = text.decode().splitlines()
    assert max(map(len, lines)) <= 80
    for figure in ("killme2-7c9eadbf9b", "74,016/75,649", "1,204", "130", STOPPED["message"]):
        assert any(figure in line for line in lines), figure


def test_runs_on_s3(s3, monkeypatch: pytest.MonkeyPatch) -> None:
    storage, root = s3.storage, f"{s3.bucket}/out"
    for i, run in enumerate(("a", "b")):
        body = {"run_id": run, "state": "done", "updated_at": at(minutes=i)}
        storage.write(join(root, run, "status.json"), json.dumps(body).encode())
    storage.write(join(root, "features", "x", "part-1.parquet"), b"-")
    assert [each.run for each in read_statuses(root, storage, lambda: NOW)] == ["a", "b"]
    assert [each.run for each in read_statuses(f"{root}/b", storage, lambda: NOW)] == ["b"]
    asked = [
        "status",
        root,
        "--json",
        "--set",
        f"storage.endpoint_url={s3.endpoint}",
        "--set",
        "storage.region=us-east-1",
    ]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATESTING")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    done = CliRunner().invoke(app, asked)
    assert [each["run"] for each in json.loads(done.stdout)] == ["a", "b"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.9, "59 s"), (60, "1 min"), (3600, "1 h"), (12_000, "3 h 20 min"), (187_200, "2 d 4 h")],
)
def test_spans_are_spelt_for_people(seconds: float, text: str) -> None:
    assert spell(seconds) == text
