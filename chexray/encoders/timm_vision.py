"""Any network of timm by name, with weights from a file, a hub repository or a seed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from chexray.encoders.base import EncoderSpec
from chexray.encoders.checkpoints import check_keys, safe_load, safetensors_shapes
from chexray.encoders.fields import LARGEST_SIDE, Check, means, number, read_json, several, side, spreads, taken, word
from chexray.encoders.image_processor import Preprocessing
from chexray.encoders.network import NetworkEncoder, fill_network, normalise
from chexray.encoders.options import Option
from chexray.encoders.packaged import named as packaged
from chexray.encoders.resize import FILTERS
from chexray.encoders.weights import MODEL_FILE, ResolvedWeights
from chexray.errors import ConfigError, WeightsError
from chexray.spelling import suggestion
from chexray.text import first_line, quoted, shown

if TYPE_CHECKING:
    from torch import Tensor, nn


SMALLEST_SIDE = 32

DATA_CONFIG: dict[str, Check] = {
    "input_size": several(side, 3, 3),
    "interpolation": word(*FILTERS),
    "crop_pct": number(0.1, 1),
    "crop_mode": word("center", "squash"),
    "mean": means,
    "std": spreads,
}
"""What is taken from the `pretrained_cfg` of a config.json: how images are prepared. timm obeys other keys of it."""


class TimmVision(NetworkEncoder):
    """A timm network (ResNet, DenseNet, EfficientNet, ViT ...) by name: its pooled features before the classifier.

    model: a name timm knows, such as resnet50. weights: a state_dict file (safetensors, or .pth through the restricted
    unpickler), a hub id such as timm/resnet50.a1_in1k, a URL, package:efficientnet-lite0 (trained on ImageNet, comes
    with chexray[demo]), or random:SEED, which nearly hides generators that trained weights reject; by default the hub
    repository timm names for the model. side: another size in pixels than the model's own. Size, filter, crop and mean
    are timm's data config for the model, done on Pillow; what the config.json beside the weights says goes first.
    Classifier tensors in the file are ignored.
    """

    name: ClassVar[str] = "timm_vision"
    allowed: ClassVar[dict[str, Option]] = {
        "model": Option(None, str, about="a name that timm knows; required unless `weights` is a `package:`"),
        "side": Option(None, int, about="pixels a side that the network sees, for networks that take other sizes"),
    }

    def __init__(self, **given: Any):
        super().__init__(**given)
        if (carried := packaged(self.weights)) and not self.options["model"]:
            self.options["model"] = carried.model
        self._side = self.options.pop("side")  # `preprocessing` says it
        if self._side is not None and not SMALLEST_SIDE <= self._side <= LARGEST_SIDE:
            raise ConfigError(f"timm_vision: side is {self._side}; expected {SMALLEST_SIDE} to {LARGEST_SIDE} pixels.")
        if not self.options["model"]:
            raise ConfigError("timm_vision needs model: a name timm knows, such as resnet50.")
        if ":" in self.options["model"]:  # "hf-hub:..." would make timm fetch and choose by itself
            raise ConfigError(
                f"timm_vision: model is {quoted(self.options['model'])}; name the network here, put the id in weights."
            )

    def sources(self) -> dict[str, Any]:
        network = self._empty()
        cfg = getattr(network, "pretrained_cfg", {})
        hub_id = cfg.get("hf_hub_id") or ""
        reference = (self.weights or hub_id).removeprefix("hf-hub:").removeprefix("hf_hub:")
        if not reference:
            raise ConfigError(
                f"timm names no weights for {self.options['model']}. Set weights to a file or random:SEED."
            )
        return {
            "reference": reference,
            "wanted": MODEL_FILE,
            "where": f"the hub repository {hub_id or 'of the model'}",
            "architecture": {name: list(value.shape) for name, value in network.state_dict().items()},
        }

    def _empty(self) -> nn.Module:
        """The network without its classifier and without memory: shapes only."""
        import torch

        with torch.device("meta"):
            return self._create()

    def _create(self) -> nn.Module:
        import timm

        name = self.options["model"]
        if not timm.is_model(name):
            hint = suggestion(name, timm.list_models(), "`timm.list_models()` lists them.")
            raise ConfigError(f"timm {timm.__version__} has no model {quoted(name)}. {hint}")
        return timm.create_model(name, pretrained=False, num_classes=0)

    def _describe(self, found: ResolvedWeights) -> EncoderSpec:
        import torch
        from timm.data.config import resolve_data_config

        network = self._empty().eval()
        cfg = dict(getattr(network, "pretrained_cfg", {}))
        if found.path is not None:
            state = safetensors_shapes(found.path) if found.path.suffix == ".safetensors" else safe_load(found.path)
            expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
            check_keys(state, expected, _optional(cfg), what=f"timm's {self.options['model']}")
            cfg |= data_config(found.path.parent / "config.json")
        if self._side is not None:
            cfg["input_size"] = (3, self._side, self._side)
        self._preprocessing = from_timm(resolve_data_config({}, pretrained_cfg=cfg), self.options["model"])
        shape = self._preprocessing.shape
        try:
            with torch.inference_mode():
                width = network(torch.zeros(1, 3, *shape, device="meta")).shape[1]
        except (ArithmeticError, AssertionError, IndexError, RuntimeError, ValueError) as error:
            raise WeightsError(
                f"timm's {self.options['model']} does not take images of {shape[0]}x{shape[1]} "
                f"({first_line(error) or type(error).__name__}), which `side` or the config.json beside the weights "
                "asks for. Drop side, and correct the file's pretrained_cfg or remove the file."
            ) from error
        return self._spec_of(found, self._preprocessing.describe(), {"features": width}, shape)

    def _network(self, found: ResolvedWeights) -> nn.Module:
        network = self._create()
        if found.path is None:
            return fill_network(network, found.seed or 0)
        network.load_state_dict(safe_load(found.path), strict=False)  # keys were checked, but for the classifier
        return network

    def _outputs(self, module: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        how = self.preprocessing
        return {"features": module(normalise(batch, how.divisor, how.mean, how.std))}


def _optional(cfg: dict[str, Any]) -> tuple[str, ...]:
    names = cfg.get("classifier") or ()
    return ("*num_batches_tracked", *(f"{name}.*" for name in ((names,) if isinstance(names, str) else names)))


def data_config(path: Path, *, needed_by: str = "timm_vision") -> dict[str, Any]:
    """How the config.json beside the weights wants images prepared; {} where there is none. Raises WeightsError."""
    if not path.exists():
        return {}
    said = read_json(path, needed_by=needed_by).get("pretrained_cfg")
    if not isinstance(said, Mapping | None):
        raise WeightsError(f"{shown(path)}: pretrained_cfg is no object. Correct the file or remove it.")
    return taken(said or {}, DATA_CONFIG, path)


def from_timm(data: dict[str, Any], model: str) -> Preprocessing:
    """timm's evaluation transform: the image at size / crop_pct, then its centre; squashed where a model says so."""
    channels, height, width = data["input_size"]
    resample, crop_mode = data["interpolation"], data.get("crop_mode") or "center"
    if channels != 3 or height != width or resample not in FILTERS or crop_mode not in ("center", "squash"):
        raise WeightsError(f"timm's data config of {model} is not supported: {shown(data)}. Use another model.")
    length = math.floor(height / data["crop_pct"])
    if length > LARGEST_SIDE:
        raise WeightsError(f"timm's data config of {model} asks for {length} pixels a side; at most {LARGEST_SIDE}.")
    first = ("squash", length, length, resample) if crop_mode == "squash" else ("cover", length, resample)
    mean, std = (tuple(float(value) for value in data[key]) for key in ("mean", "std"))
    return Preprocessing((first, ("crop_even", height, width)), mean, std)
