"""What a run's driver takes from the folders of its fits while another run, or the same run once more, trains them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fixtures.fits import AFTER_AN_EPOCH, FailingStorage, Images, a_fit, run

from chexray.encoders.base import EncoderSpec
from chexray.engine import train as module
from chexray.engine.features import FeatureStore, StoreIndex
from chexray.engine.pools import Resources, TrainPool
from chexray.engine.train import train
from chexray.engine.train_task import Task
from chexray.errors import ResourceError, RunFailed
from chexray.storage import Storage
from chexray.utility.loop.checkpointing import Folder

SPEC = EncoderSpec("toy", "", "", "1", "none", "fp32", {"image": 4}, (8, 8), "uint8", 1, {})
HERE = Resources(cpus=2, gpus=0, memory=4e9, nodes=1)


class Silent:
    """A progress bar that nobody watches."""

    def advance(self, *_: int) -> None: ...

    def close(self) -> None: ...


@pytest.fixture
def images() -> Images:
    return Images()


@pytest.fixture
def task(tmp_path, images) -> Task:
    fits = tuple(a_fit(images, seed=seed, title=f"seed {seed}") for seed in range(3))
    store = FeatureStore(str(tmp_path), Storage())
    return Task(fits, store, SPEC, StoreIndex(), None, TrainPool(1, "cpu", 1, 0.5), str(tmp_path / "fits"), "run-1")


def trained(task: Task, monkeypatch, work: Any) -> dict[str, str]:
    """`train` with `work(task, fits)` in place of a group of workers."""
    monkeypatch.setattr(module, "_train_on_ray", lambda task, fits, _: work(task, fits))
    monkeypatch.setattr(module, "POLL_S", 0.01)
    return train(task, HERE, lambda *_: Silent())  # pyright: ignore[reportArgumentType]


def test_fits_that_were_begun_come_last_and_done_ones_are_tidied(task, images):
    first, second, third = task.fits
    with pytest.raises(Exception, match="plug"):
        run([first], images, task.root, FailingStorage(AFTER_AN_EPOCH))
    run([second], images, task.root)
    leftover = task.folder(second).at("checkpoint.pt")
    Storage().write(leftover, b"of a run that was killed")
    assert task.left() == [third, first]
    assert not Storage().exists(leftover)


def test_a_failure_belongs_to_the_run_that_met_it(task, images, monkeypatch):
    twice = replace(task, attempt="another")
    bad, good = task.fits[0], list(task.fits[1:])

    def work(task: Task, fits: list) -> None:
        run(good, images, task.root)
        task.folder(bad).fail("loss is not finite")

    def beside(task: Task, fits: list) -> None:
        assert trained(twice, monkeypatch, work) == {"seed 0": "loss is not finite"}
        twice.folder(bad).fail("once more")

    with pytest.raises(RunFailed, match="1 of 3 trainings are not committed, first seed 0"):
        trained(task, monkeypatch, beside)
    assert trained(task, monkeypatch, work) == {"seed 0": "loss is not finite"}
    assert not task.folder(bad).failure
    assert twice.folder(bad).failure == "once more"


def test_what_another_run_trained_has_not_failed(task, images, monkeypatch):
    def work(task: Task, fits: list) -> None:
        for fit in fits:
            task.folder(fit).fail("loss is not finite")
        run(list(task.fits), images, task.root)

    assert trained(task, monkeypatch, work) == {}
    assert not [path for path in Storage().list(task.root) if "failed" in path.uri]


def test_the_same_run_started_twice_stops_for_its_own_errors_only(task, images, monkeypatch):
    twice = replace(task, attempt="another")
    assert task.stopped != twice.stopped

    def stopped(task: Task) -> None:
        note = {"kind": "ResourceError", "message": "out of memory"}
        task.storage.write(task.stopped, json.dumps(note).encode())

    stopped(twice)
    trained(task, monkeypatch, lambda task, fits: run(fits, images, task.root))
    module.raise_if_stopped(task)
    with pytest.raises(ResourceError, match="out of memory"):
        module.raise_if_stopped(twice)
    assert not Storage().exists(twice.stopped)


def test_a_fit_that_another_run_commits_is_not_trained_to_its_end(task, images):
    """At each of its epochs a training looks; then it takes the weights that are there, whatever their bits."""
    fit, said = task.fits[0], []
    other = task.folder(fit)

    def say(line: str) -> None:
        said.append(line)
        if "epoch 1 of" in line:
            theirs = Images()
            theirs.stored = {key: np.roll(image, 3) for key, image in images.stored.items()}
            root = f"{task.root}-beside"
            run([fit], theirs, root)
            for file in Storage().list(root):
                Storage().write(other.at(file.uri.rsplit("/", 1)[1]), Storage().read(file.uri))
            Storage().delete(other.at(f"predictions-{fit.score_digests['validation']}.parquet"))

    run([fit], images, task.root, say=say)
    assert [line for line in said if "epoch" in line] == said[:1]
    assert "another run has trained it meanwhile" in said[1]
    folders = [Folder(f"{root}/{fit.name}", fit, Storage()) for root in (task.root, f"{task.root}-beside")]
    models = [folder.storage.read(folder.at("model.safetensors")) for folder in folders]
    assert models[0] == models[1]
    assert folders[0].history() == folders[1].history()
    assert other.is_done
