"""RAD-DINO: parity with transformers 4.50.3 from files in the published format, and refusal of other files."""

from __future__ import annotations

import hashlib
import json
import pickle
import re

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from chexray.encoders.network import normalise
from chexray.encoders.rad_dino import MEAN, STD, RadDino, dinov2_shapes
from chexray.encoders.random_fill import fill
from chexray.errors import ConfigError, WeightsError

SMALL = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 56}
PROCESSOR = {
    "image_processor_type": "BitImageProcessor",
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "crop_size": {"height": 518, "width": 518},
    "size": {"shortest_edge": 518},
    "image_mean": list(MEAN),
    "image_std": list(STD),
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
}


def write_folder(folder, state, config, processor=None):
    folder.mkdir(exist_ok=True)
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "dinov2", **config}))
    if processor:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


@pytest.fixture(scope="module")
def published(tmp_path_factory, oracle_state):
    """A folder as the hub has it, filled by the oracle's formula."""
    state = oracle_state("raddino", 1.6)
    config = {"image_size": 518, "patch_size": 14, "hidden_size": 768, "torch_dtype": "float32"}
    return write_folder(tmp_path_factory.mktemp("rad-dino"), state, config, PROCESSOR)


@pytest.fixture
def small(tmp_path):
    """A small DINOv2 in a folder of its own, without a preprocessor_config.json."""
    config = {**SMALL, "patch_size": 14, "mlp_ratio": 4, "num_channels": 3, "qkv_bias": True}
    state = {name: torch.from_numpy(value) for name, value in fill(dinov2_shapes(config), 7).items()}
    return write_folder(tmp_path / "small", state, config)


def test_the_manifest_is_the_published_one(oracles):
    manifest = json.loads((oracles / "raddino_manifest.json").read_text())
    shapes = RadDino(weights="random:0")._config
    assert dinov2_shapes(shapes) == {name: tuple(item["shape"]) for name, item in manifest.items()}


@pytest.mark.parametrize("route", ["native", "cgb299"])
def test_pixels_are_bit_equal_to_the_official_processor(oracles, formula, route):
    encoder = RadDino(weights="random:0", route=route)
    prepared = torch.from_numpy(np.stack([encoder.prepare(image) for image in formula.images()]))
    pixels = normalise(prepared, 255.0, MEAN, STD).numpy()
    meta = json.loads((oracles / "raddino_meta.json").read_text())
    np.testing.assert_allclose(pixels.mean((1, 2, 3)), meta["pixel_mean"][f"{route}_slow"], atol=1e-5)
    assert hashlib.sha256(pixels.tobytes()).hexdigest() == meta["pixel_sha256"][f"{route}_slow"]


def test_the_privacy_route_squashes_to_512_first(formula):
    """CheXGenBench's privacy script: Pillow's `resize((512, 512))`, bicubic by default, then the processor."""
    privacy, native = (RadDino(weights="random:0", route=route) for route in ("cgb512", "native"))
    square, other = formula.images()[:2]
    squashed = np.asarray(Image.fromarray(other).resize((512, 512)))
    np.testing.assert_array_equal(privacy.prepare(other), native.prepare(squashed))
    np.testing.assert_array_equal(privacy.prepare(square), native.prepare(square))
    assert (privacy.prepare(other) != native.prepare(other)).any()
    assert "squash-512-512-bicubic" in privacy.resolve().preprocessing
    assert privacy.resolve().fingerprint != native.resolve().fingerprint


@pytest.mark.slow
# One image a route: a ViT-B at 518 pixels costs seconds an image. The pixels of all four are covered above.
@pytest.mark.parametrize(
    ("route", "pooling", "golden", "index"),
    [
        ("native", "cls", "native_slow", 1),
        ("cgb299", "cls", "cgb299_slow", 2),
        ("native", "patch_mean", "native_slow_patchmean", 3),
    ],
)
def test_official_features_are_reproduced(published, oracles, formula, route, pooling, golden, index):
    encoder = RadDino(weights=str(published), route=route, pooling=pooling)
    assert encoder.resolve().outputs == {"features": 768}
    encoder.load("cpu")
    found = encoder.encode(encoder.prepare(formula.images()[index])[None])["features"]
    expected = np.load(oracles / "raddino_golden.npz")[golden][index : index + 1]
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)


