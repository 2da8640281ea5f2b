"""Any vision network of a short list of transformers architectures, by hub id or local folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from chexray.encoders.base import EncoderSpec
from chexray.encoders.checkpoints import safe_load, safetensors_shapes
from chexray.encoders.fields import read_json
from chexray.encoders.image_processor import from_transformers
from chexray.encoders.network import NetworkEncoder, normalise, short_hash
from chexray.encoders.network_config import (
    architecture,
    check_patches,
    compare_sizes,
    dtype_of,
    empty_network,
    from_table,
    transformers_config,
)
from chexray.encoders.options import Option
from chexray.encoders.rad_dino import with_revision
from chexray.encoders.weights import MODEL_FILE, ResolvedWeights
from chexray.errors import ConfigError, WeightsError
from chexray.text import first_line, quoted, shown

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Family:
    """One architecture, run by one named class of transformers and no other.

    tokens: how many tokens come before the patches; None where the network has a feature map or no extra token.
    pooler_is_optional: the class can be built without its pooler, which many checkpoints do not hold.
    fixed_size: the network takes images of its config's image_size only.
    """

    model: str
    poolings: tuple[str, ...]
    tokens: int = 0
    pooler_is_optional: bool = False
    fixed_size: bool = True


_ViT = ("cls", "mean", "pooler")
FAMILIES: dict[str, Family] = {
    "dinov2": Family("Dinov2Model", ("cls", "mean"), 1, fixed_size=False),
    "dinov2_with_registers": Family("Dinov2WithRegistersModel", ("cls", "mean"), 1, fixed_size=False),
    "vit": Family("ViTModel", _ViT, 1, pooler_is_optional=True),
    "deit": Family("DeiTModel", _ViT, 2, pooler_is_optional=True),
    "beit": Family("BeitModel", _ViT, 1, pooler_is_optional=True),
    "data2vec-vision": Family("Data2VecVisionModel", _ViT, 1, pooler_is_optional=True),
    "clip": Family("CLIPVisionModel", ("pooler", "cls", "mean"), 1),
    "clip_vision_model": Family("CLIPVisionModel", ("pooler", "cls", "mean"), 1),
    "siglip": Family("SiglipVisionModel", ("pooler", "mean")),
    "siglip_vision_model": Family("SiglipVisionModel", ("pooler", "mean")),
    "swin": Family("SwinModel", ("pooler", "mean"), fixed_size=False),
    "swinv2": Family("Swinv2Model", ("pooler", "mean"), fixed_size=False),
    "convnext": Family("ConvNextModel", ("pooler", "mean"), fixed_size=False),
    "convnextv2": Family("ConvNextV2Model", ("pooler", "mean"), fixed_size=False),
}
"""model_type -> how it is run. The first pooling is the default. A network that is not here is refused, never guessed:
AutoModel would run whatever code a repository brings along."""


class HfVision(NetworkEncoder):
    """A transformers vision network (DINOv2, ViT, CLIP, SigLIP, Swin, ConvNeXT ...) by hub id or local folder.

    weights: "owner/name@revision" (or revision: COMMIT), or a folder or URL with config.json, preprocessor_config.json
    and model.safetensors. Pickled weights, adapters and repository code are never used, and of config.json only the
    keys that shape the network. Preprocessing is the folder's own, on Pillow. pooling: `cls` (class token), `pooler`
    (the network's own pooled output) or `mean` (of the patches); the default depends on the architecture. features: as
    wide as the network.
    """

    name: ClassVar[str] = "hf_vision"
    allowed: ClassVar[dict[str, Option]] = {
        "pooling": Option(
            None, str, ("cls", "pooler", "mean"), "class token, the network's own pooled output, or mean of the patches"
        ),
        "revision": Option(None, str, about="commit of the hub repository"),
    }

    def __init__(self, **given: Any):
        super().__init__(**given)
        if not self.weights:
            raise ConfigError("hf_vision needs weights: a hub id such as facebook/dinov2-base, or a local folder.")
        if self.weights.startswith("random:"):
            raise ConfigError("hf_vision takes no random weights. Use rad_dino or timm_vision for a random network.")
        self._revision = self.options.pop("revision")
        self._vision: dict[str, Any] = {}
        self._family: Family | None = None

    def sources(self) -> dict[str, Any]:
        return {
            "reference": with_revision(self.name, str(self.weights), self._revision),
            "wanted": MODEL_FILE,
            "where": "the model's hub repository, with config.json and preprocessor_config.json",
        }

    def _describe(self, found: ResolvedWeights) -> EncoderSpec:
        assert found.path is not None
        folder = found.path.parent
        if found.path.name != MODEL_FILE:
            raise WeightsError(f"hf_vision reads {MODEL_FILE} beside its config.json; found {shown(found.path)}.")
        config = read_json(folder / "config.json", needed_by=self.name)
        self._family = family = _family(config, str(folder))
        kind = config["model_type"]
        pooling = self.options["pooling"] = self.options["pooling"] or family.poolings[0]
        if pooling not in family.poolings:
            choices = ", ".join(family.poolings)
            raise ConfigError(f"hf_vision: a {kind} network has no pooling {pooling!r}: use {choices}.")
        shapes = safetensors_shapes(found.path)  # a damaged file is found here, not on the workers
        place = folder / "config.json"
        keys = architecture(_tower(config, place), kind, shapes, place)
        self._vision = vision = _vision_config(kind, keys)
        where = folder / "preprocessor_config.json"
        self._preprocessing = from_transformers(read_json(where, needed_by=self.name), str(where))
        shape = self._preprocessing.shape
        if family.fixed_size and list(shape) != _pair(vision["image_size"]):
            raise WeightsError(
                f"{shown(where)} makes {shape[0]}x{shape[1]} images, the network takes {vision['image_size']}: the "
                "files do not belong together."
            )
        check_patches(kind, shape, keys, where)
        network = empty_network(family.model, kind, keys, self._extra(), place)
        compare_sizes(network, shapes, place)
        self._try(network, shape, vision["hidden_size"], place)
        return self._spec_of(
            found,
            self._preprocessing.describe(),
            {"features": vision["hidden_size"]},
            shape,
            more={"model": family.model, "config_sha256": short_hash(config)},
        )

    def _network(self, found: ResolvedWeights) -> nn.Module:
        assert found.path is not None
        assert self._family is not None
        place = found.path.parent / "config.json"
        config = read_json(place, needed_by=self.name)
        if short_hash(config) != self.resolve().options["config_sha256"]:
            raise WeightsError(f"{shown(place)} changed since the run was planned. Start the run again.")
        kind, tower, state = config["model_type"], _tower(config, place), safe_load(found.path)
        shapes = {name: tuple(value.shape) for name, value in state.items()}
        built = transformers_config(kind, architecture(tower, kind, shapes, place))
        try:
            model, report = from_table(self._family.model, built, state, dtype_of(tower, place), **self._extra())
        except (RuntimeError, ValueError, OSError) as error:
            raise WeightsError(
                f"{shown(found.path)} does not fit {self._family.model} of its config.json: {first_line(error)}"
            ) from error
        # A missing tensor would be left at random by transformers, with no more than a warning.
        missing = sorted(key for key in report["missing_keys"] if not key.endswith(("mask_token", "position_ids")))
        if missing:
            hint = " Use pooling: cls or mean." if all("pooler" in key for key in missing) else ""
            raise WeightsError(
                f"{shown(found.path)} lacks {len(missing):,} tensors of {self._family.model}, first "
                f"{shown(missing[0])}.{hint}"
            )
        return model

    def _extra(self) -> dict[str, bool]:
        """What the class is told besides its config: a pooler that is not read is not built."""
        assert self._family is not None
        return {"add_pooling_layer": self.options["pooling"] == "pooler"} if self._family.pooler_is_optional else {}

    def _try(self, network: nn.Module, shape: tuple[int, int], width: int, place: object) -> None:
        """One image without numbers through the empty network: it takes the size and gives the width of the spec."""
        import torch

        try:
            with torch.inference_mode():
                batch = torch.zeros(1, *shape, dtype=torch.uint8, device="meta")
                found = tuple(self._outputs(network, batch)["features"].shape)
        except NotImplementedError:  # an operation without a meta kernel says nothing about the files
            return
        except Exception as error:  # of a library, about combinations of values that a stranger chose
            raise WeightsError(
                f"{shown(place)}: the network does not take {shape[0]}x{shape[1]} images or has no such pooling "
                f"({first_line(error) or type(error).__name__}): the files do not belong together."
            ) from error
        if found != (1, width):
            raise WeightsError(f"{shown(place)} describes a network of {width} features that gives {found[1:]}.")

    def _outputs(self, module: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        assert self._family is not None
        how, pooling = self.preprocessing, self.options["pooling"]
        output = module(pixel_values=normalise(batch, how.divisor, how.mean, how.std))
        if pooling == "pooler":
            return {"features": output.pooler_output}
        hidden = output.last_hidden_state
        if hidden.ndim == 4:  # ConvNeXT: (n, channels, height, width)
            return {"features": hidden.mean((2, 3))}
        before = self._family.tokens + self._vision.get("num_register_tokens", 0)
        return {"features": hidden[:, 0] if pooling == "cls" else hidden[:, before:].mean(1)}


def _family(config: dict[str, Any], folder: str) -> Family:
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        code = " Its repository brings code, which is never run." if "auto_map" in config else ""
        raise WeightsError(
            f"{shown(folder)}/config.json describes a {quoted(kind, 80)} model.{code} Supported: "
            f"{', '.join(sorted(FAMILIES))}."
        )
    return FAMILIES[kind]


def _tower(config: dict[str, Any], place: object) -> dict[str, Any]:
    """The config of the image tower: a part of the config of a network that also reads text."""
    tower = config.get("vision_config", config)
    if not isinstance(tower, dict):
        raise WeightsError(f"{shown(place)}: vision_config is no object. Fetch the file again.")
    return tower


def _vision_config(kind: str, keys: dict[str, Any]) -> dict[str, Any]:
    """The checked keys, with the fields a config may leave at transformers' default."""
    defaults = {"hidden_size": 768, "image_size": 224}
    if kind == "dinov2_with_registers":
        defaults["num_register_tokens"] = 4
    vision = {**defaults, **keys}
    if "hidden_sizes" in vision:
        vision["hidden_size"] = vision["hidden_sizes"][-1]
    elif "embed_dim" in vision and "depths" in vision:
        vision["hidden_size"] = vision["embed_dim"] * 2 ** (len(vision["depths"]) - 1)
    return vision


def _pair(side: int | list[int]) -> list[int]:
    return side if isinstance(side, list) else [side, side]
