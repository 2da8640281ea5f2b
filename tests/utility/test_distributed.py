"""Two workers train one classifier: equal steps, disjoint images, one model, and failures that all of them notice."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from fixtures.ddp import fit_and_images, work
from fixtures.fits import run

from chexray.storage import Storage, join
from chexray.utility.loop.checkpointing import Folder

pytestmark = pytest.mark.slow

WORKERS = 2


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """What two gloo processes on the loopback interface say, and their folder."""
    root = tmp_path_factory.mktemp("ddp")
    torch.multiprocessing.spawn(work, (WORKERS, str(root)), nprocs=WORKERS)  # pyright: ignore[reportPrivateImportUsage]
    return [json.loads((root / f"report-{rank}.json").read_text()) for rank in range(WORKERS)], root


def test_both_finish_with_the_same_summary_and_only_one_speaks(reports):
    (first, second), _ = reports
    assert first["summary"] == second["summary"]
    assert first["summary"]["epochs"] == 6
    assert len(first["said"]) == 6
    assert second["said"] == []


def test_workers_hold_disjoint_shares_and_take_equally_many_steps(reports):
    found, _ = reports
    shares = [report["reads"]["train"] for report in found]
    fit, _ = fit_and_images()
    assert sorted(shares[0] + shares[1]) == sorted(fit.phases[0].sample.keys.tolist())
    assert abs(len(shares[0]) - len(shares[1])) <= 1
    assert found[0]["steps"] == found[1]["steps"] > 0


def test_they_learn_as_one_worker_does(reports, tmp_path):
    (first, _), root = reports
    fit, images = fit_and_images()
    (alone,) = run([fit], images, tmp_path)
    assert first["summary"]["best_auroc"] == pytest.approx(alone["best_auroc"], abs=0.1)
    rows = Folder(join(str(root), fit.name), fit, Storage()).history()
    assert [row["workers"] for row in rows] == [2] * 6
    assert [row["images"] for row in rows] == [65] * 6


def test_every_worker_has_the_same_model(reports):
    (first, second), _ = reports
    assert first["digest"] == second["digest"]


def test_a_set_gets_the_same_bits_from_one_worker_as_from_two(reports):
    _, root = reports
    fit, images = fit_and_images()
    test = images.sample(150, "test", seed=9)
    further = replace(fit, score={"test": test.keys})
    folder = Folder(join(str(root), fit.name), fit, Storage())
    by_two = folder.read_predictions(test.keys)
    for path in (root / fit.name).glob("predictions-*"):
        path.unlink()
    run([further], images, root)
    assert np.array_equal(folder.read_predictions(test.keys), by_two)


def test_a_loss_that_is_not_finite_on_one_worker_stops_both_with_one_message(reports):
    (first, second), _ = reports
    assert first["not_finite"] == second["not_finite"]
    assert first["not_finite"].startswith("loss is not finite in epoch 1 of poisoned, step 2: images image train-")


def test_both_resume_after_a_crash(reports):
    (first, second), _ = reports
    assert first["resumed"][0] == "interrupted: goes on after epoch 1"
    assert first["resumed_summary"] == second["resumed_summary"]
    assert first["resumed_summary"]["epochs"] == 3


def test_more_workers_than_images_are_refused(reports):
    (first, second), _ = reports
    assert first["too_few"] == second["too_few"]
    assert "1 images to train on, 1 an epoch, for 2 workers" in first["too_few"]
