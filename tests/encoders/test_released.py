"""A network is the published one by its shape and its weights, never by its name."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from chexray.config import parse_config
from chexray.encoders.pixels import Pixels
from chexray.encoders.rad_dino import RadDino, dinov2_shapes
from chexray.encoders.random_fill import fill
from chexray.encoders.released import likeness
from chexray.encoders.siamese_reid import SiameseReid
from chexray.errors import ConfigError
from chexray.metrics.base import Score
from chexray.metrics.fid import OUTPUT
from chexray.plan import make_plan
from chexray.results.published import comparable
from chexray.suites.common import score_row

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NARROW = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 56, "patch_size": 14}


@pytest.fixture
def narrow(tmp_path):
    """A DINOv2 of the published layout and another size, as anybody may call rad_dino."""
    config = {**NARROW, "mlp_ratio": 4, "num_channels": 3, "qkv_bias": True}
    folder = tmp_path / "rad-dino"
    folder.mkdir()
    state = {name: torch.from_numpy(value) for name, value in fill(dinov2_shapes(config), 7).items()}
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "dinov2", **config}))
    return folder


def full(**options) -> tuple[RadDino, object]:
    """The network of the published size with a spec as of trained weights: the real ones are 346 MB."""
    encoder = RadDino(weights="random:0", **options)
    return encoder, replace(encoder.resolve(), weights="/models/rad-dino", weights_sha256="ab" * 32)


def test_another_architecture_is_named_and_no_word_makes_it_the_papers(narrow):
    encoder = RadDino(weights=str(narrow))
    found = likeness(encoder, encoder.resolve(), "released")
    assert found.keys() == {"network_differs"}
    assert found["network_differs"].startswith("hidden_size 32, not 768; num_hidden_layers 3, not 12")


@pytest.mark.parametrize(
    ("options", "what"), [({"pooling": "patch_mean"}, "pooling patch_mean"), ({"precision": "bf16"}, "precision bf16")]
)
def test_what_else_makes_other_features_differs_too(options, what):
    assert likeness(*full(**options), "released")["network_differs"].startswith(what)


def test_weights_are_known_by_hash_by_hub_revision_or_by_word(monkeypatch):
    encoder, spec = full()
    assert likeness(encoder, spec) == {}
    assert likeness(encoder, spec, "released") == {"weights_are": "released rad_dino, by the config's word"}
    hub = replace(spec, weights="microsoft/rad-dino@main", revision=COMMIT)
    assert likeness(encoder, hub) == {"weights_are": "released rad_dino, by hub revision 0123456789ab"}
    assert likeness(encoder, replace(hub, revision="")) == {}  # a folder of that name
    assert likeness(encoder, replace(hub, weights="somebody/rad-dino")) == {}
    monkeypatch.setattr(RadDino, "released_sha256", ("ab" * 32,), raising=False)
    assert likeness(encoder, spec) == {"weights_are": "released rad_dino, by sha256"}
    assert likeness(encoder, encoder.resolve(), "released") == {}  # random


def test_an_encoder_without_published_numbers_says_nothing():
    assert likeness(Pixels(), Pixels().resolve()) == {}
    reid = SiameseReid(weights="random:3")
    assert reid.unlike_released() == ""


def plan_of(write_images, tmp_path, **encoder):
    config = {
        "real": str(write_images("real", 12, seed=1)),
        "synthetic": [str(write_images("synthetic", 12, seed=2))],
        "protocol": "chexgenbench",
        "encoders": [encoder],
        "metrics": ["fid"],
        "output": str(tmp_path / "out"),
    }
    return make_plan(parse_config(config))


def test_the_rows_of_a_run_say_which_network_it_was(write_images, tmp_path, narrow):
    plan = plan_of(write_images, tmp_path, name="rad_dino", weights=str(narrow))
    row = score_row(
        plan, Score(OUTPUT, 60.0), suite="fidelity", real=plan.real, synthetic=plan.synthetic[0], n_real=12,
        n_synthetic=12, n_rejected=0, created_at="2026-01-02T03:04:05Z", encoder="rad_dino",
    )  # fmt: skip
    assert row["about"]["network_differs"].startswith("hidden_size 32")
    assert "the network is not the paper's: hidden_size 32" in comparable(row)


@pytest.mark.parametrize(
    ("encoder", "why"),
    [
        ({"name": "pixels"}, "no published numbers are known for pixels"),
        ({"name": "rad_dino", "weights": "random:7"}, "its weights are 'random:7'"),
    ],
)
def test_a_word_that_cannot_be_true_is_refused(write_images, tmp_path, encoder, why):
    with pytest.raises(ConfigError, match=why):
        plan_of(write_images, tmp_path, weights_are="released", **encoder)


def test_a_word_about_another_architecture_is_refused(write_images, tmp_path, narrow):
    with pytest.raises(ConfigError, match="the network is not the published one: hidden_size 32"):
        plan_of(write_images, tmp_path, name="rad_dino", weights=str(narrow), weights_are="released")
