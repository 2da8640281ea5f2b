"""The training loop serves any head: another task trains, resumes and predicts through the code of classification."""

from __future__ import annotations

import ast
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fixtures.brightness import brightness_fit, work
from fixtures.fits import AFTER_AN_EPOCH, FailingStorage, Images, a_fit, run
from torch.multiprocessing.spawn import spawn

import chexray.utility.loop
from chexray.errors import StorageError, WeightsError
from chexray.storage import Storage, join
from chexray.utility.loop.checkpointing import Folder


def folder_of(fit, root) -> Folder:
    return Folder(join(str(root), fit.name), fit, Storage())


def test_a_regression_learns_and_keeps_the_epoch_of_the_lowest_error(tmp_path):
    fit, images = brightness_fit()
    said: list[str] = []
    (summary,) = run([fit], images, tmp_path, say=said.append)
    history = folder_of(fit, tmp_path).history()
    errors = [row["val_mae"] for row in history]
    assert (summary["epochs"], summary["best_by"]) == (8, "mae")
    assert summary["best_mae"] == min(errors) < errors[0] / 2
    assert summary["best_epoch"] == 1 + errors.index(min(errors))
    assert ", validation MAE " in said[0]
    predicted = folder_of(fit, tmp_path).read_predictions(fit.score["test"])
    greys = np.stack([images.stored[key].mean() for key in fit.score["test"].tolist()])
    assert predicted.shape == (30, 1)
    assert np.abs(predicted[:, 0] - greys).mean() < 2 * summary["best_mae"]


def test_it_resumes_with_the_same_bits(tmp_path):
    fit, images = brightness_fit(epochs=3)
    run([fit], images, tmp_path / "whole")
    with pytest.raises(StorageError, match="plug"):
        run([fit], images, tmp_path / "again", FailingStorage(AFTER_AN_EPOCH))
    run([fit], images, tmp_path / "again")
    models = [(tmp_path / name / fit.name / "model.safetensors").read_bytes() for name in ("whole", "again")]
    assert models[0] == models[1]


def test_two_workers_train_it_as_one_does(tmp_path):
    spawn(work, (2, str(tmp_path)), nprocs=2)
    first, second = (json.loads((tmp_path / f"report-{rank}.json").read_text()) for rank in range(2))
    assert first == second
    fit, images = brightness_fit()
    assert [row["workers"] for row in folder_of(fit, tmp_path).history()] == [2] * 8
    (alone,) = run([fit], images, tmp_path / "alone")
    assert first["best_mae"] == pytest.approx(alone["best_mae"], rel=0.5)


def test_without_a_label_that_counts_the_last_epoch_is_kept(tmp_path):
    fit, images = brightness_fit(epochs=2)
    unknown = replace(fit.validation, labels=np.full_like(fit.validation.labels, np.nan))
    (summary,) = run([replace(fit, validation=unknown)], images, tmp_path)
    assert (summary["best_by"], summary["best_mae"], summary["best_epoch"]) == ("last", None, 2)


def test_fits_of_two_heads_are_never_taken_for_each_other(tmp_path):
    fit, images = brightness_fit(epochs=1)
    other = replace(fit, head=replace(a_fit(Images()).head))
    assert fit.name != other.name
    run([fit], images, tmp_path)
    read_as = Folder(join(str(tmp_path), fit.name), other, Storage())
    with pytest.raises(WeightsError, match="its columns are not those of 14 logits an image"):
        read_as.read_predictions(fit.score["test"])


def test_fits_of_0_1_0_keep_their_names():
    """The folder that chexray 0.1.0 trains this fit in."""
    assert a_fit(Images()).name == "0a25d79f79d9a42d"


def test_the_loop_knows_no_task():
    for path in Path(chexray.utility.loop.__path__[0]).glob("*.py"):
        found = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
        assert not [node for node in found if node.module and "classification" in node.module], path
