"""Processes killed while classifiers are trained: the same command goes on, and on one worker finds the same bits."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import ray
import yaml
from fixtures import training_faults
from fixtures.classroom import Classroom, assert_same, committed, fits, tables
from fixtures.training_faults import KillsAtCheckpoint

from chexray import evaluate
from chexray.plan import make_plan
from chexray.run.evaluation import Run, evaluate_plan

SETTINGS = ["real", "synthetic"]
SECOND_EPOCH_OF_THE_SECOND_FIT = 3 + 2
"""As a number of checkpoints: a fit has three epochs."""


def epochs(fit: Path) -> list[dict]:
    return json.loads((fit / "history.json").read_text())


def test_a_worker_killed_in_an_epoch_changes_nothing(lesson: Run, classroom: Classroom, tmp_path) -> None:
    """The best weights of the epoch are written, its checkpoint is not: it is trained again, from the one before."""
    store, mark = classroom.images_alone(tmp_path / "features"), tmp_path / "killed"
    plan = make_plan(classroom.config(tmp_path / "out", settings=SETTINGS, feature_store=str(store)))
    storage = KillsAtCheckpoint(at=SECOND_EPOCH_OF_THE_SECOND_FIT, mark=str(mark))
    killed = evaluate_plan(dataclasses.replace(plan, storage=storage))
    assert mark.exists()
    assert_same(lesson, killed, SETTINGS)
    assert {at.name for at in fits(store).values()} <= {at.name for at in fits(classroom.store).values()}
    for title, fit in fits(store).items():
        undisturbed = (fits(classroom.store)[title] / "model.safetensors").read_bytes()
        assert (fit / "model.safetensors").read_bytes() == undisturbed
        assert not list(fit.glob("*.pt"))


def test_a_driver_killed_in_an_epoch_resumes_by_the_same_command(lesson: Run, classroom: Classroom, tmp_path) -> None:
    store = classroom.images_alone(tmp_path / "features")
    data = classroom.data(tmp_path / "out", settings=SETTINGS, feature_store=str(store))
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(data))
    environment = {**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    command = [sys.executable, training_faults.__file__, str(file), str(SECOND_EPOCH_OF_THE_SECOND_FIT)]
    died = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr
    first, second = fits(store)["real"], fits(store)["synthetic (drawn)"]
    done, begun = committed(store), epochs(second)
    assert {path.parent for path in done if path.name == "model.safetensors"} == {first}
    assert len(begun) == 1
    folder = next((tmp_path / "out").glob("run-*"))
    assert not (folder / "results.parquet").exists()

    resumed = evaluate(classroom.config(tmp_path / "out", settings=SETTINGS, feature_store=str(store)))
    assert Path(resumed.uri) == folder
    assert_same(lesson, resumed, SETTINGS)
    now = committed(store)
    assert {path: now[path] for path in done if path.parent == first} == {
        path: found for path, found in done.items() if path.parent == first
    }
    assert epochs(second)[:1] == begun  # with the seconds it took: it was not trained again
    assert len(epochs(second)) == 3


def test_two_workers_go_on_after_one_was_killed(lesson: Run, classroom: Classroom, tmp_path) -> None:
    """Two workers cut the images in other batches than one: a classifier then varies as it does between seeds, and so
    is held to a tenth in AUROC, not to its bits. They agree with each other: both come to the end."""
    store, mark = classroom.images_alone(tmp_path / "features"), tmp_path / "killed"
    plan = make_plan(classroom.config(tmp_path / "out", settings=SETTINGS, feature_store=str(store), workers=2))
    killed = evaluate_plan(dataclasses.replace(plan, storage=KillsAtCheckpoint(at=2, mark=str(mark))))
    assert mark.exists()
    assert (tables(killed)["history"]["workers"] == 2).all()
    macro = [
        tables(run, SETTINGS)["results"].query("metric == 'auroc_macro' and subset == 'all'").set_index("setting")
        for run in (lesson, killed)
    ]
    assert macro[1]["n_real"].tolist() == macro[0]["n_real"].tolist()
    for setting in SETTINGS:
        assert abs(macro[1].loc[setting, "value"] - macro[0].loc[setting, "value"]) < 0.1
