"""Trainings that fail, and images that cannot be read: what is said, what is left out, and what still works after."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fixtures.classroom import N_TEST, N_TRAINING, NEVER_IN_TEST, Classroom, fits, read_rows, tables
from fixtures.training_faults import OutOfMemory

from chexray import evaluate
from chexray.engine import train as stage
from chexray.errors import ResourceError, RunFailed
from chexray.plan import make_plan
from chexray.results.rows import params_of
from chexray.run.evaluation import Run, evaluate_plan
from chexray.utility.loop.fit_all import run_fits
from chexray.utility.loop.fit_spec import Fit


@pytest.fixture(scope="module")
def store(lesson: Run, classroom: Classroom, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for the trainings that fail and the one that then succeeds."""
    return classroom.images_alone(tmp_path_factory.mktemp("failing") / "features")


NOT_FINITE = r"loss is not finite in epoch 1 of real, step \d+: images (t\d+, ){4}t\d+ and 3 others\. Lower utility"


def test_a_loss_that_is_not_finite_costs_its_setting_alone(classroom: Classroom, store: Path, tmp_path: Path) -> None:
    """The row that stands for the setting names fit, epoch, step and images. What is only tested is tested."""
    config = classroom.config(
        tmp_path,
        settings=["real", "as_is"],
        learning_rate=1e30,
        model={"name": "test_resnet", "weights": str(fits(classroom.store)["real"] / "model.safetensors")},
        feature_store=str(store),
    )
    run = evaluate(config)
    assert run.exit_code == 1
    results = tables(run)["results"]
    (row,) = results[results["setting"] == "real"].to_dict("records")
    assert (row["metric"], row["subset"], row["status"]) == ("auroc_macro", "all", "failed")
    assert np.isnan(row["value"])
    assert re.match(NOT_FINITE, row["reason"])
    assert len(row["reason"].splitlines()) == 1
    assert row["reason"] in (Path(run.uri) / "errors.log").read_text()
    as_is = results.query("setting == 'as_is' and metric == 'auroc_macro' and subset == 'all'")
    assert as_is["value"].item() > 0.7
    assert set(tables(run)["predictions"]["setting"]) == {"as_is"}


def test_a_run_whose_trainings_all_fail_says_why(
    classroom: Classroom, store: Path, tmp_path: Path, monkeypatch
) -> None:
    """In this process: only what comes after the training is asked here."""
    monkeypatch.setattr(stage, "_train_on_ray", train_here)
    config = classroom.config(tmp_path, settings=["real", "synthetic"], learning_rate=1e30, feature_store=str(store))
    with pytest.raises(RunFailed, match=NOT_FINITE) as error:
        evaluate(config)
    assert error.value.exit_code == 1
    assert len(str(error.value).splitlines()) == 1
    status = json.loads(next(tmp_path.glob("run-*/status.json")).read_text())
    assert (status["state"], status["message"]) == ("failed", str(error.value))


def train_here(task: stage.Task, left: Sequence[Fit], resources: object) -> None:
    """What the workers do, without them."""
    how = {"device": "cpu", "threads": 1, "weights": task.weights, "say": lambda _: None, "attempt": task.attempt}
    run_fits(left, task.read, task.folder_of, task.storage, **how)  # pyright: ignore[reportArgumentType]


def test_out_of_memory_in_one_of_two_workers_says_what_to_lower(
    classroom: Classroom, store: Path, tmp_path: Path
) -> None:
    """The other worker waits for this one in a gradient: the group must end, and not start over and over."""
    plan = make_plan(classroom.config(tmp_path, settings=["real"], workers=2, feature_store=str(store)))
    storage = OutOfMemory(mark=str(tmp_path / "struck"), spare=os.getpid())
    words = r"real: out of memory on cpu\. Lower utility\.batch_size \(8\) or image_size \(32\), or take a smaller"
    with pytest.raises(ResourceError, match=words) as error:
        evaluate_plan(dataclasses.replace(plan, storage=storage))
    assert len(str(error.value).splitlines()) == 1
    assert (tmp_path / "struck").exists()


