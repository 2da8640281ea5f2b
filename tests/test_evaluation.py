"""What a suite found outlives whatever happens to a later one, and a run that is done stays done."""

from __future__ import annotations

import copy
import json
import os
import signal
import threading
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from ray.exceptions import OutOfMemoryError

from chexray import evaluate, parse_config, read_results
from chexray.errors import ResourceError, StorageError
from chexray.run import evaluation
from chexray.run.directory import RunDirectory
from chexray.run.evaluation import Run, evaluate_plan
from chexray.run.recording import Record
from chexray.storage import Storage
from chexray.suites import fidelity, privacy
from chexray.suites.common import Outcome

NO_MEMORY = (
    "1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 10.0.0.7, ID: 34fb) was "
    "22.61GB used / 23.54GB limit (0.960493)\nTop 10 memory users: PID\tMEM(GB)\tCOMMAND\n4242\t14.80\tpython3 train.py"
)


@dataclass
class Course:
    """Runs of one config, to fidelity and privacy, whose privacy suite or cluster fails when told to.

    Each suite computes once, and answers the same again after that: only what becomes of its answers is asked here.
    """

    config: Any
    monkeypatch: pytest.MonkeyPatch
    heard: list[tuple[str, int]] = field(default_factory=list)
    seen: list[set[str]] = field(default_factory=list)
    answers: dict[str, Outcome] = field(default_factory=dict)

    def run(self, error: BaseException | None = None, *, cluster: Exception | None = None, once: bool = False) -> Run:
        """error: what the privacy suite raises; by then `seen` tells which files lay in the folder."""
        suites = {"fidelity": fidelity.evaluate_fidelity, "privacy": privacy.evaluate_privacy}

        def known(suite: str) -> Callable[[Any], Outcome]:
            def answer(context: Any) -> Outcome:
                if suite not in self.answers:
                    self.answers[suite] = suites[suite](context)
                return copy.deepcopy(self.answers[suite])

            return answer

        def failing(_: Any) -> Any:
            self.seen.append({path.name for path in self.folder.iterdir()})
            raise error or AssertionError

        @contextmanager
        def unreachable(*_: Any, **__: Any) -> Any:
            raise cluster or AssertionError
            yield

        def hear(suite: str, frame: pd.DataFrame) -> None:
            self.heard.append((suite, len(frame)))

        self.heard.clear()
        with self.monkeypatch.context() as patch:
            patch.setattr(fidelity, "evaluate_fidelity", known("fidelity"))
            patch.setattr(privacy, "evaluate_privacy", known("privacy") if error is None else failing)
            if cluster is not None:
                patch.setattr("chexray.engine.cluster.cluster", unreachable)
            return evaluate(self.config, on_suite=hear, once=once)

    @property
    def folder(self) -> Path:
        return next(Path(self.config.output).glob("run-*"))

    @property
    def status(self) -> dict[str, Any]:
        return json.loads((self.folder / "status.json").read_text())

    @property
    def story(self) -> dict[str, Any]:
        return json.loads((self.folder / "run.json").read_text())

    def numbers(self) -> pd.DataFrame:
        return read_results(self.folder).drop(columns="created_at")


