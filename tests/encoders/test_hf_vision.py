"""Vision networks of transformers: features and pixels as transformers computes them, and a closed list of classes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from chexray.encoders.hf_vision import FAMILIES, HfVision
from chexray.encoders.image_processor import from_transformers
from chexray.encoders.network import normalise
from chexray.errors import ConfigError, WeightsError

HALF = {"image_mean": [0.48, 0.45, 0.4], "image_std": [0.26, 0.25, 0.27]}
PROCESSORS = {
    "BitImageProcessor": {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}, "resample": 3},
    "CLIPImageProcessor": {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}, "resample": 3},
    "ViTImageProcessor": {"size": {"height": 32, "width": 32}, "resample": 2},
    "SiglipImageProcessor": {"size": {"height": 32, "width": 32}, "resample": 3},
    "DeiTImageProcessor": {
        "size": {"height": 36, "width": 36},
        "crop_size": {"height": 32, "width": 32},
        "do_center_crop": True,
        "resample": 3,
    },
    "ConvNextImageProcessor": {"size": {"shortest_edge": 32}, "crop_pct": 0.875, "resample": 3},
}
VIT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "image_size": 32}
TINY = {  # model_type -> (config class, its settings, processor, class and prefix tokens before the patches)
    "dinov2": ("Dinov2Config", {**VIT, "patch_size": 8}, "BitImageProcessor", 1),
    "dinov2_with_registers": (
        "Dinov2WithRegistersConfig",
        {**VIT, "patch_size": 8, "num_register_tokens": 3},
        "BitImageProcessor",
        4,
    ),
    "vit": ("ViTConfig", {**VIT, "patch_size": 8}, "ViTImageProcessor", 1),
    "deit": ("DeiTConfig", {**VIT, "patch_size": 8}, "DeiTImageProcessor", 2),
    "clip_vision_model": ("CLIPVisionConfig", {**VIT, "patch_size": 8}, "CLIPImageProcessor", 1),
    "siglip_vision_model": ("SiglipVisionConfig", {**VIT, "patch_size": 8}, "SiglipImageProcessor", 0),
    "swin": ("SwinConfig", {"image_size": 32, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4,
                            "patch_size": 2}, "ViTImageProcessor", 0),
    "convnext": ("ConvNextConfig", {"hidden_sizes": [8, 8, 16, 24], "depths": [1, 1, 1, 1]},
                 "ConvNextImageProcessor", 0),
}  # fmt: skip


def write(folder, kind):
    """A tiny network of this kind in a folder, and the network."""
    config_class, settings, processor, _ = TINY[kind]
    torch.manual_seed(0)
    model = getattr(transformers, FAMILIES[kind].model)(getattr(transformers, config_class)(**settings)).eval()
    model.save_pretrained(folder)
    config = {"image_processor_type": processor, **PROCESSORS[processor], **HALF}
    (folder / "preprocessor_config.json").write_text(json.dumps(config))
    return model


@pytest.mark.parametrize("kind", TINY)
def test_features_are_those_of_the_network(kind, tmp_path, greys):
    model = write(tmp_path, kind)
    for pooling in FAMILIES[kind].poolings:
        encoder = HfVision(weights=str(tmp_path), pooling=pooling)
        spec = encoder.resolve()
        encoder.load("cpu")
        batch = np.stack([encoder.prepare(image) for image in greys])
        assert batch.shape == (len(greys), *spec.input_shape) == (len(greys), 32, 32)
        found = encoder.encode(batch)["features"]
        assert found.shape == (len(greys), spec.outputs["features"])
        with torch.inference_mode():
            pixels = normalise(torch.from_numpy(batch), 255.0, tuple(HALF["image_mean"]), tuple(HALF["image_std"]))
            output = model(pixel_values=pixels)
            hidden = output.last_hidden_state
            expected = {
                "cls": lambda hidden=hidden: hidden[:, 0],
                "pooler": lambda output=output: output.pooler_output,
                "mean": lambda hidden=hidden: (
                    hidden.mean((2, 3)) if hidden.ndim == 4 else hidden[:, TINY[kind][3] :].mean(1)
                ),
            }[pooling]()
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)


@pytest.mark.parametrize("name", PROCESSORS)
def test_pixels_are_bit_equal_to_the_pillow_processor(name, greys):
    settings = {**PROCESSORS[name], **HALF}
    cls = getattr(transformers, name + "Pil", None) or getattr(transformers, name)  # transformers 5, or 4
    official, ours = cls(**settings), from_transformers({"image_processor_type": name, **settings}, "here")
    for image in greys:
        reference = official(Image.fromarray(image).convert("RGB"), return_tensors="np")["pixel_values"][0]
        found = normalise(torch.tensor(ours.prepare(image))[None], ours.divisor, ours.mean, ours.std)[0].numpy()
        np.testing.assert_allclose(found, reference, atol=1e-6)


def test_old_style_sizes_are_understood():
    old = {"resample": 3, "size": 224, "crop_size": 224, **HALF}
    edge = from_transformers({"feature_extractor_type": "CLIPFeatureExtractor", **old}, "here")
    assert edge.steps == (("cover", 224, "bicubic"), ("crop", 224, 224))
    square = from_transformers({"feature_extractor_type": "ViTFeatureExtractor", **old}, "here")
    assert square.steps == (("squash", 224, 224, "bicubic"),)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_processor_type": "SamImageProcessor"}, "'SamImageProcessor' is not one chexray reproduces"),
        ({"resample": None}, "does not say 'resample'"),
        ({"image_mean": None}, "does not say 'image_mean'"),
        ({"do_center_crop": False}, "no centre crop"),
        ({"crop_size": {"height": 64, "width": 64}}, "larger than the resized image"),
    ],
)
def test_processors_that_cannot_be_reproduced_are_refused(change, message):
    config = {"image_processor_type": "BitImageProcessor", **PROCESSORS["BitImageProcessor"], **HALF, **change}
    with pytest.raises(WeightsError, match=message):
        from_transformers(config, "here")


def test_only_listed_architectures_run_and_no_code_of_a_repository(tmp_path):
    write(tmp_path, "vit")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "modeling.py").write_text("raise SystemExit('code of the repository ran')")
    (tmp_path / "config.json").write_text(
        json.dumps({**config, "model_type": "mystery", "auto_map": {"AutoModel": "modeling.Net"}})
    )
    with pytest.raises(WeightsError, match=r"'mystery' model. Its repository brings code.*Supported: beit"):
        HfVision(weights=str(tmp_path)).resolve()


def test_a_file_that_does_not_fit_is_refused(tmp_path):
    write(tmp_path, "vit")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(WeightsError, match="lacks 16 tensors of ViTModel"):
        HfVision(weights=str(tmp_path)).load("cpu")
    (tmp_path / "config.json").write_text(json.dumps({**config, "image_size": 48}))
    with pytest.raises(WeightsError, match="32x32 images, the network takes 48"):
        HfVision(weights=str(tmp_path)).resolve()


def test_a_config_that_changed_after_planning_is_refused(tmp_path):
    write(tmp_path, "vit")
    encoder = HfVision(weights=str(tmp_path))
    encoder.resolve()
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "hidden_act": "relu"}))
    with pytest.raises(WeightsError, match=r"config.json changed since the run was planned"):
        encoder.load("cpu")


def test_a_pooler_that_was_never_trained_is_not_invented(tmp_path):
    model = write(tmp_path, "vit")
    kept = {name: value for name, value in model.state_dict().items() if "pooler" not in name}
    model.save_pretrained(tmp_path, state_dict=kept)
    HfVision(weights=str(tmp_path)).load("cpu")
    with pytest.raises(WeightsError, match=r"Use pooling: cls or mean"):
        HfVision(weights=str(tmp_path), pooling="pooler").load("cpu")


def test_settings(tmp_path):
    write(tmp_path, "convnext")
    with pytest.raises(ConfigError, match="a convnext network has no pooling 'cls': use pooler, mean"):
        HfVision(weights=str(tmp_path), pooling="cls").resolve()
    for options, message in (({}, "needs weights"), ({"weights": "random:1"}, "no random weights")):
        with pytest.raises(ConfigError, match=message):
            HfVision(**options)
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(WeightsError, match=r"needs preprocessor_config.json"):
        HfVision(weights=str(tmp_path)).resolve()
