"""Files of a fit's folder that others changed: each ends in one line that names the folder to delete; no code runs."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import random
import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from encoders.test_hostile_weights import Calls, mutated, refusal
from fixtures.fits import AFTER_AN_EPOCH, RECIPE, FailingStorage, Images, a_fit, run
from safetensors.torch import load, save, save_file

from chexray.errors import ChexrayError
from chexray.storage import Storage
from chexray.utility.classification.classifier import build, find_weights, has_head
from chexray.utility.loop.checkpointing import Folder, metadata_of, predictions_name, to_bytes, with_metadata
from chexray.utility.loop.fit_spec import Fit


class Case:
    """A fit of two phases' worth of files: one folder that stopped after an epoch, one that is committed."""

    def __init__(self, root: Path):
        self.images = Images()
        self.fit: Fit = a_fit(self.images)
        self.stopped, self.done = root / "stopped", root / "done"
        with pytest.raises(Exception, match="plug"):
            run([self.fit], self.images, self.stopped, FailingStorage(AFTER_AN_EPOCH))
        run([self.fit], self.images, self.done)

    def folder(self, root: Path) -> Folder:
        return Folder(str(root / self.fit.name), self.fit, Storage())

    def copy(self, source: Path, target: Path) -> Path:
        """A copy of a root to damage; its folder of the fit."""
        shutil.copytree(source, target, dirs_exist_ok=True)
        return target / self.fit.name

    def resume(self, root: Path) -> Any:
        return run([self.fit], self.images, root)


@pytest.fixture(scope="module")
def case(tmp_path_factory) -> Case:
    return Case(tmp_path_factory.mktemp("case"))


@pytest.fixture
def stopped(case, tmp_path) -> Path:
    return case.copy(case.stopped, tmp_path)


@pytest.fixture
def done(case, tmp_path) -> Path:
    return case.copy(case.done, tmp_path)


def refused(call: Callable[[], Any], folder: Path) -> str:
    message = refusal(call, seconds=20, megabytes=400)
    assert f"Delete the folder {folder}" in message
    return message


