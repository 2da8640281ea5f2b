"""Weights: safetensors and torch files, the configs beside them, and the folder of a fit that was trained before."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from fuzz.attempt import Attempt, Seen, Wrong
from fuzz.kinds import tables
from fuzz.mutation import mutated
from fuzz.values import altered, payload, torch_file, value
from fuzz.weight_files import altered_state, another_header, tampered

SHARE = 10
TRANSFORMER = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 32,
    "patch_size": 8,
}
FAMILIES = {  # model_type -> (its config class, settings, its model class)
    "vit": ("ViTConfig", TRANSFORMER, "ViTModel"),
    "dinov2": ("Dinov2Config", TRANSFORMER, "Dinov2Model"),
    "clip_vision_model": ("CLIPVisionConfig", TRANSFORMER, "CLIPVisionModel"),
    "swin": ("SwinConfig",
    {"image_size": 32, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4, "patch_size": 2},
    "SwinModel"),
    "convnext": ("ConvNextConfig", {"hidden_sizes": [8, 8, 16, 24], "depths": [1, 1, 1, 1]}, "ConvNextModel"),
}  # fmt: skip
PROCESSOR = {
    "image_processor_type": "BitImageProcessor", "do_resize": True, "do_center_crop": True, "do_normalize": True,
    "do_rescale": True,
    "size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}, "resample": 3, "image_mean": [0.5] * 3,
    "image_std": [0.3] * 3,
}  # fmt: skip


@dataclass
class Networks:
    """Folders of small networks and of a fit below `root`, each made when it is first attacked: torch is slow."""

    root: Path

    def folder(self, name: str) -> tuple[str, dict[str, Any], Path]:
        """(encoder, its options, a folder with its weights)."""
        target = self.root / name
        if not target.exists():
            target.mkdir()
            _MAKERS.get(name, _transformers)(target)
        if name == "raddino":
            return "rad_dino", {}, target
        return ("hf_vision", {}, target) if name in FAMILIES else ("timm_vision", {"model": name}, target)

    def fit(self) -> Any:
        """The fit whose folders lie in fits/done and fits/stopped."""
        return _train(self.root / "fits")


NAMES = (*FAMILIES, "test_vit", "test_resnet", "raddino")


def prepare(folder: Path) -> Networks:
    return Networks(tables.prepare(folder))


def _transformers(target: Path) -> None:
    import torch
    import transformers

    torch.manual_seed(0)
    config_class, settings, model_class = FAMILIES[target.name]
    getattr(transformers, model_class)(getattr(transformers, config_class)(**settings)).save_pretrained(target)
    (target / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))


def _timm(target: Path) -> None:
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    save_file(timm.create_model(target.name, pretrained=False).state_dict(), target / "model.safetensors")
    about = {"mean": [0.5] * 3, "input_size": [3, 160, 160], "interpolation": "bilinear"}
    (target / "config.json").write_text(json.dumps({"architecture": target.name, "pretrained_cfg": about}))


def _rad_dino(target: Path) -> None:
    import torch
    from safetensors.torch import save_file

    from chexray.encoders.rad_dino import dinov2_shapes
    from chexray.encoders.random_fill import fill

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 56, "patch_size": 14}
    config = {"model_type": "dinov2", **sizes, "mlp_ratio": 4, "num_channels": 3, "qkv_bias": True}
    state = {name: torch.from_numpy(part) for name, part in fill(dinov2_shapes(config), 7).items()}
    save_file(state, target / "model.safetensors")
    (target / "config.json").write_text(json.dumps(config))
    own = {"size": {"shortest_edge": 56}, "crop_size": {"height": 56, "width": 56}}
    (target / "preprocessor_config.json").write_text(json.dumps(PROCESSOR | own))


_MAKERS = {"test_vit": _timm, "test_resnet": _timm, "raddino": _rad_dino}


@cache
def _train(root: Path) -> Any:
    """A fit that is done in `root`/done, and the same one stopped after an epoch in `root`/stopped."""
    from fixtures.fits import AFTER_AN_EPOCH, FailingStorage, Images, a_fit, run

    from chexray.errors import StorageError

    images = Images()
    fit = a_fit(images)
    run([fit], images, root / "done")
    with contextlib.suppress(StorageError):
        run([fit], images, root / "stopped", FailingStorage(AFTER_AN_EPOCH))
    return fit


def attempt(seeds: Networks, rng: random.Random, folder: Path) -> Attempt:
    if rng.random() < 0.2:
        return _of_fit(seeds, rng, folder)
    name = rng.choice(NAMES)
    encoder, options, source = seeds.folder(name)
    target = folder / "net"
    shutil.copytree(source, target)
    file, how = tampered(target, rng)
    if file.suffix != ".safetensors" and encoder != "timm_vision":
        encoder, options = rng.choice(
            [("timm_vision", {"model": "test_vit"}), ("siamese_reid", {}), ("inception_v3", {})]
        )
    reference = str(file) if file.suffix != ".safetensors" or rng.random() < 0.2 else str(target)
    config = {
        "suite": "privacy", "real": tables.good_set(seeds.root, "real"),
        "synthetic": [tables.good_set(seeds.root, "fake")],
        "heldout": tables.good_set(seeds.root, "held"),
        "encoders": [{"name": encoder, "weights": reference, **options}], "output": str(folder / "out"),
    }  # fmt: skip
    (folder / "run.yaml").write_text(json.dumps(config))
    return Attempt(
        f"{name}: {how}", lambda: _encoded(encoder, reference, options), ["validate", str(folder / "run.yaml")]
    )


def _encoded(encoder: str, reference: str, options: dict[str, Any]) -> Seen:
    """Features of one image, as driver and worker compute them."""
    from chexray.registry import find

    network = find("encoders", encoder)(weights=reference, **options)
    spec = network.resolve()
    network.load("cpu")
    image = np.random.default_rng(0).integers(0, 255, (40, 30), np.uint8)
    batch = np.stack([network.prepare(image)] * 2)
    found = network.encode(batch)
    shapes = {name: block.shape[1] for name, block in found.items()}
    if shapes != spec.outputs or any(block.dtype != np.float32 for block in found.values()):
        raise Wrong(f"features of {shapes}, the spec says {spec.outputs}")
    return Seen("ok", [spec.preprocessing, spec.weights])


def _of_fit(seeds: Networks, rng: random.Random, folder: Path) -> Attempt:
    """The folder of a fit, read back as a resumed run does."""
    import torch

    from chexray.storage import Storage
    from chexray.utility.loop.checkpointing import Folder

    stopped = rng.random() < 0.6
    fit = seeds.fit()
    shutil.copytree(seeds.root / "fits" / ("stopped" if stopped else "done") / fit.name, folder / "fit")
    names = sorted(path.name for path in (folder / "fit").iterdir())
    path = folder / "fit" / rng.choice(names)
    draw, how = rng.random(), "damaged"
    if draw < 0.4:
        path.write_bytes(mutated(path.read_bytes(), rng))
    elif path.suffix == ".pt" and draw < 0.6:
        how = "code"
        path.write_bytes(torch_file(payload(rng), rng) if rng.random() < 0.5 else payload(rng))
    elif path.suffix == ".pt":
        how = "altered"
        torch.save(altered_state(torch.load(path, weights_only=True), rng), path)
    elif path.suffix == ".json":
        how = "altered"
        path.write_text(json.dumps(altered(json.loads(path.read_text()), rng, 2)), errors="surrogatepass")
    elif path.suffix == ".safetensors":
        how = another_header(path, rng)
    elif path.suffix == ".parquet":
        from fuzz.kinds.parts import rewritten

        how = rewritten(path, rng).rpartition(": ")[2]
    if rng.random() < 0.05:
        (folder / "fit" / "failed.json").write_text(
            rng.choice(["{}", "[]", "{", json.dumps({"reason": value(rng)})]), errors="surrogatepass"
        )
    held = Folder(str(folder / "fit"), fit, Storage(retries=0))

    def act() -> Seen:
        lines = [held.failure, *(str(row)[:0] for row in held.history())]
        for name in names:
            if name.endswith(".pt"):
                held.load_state()
            elif name == "model.safetensors":
                held.load_model()
            elif name.startswith("predictions"):
                held.read_predictions(fit.validation.keys)
        return Seen("ok", lines)

    return Attempt(f"fit: {path.name.split('-')[0]} {how}", act)