@pytest.fixture
def course(ray_cluster, write_images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Course:
    sets = {"real": {"path": str(write_images("real", 24, seed=1))}}
    sets["heldout"] = {"path": str(write_images("heldout", 24, seed=3))}
    data = {**sets, "synthetic": [{"path": str(write_images("synthetic", 20, seed=2))}]}
    more = {"encoders": [{"name": "pixels", "side": 4}], "metrics": ["kid"], "suite": ["fidelity", "privacy"]}
    encode = {"chunk_size": 64, "batch_size": 32, "actors": 1}
    config = parse_config({**data, **more, "output": str(tmp_path / "out"), "floor": False, "encode": encode})
    return Course(config, monkeypatch)


def test_what_a_suite_found_outlives_the_next_one_and_a_done_run_stays_done(course: Course) -> None:
    with pytest.raises(ResourceError, match=r"out of memory on node 10\.0\.0\.7: 0\.9 of 23\.5 GB was free.*train\.py"):
        course.run(OutOfMemoryError(NO_MEMORY))
    assert {"results.parquet", "results.csv", "results.json", "per_image.parquet", "run.json"} <= course.seen[-1]
    alone = course.numbers()
    assert set(alone["suite"]) == {"fidelity"}
    assert course.heard == [("fidelity", len(alone))]
    assert course.story["suites_done"] == ["fidelity"]
    status = course.status
    assert (status["state"], status["exit_code"], status["suites_done"]) == ("failed", 2, ["fidelity"])
    assert "defect" not in status["message"]
    assert not (course.folder / "errors.log").exists()

    with pytest.raises(ValueError, match="shapes"):
        course.run(ValueError("shapes"))
    assert course.status["message"] == "ValueError (a defect of chexray)"
    assert "in failing" in (course.folder / "errors.log").read_text()
    assert course.numbers().equals(alone)

    done = course.run()
    whole = course.numbers()
    assert [suite for suite, _ in course.heard] == ["fidelity", "privacy"]
    assert whole[whole["suite"] == "fidelity"].reset_index(drop=True).equals(alone)
    assert set(whole["suite"]) == {"fidelity", "privacy"}
    assert not (course.folder / "errors.log").exists()
    before = course.status
    assert (before["state"], before["exit_code"], before["suites_done"]) == ("done", 0, ["fidelity", "privacy"])
    assert "attempt" not in before

    # Later attempts that reach no cluster, or fail on the way, take nothing back.
    for fault in ({"cluster": ResourceError("no Ray cluster answers")}, {"error": KeyboardInterrupt()}):
        with pytest.raises((ResourceError, KeyboardInterrupt)):
            course.run(**fault)
        assert course.numbers().equals(whole)
        now = course.status
        attempt = now.pop("attempt")
        assert now == before
        assert (attempt["state"], attempt["exit_code"]) in (("failed", 2), ("interrupted", 130))
        assert course.story["suites_done"] == ["fidelity", "privacy"]
        assert course.run(cluster=AssertionError(), once=True).results.shape == done.results.shape
    assert course.run().exit_code == 0
    assert "attempt" not in course.status
    assert course.numbers().equals(whole)


def recorded(folder: Path) -> Record:
    record = Record(RunDirectory(str(folder), "run-1", Storage()), ("fidelity", "privacy", "utility"))
    record.recall()
    return record


def found(*suites: str) -> Any:
    outcome = SimpleNamespace(rows=[], tables={}, files={f"{suite}.txt": b"" for suite in suites}, notes=[])
    outcome.failures = []
    return outcome


@pytest.fixture
def version(monkeypatch: pytest.MonkeyPatch) -> Any:
    def be(version: str) -> dict[str, Any]:
        monkeypatch.setattr("chexray.run.recording.__version__", version)
        return {"chexray_version": version, "notes": []}

    return be


def test_an_attempt_that_has_found_less_than_one_before_it_replaces_nothing(tmp_path: Path, version) -> None:
    story = version("1")
    recorded(tmp_path).keep(found("fidelity", "privacy"), ["fidelity", "privacy"], story)
    later = recorded(tmp_path)
    assert later.directory.suites_done == ["fidelity", "privacy"]
    later.keep(found("less"), ["fidelity"], story)
    assert not (tmp_path / "less.txt").exists()
    later.keep(found("as-much"), ["fidelity", "privacy"], story)
    later.keep(found("more"), ["fidelity", "privacy", "utility"], story)
    assert (tmp_path / "as-much.txt").exists()
    assert (tmp_path / "more.txt").exists()


def test_another_version_takes_the_place_of_a_done_run_with_its_first_results_and_not_before(tmp_path, version) -> None:
    story = version("1")
    first = recorded(tmp_path)
    first.keep(found(), ["fidelity", "privacy", "utility"], story)
    first.directory.status("done", exit_code=0)
    story = version("2")
    later = recorded(tmp_path)
    later.directory.status("encoding")
    assert state(tmp_path) == ("done", "encoding")
    later.keep(found(), ["fidelity"], story)
    assert state(tmp_path) == ("encoding", None)


def test_a_done_run_from_before_suites_were_recorded_stays_done_too(tmp_path: Path, version) -> None:
    story = version("1")
    (tmp_path / "run.json").write_text(json.dumps(story))
    (tmp_path / "status.json").write_text(json.dumps({"state": "done", "exit_code": 0}))
    later = recorded(tmp_path)
    later.keep(found("less"), ["fidelity"], story)
    later.directory.status("failed")
    assert not (tmp_path / "less.txt").exists()
    assert state(tmp_path) == ("done", "failed")


def state(folder: Path) -> tuple[str, str | None]:
    status = json.loads((folder / "status.json").read_text())
    return status["state"], status.get("attempt", {}).get("state")


@dataclass(frozen=True)
class Stalls(Storage):
    """Hangs at the writes of status.json after the first, as a bucket does that no longer answers; or fails them."""

    seen: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    fails: bool = False

    def write(self, uri: str, data: bytes) -> None:
        if uri.endswith("status.json"):
            self.seen.append(uri)
            if len(self.seen) > 1:
                if self.fails:
                    raise StorageError("bucket: 503 Slow Down")
                self.over.wait()
        super().write(uri, data)


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_stop_waits_for_no_storage(tmp_path: Path, monkeypatch, capsys, number: int, fails: bool) -> None:
    def killed(*_: Any) -> Any:
        os.kill(os.getpid(), number)
        threading.Event().wait(20)

    monkeypatch.setattr(evaluation, "LAST_WORD_S", 0.05)
    monkeypatch.setattr(evaluation, "_evaluate", killed)
    storage = Stalls(fails=fails)
    config = SimpleNamespace(to_yaml=lambda: "", suite=["fidelity"])
    about = {"run_uri": str(tmp_path), "run_id": "run-1", "images": {}, "plugins": {}}
    plan: Any = SimpleNamespace(storage=storage, config=config, **about)
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    with pytest.raises(KeyboardInterrupt):
        evaluate_plan(plan)
    signal.signal(signal.SIGHUP, before)
    storage.over.set()
    assert "could not be written" in capsys.readouterr().err
    assert len(storage.seen) == 2
