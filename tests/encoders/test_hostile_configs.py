"""config.json and preprocessor_config.json of strangers: keys that act are ignored, impossible values are one line."""

from __future__ import annotations

import contextlib
import json
import random
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from encoders.test_hf_vision import TINY, write
from encoders.test_hostile_weights import refusal
from encoders.test_rad_dino import SMALL, write_folder
from safetensors.torch import load_file, save_file

from chexray.encoders.fields import read_json
from chexray.encoders.hf_vision import FAMILIES, HfVision
from chexray.encoders.rad_dino import RadDino, dinov2_shapes
from chexray.encoders.random_fill import fill
from chexray.encoders.timm_vision import TimmVision
from chexray.errors import ChexrayError, WeightsError

ACTING: dict[str, Any] = {
    "attn_implementation": "evil/kernel",
    "_attn_implementation": "evil/kernel",
    "_attn_implementation_internal": "evil/kernel:attack",
    "experts_implementation": "evil/kernel",
    "use_kernels": True,
    "kernel_config": {"kernel_mapping": {"LayerNorm": "evil/kernel:LayerNorm"}},
    "quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True},
    "fusion_config": {"patch_embeddings": True},
    "auto_map": {"AutoConfig": "modeling.Config", "AutoModel": "modeling.Net"},
    "trust_remote_code": True,
    "transformers_weights": "../../other.safetensors",
    "adapter_kwargs": {"path": "evil"},
    "per_layer_config": {"0": {"hidden_size": 7}},
    "generation_config": {"custom_generate": "evil"},
    "chunk_size_feed_forward": 3,
    "return_dict": False,
    "output_hidden_states": True,
    "name_or_path": "evil/repository",
    "gradient_checkpointing": True,
    "pruned_heads": {"0": [0]},
    "dtype_plan": "evil",
}


def features(folder: Path, images: list[np.ndarray], encoder: Callable[..., Any] = HfVision, **how: Any) -> np.ndarray:
    built = encoder(weights=str(folder), **how)
    built.load("cpu")
    return built.encode(np.stack([built.prepare(image) for image in images]))["features"]


