"""Sets and weights of a config: there and readable, or one line that names the next move."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from chexray import parse_config
from chexray.doctor import inputs, weights
from chexray.doctor.case import Case
from chexray.doctor.checks import perform


def case(tmp_path: Path, images: Path | str, **more) -> Case:
    data = {"real": str(images), "synthetic": str(images), "encoders": ["pixels"], "output": str(tmp_path / "out")}
    return Case(parse_config({**data, **more}), environment={})


def first(looks) -> str:
    return perform(looks[0]).line


def test_a_set_is_counted_and_its_first_image_decoded(write_images, tmp_path) -> None:
    visited = case(tmp_path, write_images("real", 9))
    line = first(inputs.pending(visited))
    assert line.startswith("ok    set real")
    assert "9 images in" in line
    assert "24 x 24 pixels" in line
    assert visited.n_images == 9
    limited = case(tmp_path, tmp_path / "real", limit=5)
    first(inputs.pending(limited))
    assert limited.n_images == 5


def test_each_set_has_its_line(write_images, tmp_path) -> None:
    visited = case(tmp_path, write_images("real", 3), synthetic={"path": str(tmp_path / "gone.csv"), "name": "gone"})
    real, gone = (perform(each).line for each in inputs.pending(visited))
    assert real.startswith("ok ")
    assert gone.startswith("FAIL  set gone")
    assert "there is no such file or folder. Correct the path" in gone


def test_images_that_cannot_be_read_are_found(write_images, tmp_path) -> None:
    folder = write_images("real", 3)
    visited = case(tmp_path, folder)
    for path in folder.iterdir():
        path.write_text("hello")
    line = first(inputs.pending(visited))
    assert line.startswith("FAIL")
    assert "3 of 3 looked at cannot be read" in line
    assert "not_an_image" in line
    write_images("real", 2)
    assert first(inputs.pending(visited)).startswith("note")


def test_phantoms_are_not_drawn_by_a_look(tmp_path) -> None:
    phantom = {"name": "drawn", "source": "phantom", "generator": "real", "n": 3, "seed": 1, "size": 32}
    visited = case(tmp_path, "x", real=phantom)
    line = first(inputs.pending(visited))
    assert line.startswith("ok ")
    assert f"3 phantoms, drawn by the first run below {tmp_path}/out/phantoms/drawn" in line
    assert not (tmp_path / "out").exists()
    assert visited.n_images == 3
    wrong = case(tmp_path, "x", real={**phantom, "generator": "reel"})
    assert "generator 'reel' is not one of" in first(inputs.pending(wrong))


def test_missing_weights_are_found(tmp_path) -> None:
    visited = case(tmp_path, "x", encoders=[{"name": "rad_dino", "weights": str(tmp_path / "rad-dino")}])
    line = first(weights.pending(visited))
    assert line.startswith("FAIL  weights rad_dino")
    assert f"weights '{tmp_path}/rad-dino' cannot be used: no such file or folder" in line
    assert "set weights: /path/to/it" in line
    assert "\n" not in line


def test_weights_are_named_with_their_hash_and_size(tmp_path) -> None:
    from chexray.encoders.random_fill import fill
    from chexray.encoders.siamese_reid import expected_shapes
    from chexray.encoders.weights import hash_file

    file = tmp_path / "reid.safetensors"
    save_file(fill(expected_shapes(), 1), file)
    visited = case(
        tmp_path, "x", suite=["privacy"], encoders=[{"name": "siamese_reid", "weights": str(file)}, "pixels"]
    )
    reid, pixels = (perform(each).line for each in weights.pending(visited))
    assert reid.startswith("ok ")
    assert f"sha256 {hash_file(file)[:12]}" in reid
    assert " MB, " in reid
    assert pixels.endswith("needs no weights")


def test_random_weights_are_no_failure_but_said(tmp_path) -> None:
    visited = case(tmp_path, "x", suite=["privacy"], encoders=[{"name": "siamese_reid", "weights": "random:1"}])
    line = first(weights.pending(visited))
    assert line.startswith("note")
    assert "random:1" in line


def test_an_unknown_encoder_is_found(tmp_path) -> None:
    line = first(weights.pending(case(tmp_path, "x", encoders=["rad_dyno"])))
    assert line.startswith("FAIL")
    assert "rad_dino" in line


@pytest.fixture
def hub(monkeypatch, tmp_path) -> Path:
    """An empty hub cache, and no way to the hub."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def test_a_hub_that_may_not_be_asked_is_said(hub, tmp_path) -> None:
    line = first(weights.pending(case(tmp_path, "x", encoders=["rad_dino"])))
    assert line.startswith("FAIL")
    assert "microsoft/rad-dino is not in the hub cache, and HF_HUB_OFFLINE forbids to ask" in line
    assert "set weights to their folder" in line


def test_the_hub_cache_is_found_with_revision_hash_and_size(hub, tmp_path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    folder = hub / "models--microsoft--rad-dino" / "snapshots" / commit
    folder.mkdir(parents=True)
    weights_file = folder / "model.safetensors"
    save_file({"w": np.arange(4, dtype=np.float32)}, weights_file)
    refs = hub / "models--microsoft--rad-dino" / "refs"
    refs.mkdir()
    (refs / "main").write_text(commit)
    line = first(weights.pending(case(tmp_path, "x", encoders=["rad_dino"])))
    digest = hashlib.sha256(weights_file.read_bytes()).hexdigest()
    assert line.startswith("ok ")
    size = weights_file.stat().st_size
    assert f"microsoft/rad-dino at 01234567: {size} B, sha256 {digest[:12]}, in the hub cache" in line


def test_a_hub_that_does_not_answer_is_found(hub, tmp_path, monkeypatch) -> None:
    import huggingface_hub

    def unreachable(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", unreachable)
    line = first(weights.pending(case(tmp_path, "x", encoders=["rad_dino"])))
    assert line.startswith("FAIL")
    assert "neither in the hub cache nor available" in line


def test_the_classifier_of_the_utility_suite_is_looked_at(hub, tmp_path) -> None:
    def line(**model) -> str:
        utility = {"model": {"name": "test_resnet", **model}}
        visited = case(tmp_path, "x", suite=["utility"], training="t", encoders=[], utility=utility)
        return first(weights.pending(visited))

    assert "trained from scratch" in line(weights="none")
    assert "is not in the hub cache" in line()
    assert "cannot be used: no such file" in line(weights="/gone/model.safetensors")
    assert "has no model 'resnet_fifty'" in line(name="resnet_fifty")


def test_images_that_two_sets_share_are_said_beside_the_second(write_images, tmp_path) -> None:
    real = write_images("real", 9)
    generated = write_images("real/generated", 4, seed=1)
    looks = inputs.pending(case(tmp_path, real, synthetic=str(generated)))
    first_line, second = (perform(each).line for each in looks)
    assert first_line.startswith("ok ")
    assert second.startswith("note  set generated")
    assert "SHARED IMAGES: 4 of 13 images of real set 'real' and 4 of 4 images of synthetic set 'generated'" in second
