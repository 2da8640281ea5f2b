"""Two runs that train one fit at once: in every order of their steps both end with the model that was committed first.

The trainings are stand-ins that cost nothing and whose weights name the run that made them, as if every run had another
number of workers; what they read and write goes through `run_fits` and `Folder` as in any run.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from fixtures.fits import RECIPE, Images, a_fit
from fixtures.turns import REST, Killed, Memory, MemoryStorage, Turns, schedules

from chexray.utility.classification.head import Classification
from chexray.utility.loop import fit_all, fit_run
from chexray.utility.loop.checkpointing import Folder
from chexray.utility.loop.epoch import PhaseTraining
from chexray.utility.loop.fit_spec import Fit
from chexray.utility.loop.network import Network

ROOT = "s3://bucket/fits"
TIMED = {"images_per_s", "input_images_per_s", "seconds"}
AUROC = [0.6, 0.9, 0.7]
"""Of the three epochs: the second is the model."""
WHO: dict[int, float] = {}


class Weights(torch.nn.Linear):
    """One number: the epoch it is of, and behind the point the run that trained it."""

    def __init__(self) -> None:
        super().__init__(1, 1, bias=False)


def weight_of(network: Network) -> torch.Tensor:
    return next(network.model.parameters())


@pytest.fixture
def trained(monkeypatch) -> None:
    """Trainings of three epochs in no time."""

    def network(*_: Any) -> Network:
        return Network(Classification(), Weights(), torch.device("cpu"), "fp32", (0.5,) * 3, (0.5,) * 3)

    def trained_epoch(phase: PhaseTraining, epoch: int, _: str) -> dict[str, Any]:
        network, number, mine = phase.network, epoch + 1, WHO[threading.get_ident()]
        with torch.no_grad():
            weight_of(network).fill_(number + mine)
        return {"lr": 0.1, "loss": weight_of(network).item(), "images_per_s": 1.0 + mine, "input_images_per_s": 1.0}

    def validated(network: Network, *_: Any) -> dict[str, Any]:
        value = weight_of(network).item()
        return {"val_auroc": AUROC[int(value) - 1], "val_loss": value, "finite": True}

    def predicted(network: Network, keys: np.ndarray, *_: Any) -> np.ndarray:
        return np.full((len(keys), 14), weight_of(network).item(), np.float32)

    monkeypatch.setattr(Network, "of", network)
    monkeypatch.setattr(fit_run, "train_epoch", trained_epoch)
    monkeypatch.setattr(fit_run, "validate", validated)
    monkeypatch.setattr(fit_all, "predict_keys", predicted)
    monkeypatch.setattr(fit_all, "arithmetic", lambda *_: contextlib.nullcontext())


@pytest.fixture(scope="module")
def fit() -> Fit:
    images = Images()
    fit = a_fit(images, n=4, recipe=replace(RECIPE, epochs=3))
    return replace(fit, validation=fit.validation.take(np.arange(4)), score={"test": np.array(["u", "v"])})


def a_run(fit: Fit, storage: MemoryStorage, number: int, seed: int = 0) -> Callable[[], Any]:
    """What a run does with a fit: trains it unless it is done, then reads what it is to report."""

    def go() -> Any:
        WHO[threading.get_ident()] = number / 8
        folder = Folder(f"{ROOT}/{fit.name}", fit, storage)
        if not folder.is_done:
            fit_all.run_fits(
                [fit], lambda keys: np.zeros((len(keys), 32, 32), np.uint8), lambda _: folder.uri, storage,
                device="cpu", threads=1, weights=None, say=lambda _: None,
            )  # fmt: skip
        else:
            folder.tidy()
        return folder.read_predictions(fit.score["test"])[0, 0], untimed(folder.history())

    return go


def untimed(rows: list[dict]) -> list[dict]:
    return [{key: value for key, value in row.items() if key not in TIMED} for row in rows]


def a_store() -> tuple[Turns, Memory, MemoryStorage]:
    turns = Turns()
    memory = Memory(turns)
    return turns, memory, MemoryStorage(memory=memory)


def steps_alone(fit: Fit) -> int:
    turns, _, storage = a_store()
    taken = []
    turns.wait = lambda: taken.append(1)
    a_run(fit, storage, 0)()
    return len(taken)


def check(fit: Fit, memory: Memory, storage: MemoryStorage, results: list[Any], *, tidy: bool = True) -> None:
    """All have reported the one model of the folder, and the folder is as one run alone leaves it."""
    folder = Folder(f"{ROOT}/{fit.name}", fit, storage)
    state, about = folder.load_model()
    value = float(state["weight"])
    assert int(value) == 2
    assert json.loads(about["best_epoch"]) == 2
    for result in results:
        if isinstance(result, BaseException):
            raise result
        predicted, history = result
        assert predicted == value
        assert history == untimed(folder.history())
    history = folder.history()
    assert [int(row["loss"]) for row in history] == [1, 2, 3]
    assert history[1]["loss"] == value  # the epochs are those of this model
    names = {uri.rsplit("/", 1)[1].split("-")[0] for uri in memory.objects}
    if tidy:
        assert names == {"fit.json", "history.json", "model.safetensors", "predictions"}


@pytest.mark.slow
def test_both_end_with_the_model_that_was_committed_first(fit, trained):
    n = steps_alone(fit)
    assert 20 < n < 60
    for schedule in schedules(n, n, stride=5):
        turns, memory, storage = a_store()
        found = turns.played({"a": a_run(fit, storage, 1), "b": a_run(fit, storage, 2)}, schedule)
        try:
            check(fit, memory, storage, list(found.values()))
        except BaseException as error:
            raise AssertionError(f"{schedule}: {error!r}") from error


def test_a_run_that_is_killed_beside_another_leaves_nothing_that_a_third_needs_to_know(fit, trained):
    n = steps_alone(fit)
    for i in range(n + 1):
        for j in range(i % 6, n + 1, 6):
            schedule = [("a", i), ("b", j), ("a", 1), ("a", -1), ("b", REST)]
            turns, memory, storage = a_store()
            found = turns.played({"a": a_run(fit, storage, 1), "b": a_run(fit, storage, 2)}, schedule)
            third = a_run(fit, storage, 3)()
            try:
                survived = [each for each in found.values() if not isinstance(each, Killed)]
                check(fit, memory, storage, [*survived, third])
            except BaseException as error:
                raise AssertionError(f"{schedule}: {error!r}") from error


def test_both_killed_and_resumed(fit, trained):
    n = steps_alone(fit)
    for i in range(n + 1):
        for j in range(i % 8, n + 1, 8):
            turns, memory, storage = a_store()
            writers = {"a": a_run(fit, storage, 1), "b": a_run(fit, storage, 2)}
            turns.played(writers, [("a", i), ("b", j), ("a", 1), ("a", -1), ("b", 1), ("b", -1)])
            try:
                check(fit, memory, storage, [a_run(fit, storage, 3)()])
            except BaseException as error:
                raise AssertionError(f"{i}, {j}: {error!r}") from error