def rewritten(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    state = torch.load(path, weights_only=True)
    path.write_bytes(to_bytes(change(state) or state))


def put(*keys: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    """Sets one value inside a nested state."""

    def change(state: Any) -> None:
        for key in keys[:-1]:
            state = state[key]
        state[keys[-1]] = value

    return change


def drop(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda state: state.pop(key) and None


FIRST = "conv1.0.weight"
GROUP = ("optimisation", "optimiser", "param_groups", 0)
MOMENTS = ("optimisation", "optimiser", "state", 0)
STATES: dict[str, Callable[[dict[str, Any]], Any]] = {
    **{f"no {key}": drop(key) for key in ("fit", "phase", "model", "optimisation", "mean", "std", "history")},
    "phase text": put("phase", value="0"),
    "phase of another": put("phase", value=7),
    "model list": put("model", value=[1]),
    "model text": put("model", value="x"),
    "integer key": put("model", 5, value=torch.zeros(1)),
    "int8": put("model", FIRST, value=torch.zeros(16, 3, 3, 3, dtype=torch.int8)),
    "nan": put("model", FIRST, value=torch.full((16, 3, 3, 3), float("nan"))),
    "expanded": put("model", FIRST, value=torch.zeros(1).expand(10**9)),
    "a number": put("model", FIRST, value=3),
    "mean text": put("mean", value="abc"),
    "mean of two": put("mean", value=[0.5, 0.5]),
    "mean nan": put("mean", value=[float("nan")] * 3),
    "std zero": put("std", value=[0.0] * 3),
    "history empty": put("history", value=[]),
    "history text": put("history", value="x"),
    "history row": put("history", value=[3]),
    "history keys": put("history", value=[{"epoch": 1}]),
    "history long": lambda state: {**state, "history": state["history"] * 5000},
    "optimisation list": put("optimisation", value=[1]),
    "optimiser text": put("optimisation", "optimiser", value="x"),
    "no groups": put("optimisation", "optimiser", "param_groups", value=[]),
    "groups of others": put(*GROUP, "params", value=[0]),
    "learning rate": put(*GROUP, "lr", value="fast"),
    "learning rate nan": put(*GROUP, "lr", value=float("nan")),
    "betas": put(*GROUP, "betas", value=(0.0, 0.0)),
    "weight decay": put(*GROUP, "weight_decay", value=1e9),
    "moments shape": put(*MOMENTS, "exp_avg", value=torch.zeros(2)),
    "moments text": put(*MOMENTS, "exp_avg", value="x"),
    "moments nan": put(*MOMENTS, "exp_avg_sq", value=torch.full((16, 3, 3, 3), float("nan"))),
    "moments of others": put("optimisation", "optimiser", "state", value={9999: {}}),
    "step": put(*MOMENTS, "step", value="x"),
    "scaler": put("optimisation", "scaler", value={"evil": 1}),
    "scaler text": put("optimisation", "scaler", value="x"),
    "another fit": put("fit", value="\x1b[2J" + "x" * 10**6),
    "fit tensor": put("fit", value=torch.zeros(3)),
}


@pytest.mark.parametrize("name", STATES)
def test_a_checkpoint_with_other_contents_is_refused(name, case, stopped):
    rewritten(stopped / "checkpoint.pt", STATES[name])
    refused(lambda: case.resume(stopped.parent), stopped)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epoch", "1"), ("epoch", 0), ("epoch", 10**9), ("epoch", None), ("value", "x"), ("value", float("nan")),
        ("auroc", []), ("model", None), ("model", {}), ("model", {1: 2}),
    ],
)  # fmt: skip
def test_best_weights_with_other_contents_are_refused(key, value, case, stopped):
    rewritten(stopped / "checkpoint.pt", put("best", key, value=value))
    refused(lambda: case.resume(stopped.parent), stopped)


@pytest.mark.parametrize("value", [None, {}, [1], "x"])
def test_best_weights_that_are_missing_are_noticed(value, case, stopped):
    rewritten(stopped / "checkpoint.pt", put("best", value=value))
    refused(lambda: case.resume(stopped.parent), stopped)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_no_pickle_of_a_folder_acts(protocol, case, stopped, tmp_path):
    marker, name = tmp_path / "ran", "checkpoint.pt"
    for payload in (Calls(os.system, f"touch {marker}"), Calls(exec, f"open({str(marker)!r}, 'w')")):
        (stopped / name).write_bytes(pickle.dumps({"fit": case.fit.name, "model": payload}, protocol))
        message = refused(lambda: case.resume(stopped.parent), stopped)
        assert "could run code" in message or protocol == 0
        torch.save({"fit": case.fit.name, "model": payload}, stopped / name)
        assert "could run code" in refused(lambda: case.resume(stopped.parent), stopped)
    assert not marker.exists()


ROW = {
    "phase": 0, "epoch": 1, "workers": 1, "images": 48, "lr": 1e-3, "loss": 0.5, "images_per_s": 5.0,
    "input_images_per_s": 9.0, "val_auroc": 0.7, "val_loss": 0.6, "best_epoch": 1, "best_auroc": 0.7,
    "best_by": "auroc", "seconds": 1.0,
}  # fmt: skip
HISTORIES: dict[str, Any] = {
    "null": None, "text": "x", "object": {}, "number": 5, "numbers": [1, 2], "texts": ["a"], "lists": [[]],
    "empty row": [{}], "epoch": [{**ROW, "epoch": 2}], "twice": [ROW, ROW], "phase": [{**ROW, "phase": 3}],
    "long": [ROW] * 3, "images": [{**ROW, "images": "48"}], "rate": [{**ROW, "images_per_s": "x"}],
    "infinite": [{**ROW, "seconds": float("inf")}], "nan": [{**ROW, "loss": float("nan")}],
    "auroc": [{**ROW, "val_auroc": [1]}], "by": [{**ROW, "best_by": "\x1b[2J" * 10**5}],
    "best": [{**ROW, "best_epoch": {}}], "huge": [{**ROW, "images": 10**400}],
}  # fmt: skip


@pytest.mark.parametrize("kind", HISTORIES)
def test_a_history_with_other_contents_is_refused(kind, case, done):
    (done / "history.json").write_text(json.dumps(HISTORIES[kind]))
    refused(lambda: case.resume(done.parent), done)
    refused(lambda: case.folder(done.parent).history(), done)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[" * 10**6, b"9" * 9000, b" " * 2 * 10**7])
@pytest.mark.parametrize("name", ["history.json", "failed.json"])
def test_json_that_cannot_be_read_is_refused(name, data, case, done):
    (done / name).write_bytes(data)
    folder = case.folder(done.parent)
    refused(lambda: folder.history() if name == "history.json" else folder.failure, done)


@pytest.mark.parametrize("value", [None, [], "x", 5, {}, {"reason": 5}, {"reason": None}, {"why": "x"}])
def test_a_failure_without_a_reason_is_refused(value, case, done):
    (done / "failed.json").write_text(json.dumps(value))
    refused(lambda: case.folder(done.parent).failure, done)


def test_a_reason_is_shown_as_one_bounded_line(case, done):
    (done / "failed.json").write_text(json.dumps({"reason": "\x1b[2J\n\u202e" + "x" * 10**6}))
    why = case.folder(done.parent).failure
    assert len(why) <= 2000
    assert why.isprintable()


def test_other_keys_of_a_history_are_left_out(case, stopped):
    (stopped / "history.json").write_text(json.dumps([{**ROW, "evil": {"a": [1]}}]))
    assert case.folder(stopped.parent).history() == [ROW]


@pytest.mark.parametrize("kind", HISTORIES)
def test_epochs_of_another_kind_in_the_final_weights_are_refused(kind, case, done):
    path = done / "model.safetensors"
    about = {**metadata_of(path.read_bytes()), "history": json.dumps(HISTORIES[kind])}
    path.write_bytes(with_metadata(save(load(path.read_bytes())), about))
    timed = kind in ("rate", "infinite")  # what a clock measured is not taken from there
    if not timed:
        refused(lambda: case.folder(done.parent).history(), done)


def unscored(case: Case, folder: Path) -> None:
    """Without predictions, so that the final weights have to be read."""
    for keys in case.fit.score.values():
        (folder / predictions_name(keys)).unlink()


@pytest.mark.parametrize(
    "about",
    [
        {}, {"mean": "[1,1,1]"}, {"mean": '"abc"', "std": "[1,1,1]"}, {"mean": "abc", "std": "[1,1,1]"},
        {"mean": "[1,1,1]", "std": "[0,0,0]"}, {"mean": "[NaN,1,1]", "std": "[1,1,1]"}, {"mean": "[1]", "std": "[1]"},
        {"mean": "[" * 10**5, "std": "[1,1,1]"}, {"mean": "9" * 9000, "std": "[1,1,1]"}, {"mean": "{}", "std": "null"},
    ],
)  # fmt: skip
def test_final_weights_that_do_not_say_how_to_normalise_are_refused(about, case, done):
    data = (done / "model.safetensors").read_bytes()
    (done / "model.safetensors").write_bytes(with_metadata(save(load(data)), about))
    unscored(case, done)
    assert "how to normalise" in refused(lambda: case.resume(done.parent), done)


def test_final_weights_of_another_kind_are_refused(case, done):
    path = done / "model.safetensors"
    data = path.read_bytes()
    tensors, about = load(data), metadata_of(data)
    name = next(name for name, value in tensors.items() if value.dim() == 4)
    unscored(case, done)
    changed: dict[str, bytes] = {
        "int8": with_metadata(save({**tensors, name: tensors[name].to(torch.int8)}), about),
        "nan": with_metadata(save({**tensors, name: tensors[name] * float("nan")}), about),
        "shape": with_metadata(save({**tensors, name: torch.zeros(2)}), about),
        "missing": with_metadata(save({name: tensors[name]}), about),
        "short": data[:-4],
        "long": data + b"\0",
        "empty": b"",
        "header": (2**60).to_bytes(8, "little") + data[8:],
        "pickle": pickle.dumps(Calls(os.system, f"touch {done / 'ran'}")),
    }
    for content in changed.values():
        path.write_bytes(content)
        refused(lambda: case.resume(done.parent), done)
    assert not (done / "ran").exists()


def predictions(keys: list[str], logits: Any, kind: Any = None, **more: Any) -> pa.Table:
    return pa.table({"image_key": pa.array(keys), "logits": pa.array(logits, kind), **more})


def test_predictions_of_another_kind_are_refused(case, done):
    keys = case.fit.validation.keys
    n, folder = len(keys), case.folder(done.parent)
    good = np.zeros((n, 14), np.float32)
    fixed = pa.list_(pa.float32(), 14)
    rows = good.tolist()
    tables = {
        "float64": predictions(keys.tolist(), rows, pa.list_(pa.float64(), 14)),
        "width": predictions(keys.tolist(), good[:, :13].tolist(), pa.list_(pa.float32(), 13)),
        "ragged": predictions(keys.tolist(), [[0.0] * 13, [0.0] * 15, *rows[2:]], pa.list_(pa.float32())),
        "numbers": predictions(keys.tolist(), [0.0] * n),
        "texts": predictions(keys.tolist(), ["x"] * n),
        "null rows": predictions(keys.tolist(), [None, *rows[1:]], fixed),
        "null values": predictions(keys.tolist(), [[None] * 14, *rows[1:]], fixed),
        "nan": predictions(keys.tolist(), [[float("nan")] * 14, *rows[1:]], fixed),
        "order": predictions(keys.tolist()[::-1], rows, fixed),
        "others": predictions([f"\x1b{k}" for k in range(n)], rows, fixed),
        "fewer": predictions(keys.tolist()[1:], rows[1:], fixed),
        "integer keys": pa.table({"image_key": list(range(n)), "logits": pa.array(rows, fixed)}),
        "no keys": pa.table({"logits": pa.array(rows, fixed)}),
        "no logits": pa.table({"image_key": keys.tolist()}),
        "empty": pa.table({"image_key": pa.array([], pa.string()), "logits": pa.array([], fixed)}),
    }
    folder.storage.write_parquet(folder.at(predictions_name(keys)), predictions(keys.tolist(), rows, fixed))
    assert np.array_equal(folder.read_predictions(keys), good)
    for table in tables.values():
        folder.storage.write_parquet(folder.at(predictions_name(keys)), table)
        refused(lambda: folder.read_predictions(keys), done)


def test_a_sparse_checkpoint_is_refused_before_it_is_read(case, stopped):
    with open(stopped / "checkpoint.pt", "wb") as stream:
        stream.truncate(40 * 10**9)
    assert "40,000,000,000 bytes" in refused(lambda: case.resume(stopped.parent), stopped)


def test_a_plateau_whose_methods_would_be_replaced_is_refused(tmp_path):
    images = Images()
    recipe = deepcopy(RECIPE).__class__(**{**RECIPE.__dict__, "schedule": "plateau"})
    fit = a_fit(images, recipe=recipe)
    with pytest.raises(Exception, match="plug"):
        run([fit], images, tmp_path, FailingStorage(AFTER_AN_EPOCH))
    folder = tmp_path / fit.name
    whole = (folder / "checkpoint.pt").read_bytes()
    for change in ({"step": 5}, {"patience": "x"}, {"best": [1, "a"]}, {"factor": None}):
        (folder / "checkpoint.pt").write_bytes(whole)
        rewritten(folder / "checkpoint.pt", lambda state, c=change: state["optimisation"]["plateau"].update(c))
        refused(lambda: run([fit], images, tmp_path), folder)
    (folder / "checkpoint.pt").write_bytes(whole)
    run([fit], images, tmp_path)


@pytest.mark.parametrize(
    "about", [{"mean": "abc"}, {"mean": '"abc"'}, {"std": "[0,0,0]"}, {"mean": "[1,2]"}, {"mean": "5"}]
)
def test_weights_to_start_from_with_other_metadata_are_refused(about, tmp_path):
    network = build("test_resnet", None, seed=0, image_size=32)
    save_file(network.state_dict(), tmp_path / "model.safetensors", metadata=about)
    weights = find_weights("test_resnet", str(tmp_path))
    assert "in its metadata" in refusal(lambda: has_head("test_resnet", weights, image_size=32))


@pytest.mark.slow
def test_files_changed_at_random_end_in_one_line_or_in_a_fit(case, tmp_path):
    rng = random.Random(11)
    sources = {"checkpoint.pt": case.stopped, "history.json": case.done}
    sources |= {"model.safetensors": case.done, "failed.json": case.done}
    readers: dict[str, Callable[[Folder], Any]] = {
        "checkpoint.pt": lambda folder: folder.load_state(),
        "history.json": lambda folder: folder.history(),
        "model.safetensors": lambda folder: folder.load_model(),
        "failed.json": lambda folder: folder.failure,
    }
    folder = case.folder(tmp_path)
    Path(folder.uri).mkdir()
    for number in range(200):
        name = list(sources)[number % len(sources)]
        origin = sources[name] / case.fit.name / name
        data = origin.read_bytes() if origin.exists() else b'{"reason": "loss is not finite"}'
        Path(folder.at(name)).write_bytes(mutated(data, rng))
        with contextlib.suppress(ChexrayError):
            readers[name](folder)