@pytest.fixture(scope="module")
def damaged(classroom: Classroom, store: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """In the store of the failed trainings. Two training images, a test image and a synthetic one are no images, one
    training image is not there; a training image has no labels, and a synthetic image no prompt."""
    for path in ("training/broken-1.png", "training/broken-2.png", "test/broken.png", "generated/broken.png"):
        (classroom.folder / path).write_bytes(b"no image at all " * 8)
    rows = read_rows(classroom.training)
    rows[10]["path"], rows[50]["path"] = "training/broken-1.png", "training/broken-2.png"
    rows[70]["path"] = "training/missing.png"
    rows[20]["chexpert_labels"] = ""
    tested = read_rows(classroom.test)
    tested[5]["path"] = "test/broken.png"
    made = read_rows(classroom.drawn)
    made[3]["img_savename"] = "broken.png"
    made[30].update(annotated_prompt="", id="")
    config = classroom.config(
        tmp_path_factory.mktemp("damaged"),
        settings=["real", "synthetic"],
        epochs=2,
        training=str(classroom.table("training-damaged", rows)),
        real=str(classroom.table("test-damaged", tested)),
        synthetic=[classroom.generated(classroom.table("drawn-damaged", made))],
        feature_store=str(store),
        encode={"chunk_size": 512, "max_reject_fraction": 0.05},
    )
    return evaluate(config)


def test_after_failed_trainings_another_one_succeeds(damaged: Run, store: Path) -> None:
    assert damaged.exit_code == 0
    finished = {json.loads(path.with_name("fit.json").read_text())["title"] for path in store.glob("fits/*/model.*")}
    assert finished == {"as_is", "real", "synthetic (drawn-damaged)"}


def test_images_that_cannot_be_read_are_rejects_and_in_no_count(damaged: Run) -> None:
    lost = damaged.rejects.groupby("set")["sample_id"].agg(set).to_dict()
    assert lost == {
        "training-damaged": {"t010", "t050", "t070"}, "test-damaged": {"u005"}, "drawn-damaged": {"broken.png"},
    }  # fmt: skip
    found = tables(damaged)
    predictions = found["predictions"]
    assert predictions.groupby("setting")["sample_id"].nunique().eq(N_TEST - 1).all()
    assert "u005" not in set(predictions["sample_id"])
    results = found["results"]
    params = pd.DataFrame([params_of(one) for one in results.to_dict("records")])
    real = params["setting"] == "real"
    with_labels = N_TRAINING - 3 - 1
    assert (params.loc[real, "n_train_real"] + params.loc[real, "n_validation"] == with_labels).all()
    assert (results.loc[results["subset"] == "all"].query("not metric.str.startswith('faith')")["n_real"] == 79).all()
    judged = results["metric"].str.startswith("faithfulness")
    # One has no prompt, and the prompts of two belong to a real image without labels and to one that is not there.
    assert (results.loc[judged, "n_synthetic"] == 125 - 1 - 3).all()
    assert (results.loc[real & ~judged, "n_rejected"] == 3 + 1).all()
    assert (results.loc[~real | judged, "n_rejected"] == 3 + 1 + 1).all()


def test_notes_that_unreadable_images_change_say_so(damaged: Run) -> None:
    """The plan counted images before anybody had looked into their files."""
    changed = {note for note in damaged.notes if note.startswith("without the images that could not be read: ")}
    assert "without the images that could not be read: drawn-damaged: 5 of 124 images were made for test" in "\n".join(
        changed
    )
    assert {
        "drawn-damaged: 5 of 125 images were made for test images and are not used for training",
        "drawn-damaged: 3 images without labels are not used for training",
        "training-damaged: 1 images without labels are not used for training",
    } <= set(damaged.notes)
    assert len(damaged.notes) == len(set(damaged.notes))


def test_the_twin_of_an_unreadable_image_stays_out_when_its_patient_validates(classroom: Classroom) -> None:
    """What the generator drew for it is of that patient all the same."""
    plan = make_plan(classroom.config("out", settings=["real", "synthetic"])).utility
    assert plan is not None
    everyone = plan.planned
    rows = read_rows(classroom.training)
    patient = {row["id"]: row["subject_id"] for row in rows}
    watched = [patient[identity] for identity in everyone.validation.sample.ids.tolist()]
    lost = next(row["id"] for row in rows if watched.count(row["subject_id"]) > 1)
    keys = [key for each in plan.sets for key in each.table["image_key"].to_pylist()]
    gone = plan.training.table["image_key"][plan.training.table["sample_id"].to_pylist().index(lost)].as_py()
    cohorts = plan.cohorts(set(keys) - {gone})
    assert lost not in cohorts.validation.sample.ids
    assert patient[lost] in {patient[identity] for identity in cohorts.validation.sample.ids.tolist()}
    made_for = {row["img_savename"]: row["id"] for row in read_rows(classroom.drawn)}
    synthetic = next(each for each in cohorts.trainings if each.setting == "synthetic")
    assert lost not in {made_for[name] for name in synthetic.mixture.phases[0].sample.ids.tolist()}


def test_a_finding_without_a_positive_is_a_null_with_its_reason(damaged: Run) -> None:
    rows = damaged.results.query(f"metric == 'auroc' and subset == 'finding:{NEVER_IN_TEST}'")
    assert rows["value"].isna().all()
    assert set(rows["reason"]) == {"no positive among 79 test images"}