def change(path: Path, **values: Any) -> None:
    """Sets keys of a JSON file; a key of None is set to null."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def beside(folder: Path, marker: Path) -> None:
    """Everything that from_pretrained(folder) would look for besides the weights."""
    act = f"open({str(marker)!r}, 'w').close()\n"
    for name in ("modeling.py", "__init__.py", "custom_generate.py"):
        (folder / name).write_text(act)
    other = {"weight_map": {"embeddings.cls_token": "other.safetensors"}, "metadata": {"total_size": 1}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(other))
    (folder / "generation_config.json").write_text(json.dumps({"custom_generate": "custom_generate"}))
    adapter = {"peft_type": "LORA", "base_model_name_or_path": str(folder / "evil"), "r": 1}
    (folder / "adapter_config.json").write_text(json.dumps(adapter))
    save_file({"lora": torch.zeros(1)}, folder / "adapter_model.safetensors")
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(Vtouch x\ntR.")


@pytest.mark.parametrize("kind", TINY)
def test_keys_that_act_and_files_beside_the_weights_change_no_bit(kind, tmp_path, greys):
    write(tmp_path, kind)
    before = features(tmp_path, greys)
    beside(tmp_path, tmp_path / "ran")
    change(tmp_path / "config.json", **ACTING)
    change(tmp_path / "preprocessor_config.json", auto_map={"AutoImageProcessor": "modeling.Net"}, device="cuda")
    np.testing.assert_array_equal(features(tmp_path, greys), before)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("key", ACTING)
def test_no_single_key_acts(key, tmp_path, greys):
    write(tmp_path, "vit")
    before = features(tmp_path, greys[:1])
    change(tmp_path / "config.json", **{key: ACTING[key]})
    np.testing.assert_array_equal(features(tmp_path, greys[:1]), before)


def test_the_tower_of_a_network_that_also_reads_text_is_whitelisted_too(tmp_path, greys):
    write(tmp_path, "clip_vision_model")
    before = features(tmp_path, greys)
    config = json.loads((tmp_path / "config.json").read_text())
    whole = {"model_type": "clip", "vision_config": {**config, **ACTING}, "text_config": {"hidden_size": 9}, **ACTING}
    (tmp_path / "config.json").write_text(json.dumps(whole))
    np.testing.assert_array_equal(features(tmp_path, greys), before)
    for tower in ([1], "evil/kernel", 3):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip", "vision_config": tower}))
        assert "vision_config is no object" in refusal(lambda: HfVision(weights=str(tmp_path)).resolve())


@pytest.fixture
def dino(tmp_path) -> Path:
    config = {**SMALL, "patch_size": 14, "mlp_ratio": 4, "num_channels": 3, "qkv_bias": True}
    state = {name: torch.from_numpy(value) for name, value in fill(dinov2_shapes(config), 7).items()}
    return write_folder(tmp_path / "dino", state, config)


def test_rad_dino_ignores_them_too(dino, greys):
    before = features(dino, greys[:2], RadDino)
    beside(dino, dino / "ran")
    change(dino / "config.json", **ACTING, out_features=["evil"])
    np.testing.assert_array_equal(features(dino, greys[:2], RadDino), before)
    assert not (dino / "ran").exists()


# Values


HUGE = [
    ("vit", "num_hidden_layers", 10**9),
    ("vit", "num_hidden_layers", 999),
    ("vit", "hidden_size", 10**9),
    ("vit", "hidden_size", 60_000),
    ("vit", "intermediate_size", 10**8),
    ("vit", "image_size", 10**6),
    ("vit", "image_size", [10**6, 10**6]),
    ("vit", "num_attention_heads", 10**9),
    ("vit", "num_channels", 10**6),
    ("vit", "pooler_output_size", 10**9),
    ("dinov2", "mlp_ratio", 10**9),
    ("dinov2_with_registers", "num_register_tokens", 10**9),
    ("swin", "embed_dim", 10**8),
    ("swin", "depths", [10**9, 1]),
    ("swin", "depths", [1] * 10**5),
    ("swin", "num_heads", [10**9, 2]),
    ("swin", "window_size", 10**6),
    ("swin", "patch_size", 10**6),
    ("convnext", "hidden_sizes", [10**8] * 4),
    ("convnext", "depths", [900, 900, 900, 900]),
    ("convnext", "num_stages", 10**9),
]


@pytest.mark.parametrize(("kind", "key", "value"), HUGE)
def test_what_the_file_cannot_hold_is_refused_before_memory_is_taken(kind, key, value, tmp_path):
    """num_hidden_layers: 1e9 took 2 GB and 40 seconds."""
    write(tmp_path, kind)
    change(tmp_path / "config.json", **{key: value})
    refusal(lambda: HfVision(weights=str(tmp_path)).load("cpu"), seconds=5, megabytes=200)


def test_a_wide_small_tensor_does_not_buy_a_large_network(tmp_path):
    """Widths are bounded by the widest tensor, and all of the network by all of the file."""
    write(tmp_path, "vit")
    state = load_file(tmp_path / "model.safetensors")
    save_file({**state, "wide": torch.zeros(60_000)}, tmp_path / "model.safetensors")
    change(tmp_path / "config.json", hidden_size=60_000, intermediate_size=60_000)
    message = refusal(lambda: HfVision(weights=str(tmp_path)).resolve(), seconds=5, megabytes=200)
    assert "describes a network of" in message


@pytest.mark.parametrize("key", ["num_hidden_layers", "hidden_size", "image_size", "patch_size", "num_attention_heads"])
@pytest.mark.parametrize("value", [-1, 0, 1.5, float("nan"), "abc", True, [], {}, [[1]], 10**400, "1" * 10**6])
def test_what_is_no_size_is_refused(key, value, tmp_path, dino):
    write(tmp_path, "vit")
    for folder, encoder in ((tmp_path, HfVision), (dino, RadDino)):
        change(folder / "config.json", **{key: value})
        assert key in refusal(lambda e=encoder, f=folder: e(weights=str(f)).resolve())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_act", "evil"), ("hidden_act", ["gelu"]), ("layer_norm_eps", "1e-6"), ("layer_norm_eps", float("inf")),
        ("qkv_bias", "yes"), ("dtype", "evil"), ("torch_dtype", "int8"), ("torch_dtype", {"": "float32"}),
        ("model_type", ["vit"]), ("model_type", {}), ("model_type", None), ("model_type", "\x1b[31m" + "x" * 10**5),
    ],
)  # fmt: skip
def test_other_values_are_refused(key, value, tmp_path):
    write(tmp_path, "vit")
    change(tmp_path / "config.json", **{key: value})
    refusal(lambda: HfVision(weights=str(tmp_path)).load("cpu"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("size", 10**6), ("size", {"height": 10**6, "width": 10**6}), ("size", {"height": 32}), ("size", "big"),
        ("size", {"height": "32", "width": 32}), ("size", []), ("size", {"height": 0, "width": 0}), ("size", -1),
        ("size", {"height": float("nan"), "width": 32}), ("size", True), ("crop_size", "x"), ("crop_size", {}),
        ("crop_size", {"height": -3, "width": 2}), ("resample", True), ("resample", -1), ("resample", "bicubic"),
        ("image_mean", "abc"), ("image_mean", [1, 2]), ("image_mean", [1, "2", 3]), ("image_mean", {"a": 1}),
        ("image_mean", float("nan")), ("image_std", 0), ("image_std", [0.1, 0.1, 0]), ("image_std", [1e-30] * 3),
        ("rescale_factor", 0), ("rescale_factor", "x"), ("rescale_factor", -1), ("rescale_factor", 1e300),
        ("do_resize", "no"), ("do_normalize", 1), ("image_processor_type", ["ViT"]), ("image_processor_type", 5),
    ],
)  # fmt: skip
def test_preprocessing_that_cannot_be_is_refused(key, value, tmp_path):
    write(tmp_path, "vit")
    change(tmp_path / "preprocessor_config.json", do_center_crop=True, crop_size=32)
    change(tmp_path / "preprocessor_config.json", **{key: value})
    refusal(lambda: HfVision(weights=str(tmp_path)).resolve())


@pytest.mark.parametrize("value", [0.0, -1, 1e-9, "x", [1], float("nan"), True])
def test_a_crop_of_convnext_that_cannot_be_is_refused(value, tmp_path):
    write(tmp_path, "convnext")
    change(tmp_path / "preprocessor_config.json", crop_pct=value)
    assert "crop_pct" in refusal(lambda: HfVision(weights=str(tmp_path)).resolve())


def test_images_that_are_too_many_patches_are_refused(dino):
    processor = {"image_processor_type": "ViTImageProcessor", "size": 2048, "resample": 3, "image_mean": 0.5}
    (dino / "preprocessor_config.json").write_text(json.dumps({**processor, "image_std": 0.5}))
    assert "21,316 patches" in refusal(lambda: RadDino(weights=str(dino)).resolve())


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b"null", b"\xff\xfe", b'{"a":' * 5000, b"[" * 10**6, b'{"a": ' + b"9" * 9000 + b"}",
     b"{" + b" " * 2 * 10**7, b'{"a":' * 60 + b"1" + b"}" * 60, b'"' + b"x" * 10**6],
)  # fmt: skip
def test_json_that_cannot_be_read_is_one_line(text, tmp_path):
    (tmp_path / "config.json").write_bytes(text)
    refusal(lambda: read_json(tmp_path / "config.json", needed_by="it"), seconds=3)


# timm


@pytest.fixture(scope="module")
def resnet(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("timm")
    save_file(timm.create_model("test_resnet").state_dict(), folder / "model.safetensors")
    return folder


@pytest.mark.parametrize(
    "said",
    [
        {"input_size": [3, 10**6, 10**6]}, {"input_size": 224}, {"input_size": [3, 0, 0]}, {"input_size": "abc"},
        {"input_size": [1, 32, 32]}, {"crop_pct": 0}, {"crop_pct": 1e-9}, {"crop_pct": "x"}, {"interpolation": 3},
        {"interpolation": "random"}, {"mean": "abc"}, {"mean": [0.5]}, {"mean": [None] * 3}, {"std": [0, 1, 1]},
        {"crop_mode": "evil"}, {"crop_mode": ["center"]}, [1], "text", 5,
    ],
)  # fmt: skip
def test_data_configs_that_cannot_be_are_refused(said, resnet):
    (resnet / "config.json").write_text(json.dumps({"pretrained_cfg": said}))
    refusal(lambda: TimmVision(model="test_resnet", weights=str(resnet)).resolve())


def test_other_keys_of_a_data_config_are_ignored(resnet, greys):
    (resnet / "config.json").unlink(missing_ok=True)
    before = features(resnet, greys[:1], TimmVision, model="test_resnet")
    acting = {
        "classifier": "../x",
        "url": "http://evil",
        "custom_load": True,
        "hf_hub_id": "evil/x",
        "num_classes": "x",
    }
    (resnet / "config.json").write_text(json.dumps({"architecture": "evil", "pretrained_cfg": acting, **ACTING}))
    np.testing.assert_array_equal(features(resnet, greys[:1], TimmVision, model="test_resnet"), before)


def test_a_size_that_a_network_does_not_take_is_refused(tmp_path):
    save_file(timm.create_model("vit_tiny_patch16_224").state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": {"input_size": [3, 64, 64]}}))
    message = refusal(lambda: TimmVision(model="vit_tiny_patch16_224", weights=str(tmp_path)).resolve())
    assert "does not take images of 64x64" in message


# At random

VALUES: list[Any] = [
    None, True, False, 0, 1, 2, 3, 8, 16, 32, 64, -1, 10**6, 10**12, 0.5, 1e-300, float("nan"), float("inf"), "",
    "gelu", "evil/kernel", "\x1b[2J", [], [1], [1, 2, 3], [16, 16], {}, {"a": 1}, [[[]]], "x" * 1000,
]  # fmt: skip


@pytest.mark.slow
def test_configs_changed_at_random_end_in_one_line_or_in_features(tmp_path, greys):
    rng, start = random.Random(11), time.process_time()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    kinds = {}
    for kind in ("vit", "dinov2_with_registers", "swin", "convnext", "siglip_vision_model"):
        (folder := tmp_path / kind).mkdir()
        write(folder, kind)
        kinds[kind] = [
            (folder / name, (folder / name).read_text()) for name in ("config.json", "preprocessor_config.json")
        ]
    outcomes = {"features": 0, "refused": 0}
    for number in range(80):
        kind = list(kinds)[number % len(kinds)]
        for path, text in kinds[kind]:
            path.write_text(text)
        for _ in range(rng.randint(1, 2)):
            path, text = rng.choice(kinds[kind])
            names = [*json.loads(text), *ACTING, *(key for key in ("embed_dim", "depths", "crop_pct", "size", "dtype"))]
            change(path, **{rng.choice(names): rng.choice(VALUES)})
        with contextlib.suppress(ChexrayError):
            outcomes["refused"] += 1
            found = features(tmp_path / kind, greys[:1], pooling=rng.choice(FAMILIES[kind].poolings))
            outcomes["refused"] -= 1
            outcomes["features"] += 1
            assert found.ndim == 2
    assert min(outcomes.values()) > 8, outcomes
    assert time.process_time() - start < 60
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000


def test_a_message_says_file_key_value_and_expectation(tmp_path):
    write(tmp_path, "vit")
    change(tmp_path / "config.json", num_hidden_layers="12")
    with pytest.raises(
        WeightsError, match=r"config.json: num_hidden_layers is '12'; expected a whole number from 1 to"
    ):
        HfVision(weights=str(tmp_path)).resolve()
