"""What a folder of a fit accepts back: its own whole files, and nothing that could run code or fit another model."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from fixtures.fits import AFTER_AN_EPOCH, FailingStorage, Images, a_fit, run
from safetensors.torch import load, save

from chexray.errors import WeightsError
from chexray.storage import Storage, join
from chexray.utility.loop.checkpointing import Folder, from_bytes, metadata_of, to_bytes, with_metadata


@pytest.fixture
def folder(tmp_path) -> Folder:
    return Folder(str(tmp_path / "fit"), a_fit(Images()), Storage())


def test_a_state_returns_as_it_was():
    adam = torch.optim.Adam([torch.nn.Parameter(torch.ones(3))])
    state = {"a": torch.arange(3.0), "b": [{"loss": 0.5, "none": None}], "c": adam.state_dict()}
    back = from_bytes(to_bytes(state))
    assert torch.equal(back["a"], state["a"])
    assert back["b"] == state["b"]
    assert back["c"] == state["c"]


class Payload:
    def __reduce__(self):
        return print, ("code ran",)


@pytest.mark.parametrize("data", [b"", b"noise", pickle.dumps(Payload(), 2), to_bytes({"x": 1})[:-40]])
def test_anything_else_is_refused_with_the_folder_to_delete(folder, data, capsys):
    folder.storage.write(folder.at("checkpoint.pt"), data)
    with pytest.raises(WeightsError, match=rf"checkpoint.pt cannot be used: .* Delete the folder {folder.uri}"):
        folder.load_state()
    assert capsys.readouterr().out == ""


def test_a_checkpoint_of_another_fit_is_refused(folder):
    folder.storage.write(folder.at("checkpoint.pt"), to_bytes({"fit": "another"}))
    with pytest.raises(WeightsError, match="belongs to fit 'another'"):
        folder.load_state()


def test_a_checkpoint_of_another_shape_is_refused(tmp_path):
    images = Images()
    fit = a_fit(images)
    with pytest.raises(Exception, match="plug"):
        run([fit], images, tmp_path, FailingStorage(AFTER_AN_EPOCH))
    path = join(str(tmp_path), fit.name, "checkpoint.pt")
    state = from_bytes(Storage().read(path))
    name = next(iter(state["model"]))
    state["model"][name] = torch.zeros(2, 2)
    Storage().write(path, to_bytes(state))
    with pytest.raises(WeightsError, match=r"does not fit test_resnet \(.*Delete the folder") as caught:
        run([fit], images, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_without_best_weights_is_of_an_earlier_version_and_is_not_used(tmp_path):
    """chexray 0.1.0 kept them in a file of their own, which another run could replace between the two."""
    images = Images()
    fit = a_fit(images)
    with pytest.raises(Exception, match="plug"):
        run([fit], images, tmp_path, FailingStorage(AFTER_AN_EPOCH))
    path = join(str(tmp_path), fit.name, "checkpoint.pt")
    state = from_bytes(Storage().read(path))
    del state["best"]
    Storage().write(path, to_bytes(state))
    Storage().write(path.replace("checkpoint", "best"), b"weights")
    said: list[str] = []
    run([fit], images, tmp_path, say=said.append)
    assert said[0].startswith("real, seed 0: epoch 1 of 2")
    assert not [file for file in Storage().list(str(tmp_path)) if file.uri.endswith(".pt")]


def test_final_weights_are_the_same_bytes_each_time_and_say_what_they_are():
    tensors = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.zeros(3, dtype=torch.int64)}
    about = {"title": "é", "std": "[1, 2]", "mean": "[0]", "recipe": json.dumps({"model": "m"})}
    files = {with_metadata(save(tensors), about) for _ in range(8)}
    assert len(files) == 1
    data = files.pop()
    assert metadata_of(data) == about
    assert all(torch.equal(load(data)[name], value) for name, value in tensors.items())


def test_predictions_return_in_their_order(folder):
    keys = np.array(["b", "a", "c"])
    logits = np.random.default_rng(0).normal(size=(3, 14)).astype(np.float32)
    folder.write_predictions(keys, logits)
    folder.write_predictions(keys[:0], logits[:0])
    assert np.array_equal(folder.read_predictions(keys), logits)
    assert folder.read_predictions(keys[:0]).shape == (0, 14)


def test_a_fit_starts_from_the_final_weights_of_another(tmp_path):
    """Classifier, mean and std travel in model.safetensors."""
    from chexray.utility.classification.classifier import build, find_weights, has_head
    from chexray.utility.loop.network import mean_std

    images = Images()
    fit = a_fit(images)
    run([fit], images, tmp_path)
    uri = join(str(tmp_path), fit.name, "model.safetensors")
    weights = find_weights("test_resnet", uri)
    assert has_head("test_resnet", weights, image_size=32)
    model = build("test_resnet", weights, seed=3, image_size=32)
    assert list(mean_std(model)[0]) == json.loads(metadata_of(Storage().read(uri))["mean"])
    as_is = replace(fit, recipe=replace(fit.recipe, epochs=0, weights=uri, weights_sha256="1"), title="as is")
    run([as_is], images, tmp_path, weights=weights)
    read = [
        Folder(join(str(tmp_path), f.name), f, Storage()).read_predictions(fit.validation.keys) for f in (fit, as_is)
    ]
    assert np.array_equal(*read)