def test_a_seed_and_a_file_with_the_same_numbers_agree(small, greys):
    """The seed goes through the published key names, so transformers' own names do not decide what is drawn."""
    features = []
    for encoder in (RadDino(weights="random:7", architecture=SMALL), RadDino(weights=str(small))):
        assert encoder.resolve().input_shape == (56, 56)
        encoder.load("cpu")
        features.append(encoder.encode(np.stack([encoder.prepare(image) for image in greys]))["features"])
    np.testing.assert_array_equal(*features)
    assert features[0].std(0).mean() > 0.05, "the image must show in the features of a random network"


def test_what_transformers_saves_today_is_read(tmp_path, greys):
    from transformers import Dinov2Config, Dinov2Model

    model = Dinov2Model(Dinov2Config(**SMALL, patch_size=14)).eval()
    model.save_pretrained(tmp_path / "saved")
    encoder = RadDino(weights=str(tmp_path / "saved"))
    encoder.load("cpu")
    batch = np.stack([encoder.prepare(image) for image in greys])
    with torch.inference_mode():
        expected = model(normalise(torch.from_numpy(batch), 255.0, MEAN, STD)).pooler_output.numpy()
    np.testing.assert_array_equal(encoder.encode(batch)["features"], expected)


def test_the_users_processor_is_obeyed_with_a_warning(small, capsys):
    own = {
        **PROCESSOR,
        "size": {"shortest_edge": 56},
        "crop_size": {"height": 56, "width": 56},
        "image_mean": [0.5] * 3,
    }
    (small / "preprocessor_config.json").write_text(json.dumps(own))
    spec = RadDino(weights=str(small)).resolve()
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search("mean-0.5.*yours is used", line)
    assert "mean-0.5,0.5,0.5" in spec.preprocessing


def test_files_of_the_same_repository_that_are_not_the_model_are_refused(small):
    for name in ("backbone_compatible.safetensors", "dino_head.safetensors"):
        save_file({"blocks.0.norm1.weight": torch.zeros(2)}, small / name)
        with pytest.raises(WeightsError, match=rf"cannot use {name}.*model.safetensors"):
            RadDino(weights=str(small / name)).resolve()
    save_file({"blocks.0.norm1.weight": torch.zeros(2)}, small / "model.safetensors")
    with pytest.raises(WeightsError, match="DINOv2's own key names"):
        RadDino(weights=str(small)).resolve()


def test_another_architecture_is_named(small):
    config = json.loads((small / "config.json").read_text())
    (small / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 4}))
    with pytest.raises(WeightsError, match=r"missing, first encoder.layer.3.norm1.weight"):
        RadDino(weights=str(small)).resolve()
    (small / "config.json").write_text(json.dumps({**config, "model_type": "vit"}))
    with pytest.raises(WeightsError, match=r"describes a 'vit' model, not RAD-DINO. Use hf_vision"):
        RadDino(weights=str(small)).resolve()
    (small / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"needs config.json beside the weights"):
        RadDino(weights=str(small)).resolve()


def test_settings_that_contradict_each_other_are_refused():
    for options, message in (
        ({"route": "cgb"}, "route is 'cgb'; expected one of native, cgb299"),
        ({"architecture": SMALL}, "architecture goes with weights: random:SEED"),
        ({"weights": "random:1", "architecture": {"depth": 3}}, "architecture has depth"),
        (
            {"weights": "random:1", "architecture": {"image_size": 60}},
            "image_size 60 is not a multiple of patch_size 14",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            RadDino(**options)
    with pytest.raises(ConfigError, match="revision goes with a hub id"):
        RadDino(weights="random:1", revision="abc").resolve()


def test_a_resolved_encoder_travels_with_its_preprocessing(small, greys):
    encoder = RadDino(weights=str(small))
    spec = encoder.resolve()
    other = pickle.loads(pickle.dumps(encoder))
    assert other.resolve() == spec
    np.testing.assert_array_equal(other.prepare(greys[0]), encoder.prepare(greys[0]))
