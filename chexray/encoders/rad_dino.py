"""RAD-DINO (Pérez-García et al. 2025): a DINOv2 ViT-B/14 trained on chest radiographs only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from chexray.encoders.base import EncoderSpec
from chexray.encoders.checkpoints import check_keys, safe_load, safetensors_shapes
from chexray.encoders.fields import read_json
from chexray.encoders.image_processor import Preprocessing, from_transformers
from chexray.encoders.network import NetworkEncoder, normalise, short_hash
from chexray.encoders.network_config import architecture, check_patches, from_table, transformers_config
from chexray.encoders.options import AUTO, Option
from chexray.encoders.random_fill import fill
from chexray.encoders.weights import MODEL_FILE, ResolvedWeights
from chexray.errors import ConfigError, WeightsError
from chexray.log import say
from chexray.text import quoted, shown

if TYPE_CHECKING:
    from torch import Tensor, nn


HUB_ID = "microsoft/rad-dino"
MEAN, STD = (0.5307,) * 3, (0.2583,) * 3
VIT_B_14 = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "image_size": 518, "patch_size": 14}

CGB299 = ("squash", 299, 299, "bilinear")
"""CheXGenBench squashes every image to 299 x 299 for all encoders (fid.py:235) before RAD-DINO's own processor."""

CGB512 = ("squash", 512, 512, "bicubic")
"""CheXGenBench's privacy script brings images to 512 x 512 (Pillow's default filter) before the processor."""

ROUTES: dict[str, tuple[tuple[Any, ...], ...]] = {"native": (), "cgb299": (CGB299,), "cgb512": (CGB512,)}
"""Steps before the processor's own."""


class RadDino(NetworkEncoder):
    """RAD-DINO, a ViT-B/14 trained on chest radiographs: 768 features.

    pooling: `cls` (default), the class token after the final layer norm, as published; `patch_mean`, the mean of the
    patch tokens. route: `native` (default), shorter side to 518 and centre crop; `cgb299`, squashed to 299 x 299 first,
    as CheXGenBench does: 10 % away from native, so the two do not compare; `cgb512`, squashed to 512 x 512 first, as
    its privacy script does: native where images already have 512 x 512 pixels.
    weights: "microsoft/rad-dino" (default, pin it with revision: COMMIT or @COMMIT), a folder with config.json and
    model.safetensors of any DINOv2 model with a class token, or random:SEED; only the last takes
    architecture: {hidden_size, num_hidden_layers, num_attention_heads, image_size, patch_size}.
    The folder's preprocessor_config.json is obeyed, with a warning where it differs from the published one.
    """

    name: ClassVar[str] = "rad_dino"
    released_repository: ClassVar[str] = HUB_ID
    allowed: ClassVar[dict[str, Option]] = {
        "route": Option("native", str, tuple(ROUTES), "resizing before the network's own; `cgb*` repeat CheXGenBench"),
        "pooling": Option("cls", str, ("cls", "patch_mean"), "class token, or mean of the patch tokens"),
        "revision": Option(None, str, about="commit of the hub repository"),
        "architecture": Option(None, dict, about="shape of an untrained network (`weights: random:SEED` only)"),
    }

    def __init__(self, **given: Any):
        super().__init__(**given)
        self._refuse_architecture()
        self._config = _architecture(self.options.pop("architecture") or {})
        self._revision = self.options.pop("revision")
        self._own_processor = False

    def sources(self) -> dict[str, Any]:
        return {
            "reference": with_revision(self.name, self.weights or HUB_ID, self._revision),
            "wanted": MODEL_FILE,
            "where": f"the hub repository {HUB_ID}, with config.json and preprocessor_config.json",
            "architecture": self._config,
        }

    def _describe(self, found: ResolvedWeights) -> EncoderSpec:
        extra: dict[str, Any] = {"architecture": self._config}
        where = "RAD-DINO"
        published = None
        if found.path is not None:
            self._config, described = self._checked_config(found.path)
            extra = {"config_sha256": short_hash(described)}
            where = str(found.path.parent / "preprocessor_config.json")
            published = _own_preprocessing(found.path.parent / "preprocessor_config.json")
        side = self._config["image_size"]
        native = Preprocessing((("cover", side, "bicubic"), ("crop", side, side)), MEAN, STD)
        if published is not None and published != native:
            say(
                f"note: {where} asks for {published.describe()}, RAD-DINO was published with {native.describe()}: "
                "yours is used."
            )
            native, self._own_processor = published, True
            check_patches("dinov2", native.shape, self._config, where)
        steps = (*ROUTES[self.options["route"]], *native.steps)
        self._preprocessing = Preprocessing(steps, native.mean, native.std, native.divisor)
        return self._spec_of(
            found,
            f"{self.options['route']}/{self._preprocessing.describe()}",
            {"features": self._config["hidden_size"]},
            self._preprocessing.shape,
            more=extra,
        )

    def unlike_released(self) -> str:
        """Why this is not the network that was published, whatever its weights; empty where it is."""
        self.resolve()
        differing = [
            f"{name} {self._config[name]}, not {value}"
            for name, value in PUBLISHED.items()
            if self._config.get(name, value) != value
        ]
        if self.options["pooling"] != "cls":
            differing.append(f"pooling {self.options['pooling']}, not cls")
        if self._own_processor:
            differing.append("another preprocessor_config.json")
        if self.precision not in ("fp32", AUTO):
            differing.append(f"precision {self.precision}, not fp32")
        return "; ".join(differing)

    def _checked_config(self, path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
        """The keys of the folder's config.json that are used, and all of it with its defaults for the fingerprint.

        Returned once the tensors beside it are those it describes. Reads headers only.
        """
        if path.name != MODEL_FILE:
            raise WeightsError(
                f"rad_dino cannot use {shown(path.name)}: backbone_compatible.safetensors and dino_head.safetensors "
                f"have DINOv2's own key names, and pickles are not read. Use {MODEL_FILE} of {HUB_ID} and its "
                "config.json."
            )
        place = path.parent / "config.json"
        config = read_json(place, needed_by="rad_dino")
        if config.get("model_type") != "dinov2" or config.get("use_swiglu_ffn"):
            kind = "a SwiGLU DINOv2" if config.get("use_swiglu_ffn") else f"a {quoted(config.get('model_type'), 80)}"
            raise WeightsError(f"{shown(place)} describes {kind} model, not RAD-DINO. Use hf_vision for it.")
        found = safetensors_shapes(path)
        if any(key.startswith(("blocks.", "patch_embed.", "backbone.blocks.")) for key in found):
            raise WeightsError(
                f"{shown(path)} has DINOv2's own key names (blocks.0 ...). Use {MODEL_FILE} of {HUB_ID}."
            )
        keys = {**_DEFAULTS, **architecture(config, "dinov2", found, place)}
        if isinstance(keys["image_size"], list) or isinstance(keys["patch_size"], list):
            raise WeightsError(f"{shown(place)} describes images or patches that are not square. Use hf_vision for it.")
        width, heads = keys["hidden_size"], keys["num_attention_heads"]
        if width % heads:
            raise WeightsError(
                f"{shown(place)}: hidden_size {width} is not a multiple of num_attention_heads {heads}. Fetch it again."
            )
        check_keys(found, dinov2_shapes(keys), ("embeddings.mask_token",), what="the DINOv2 of its config.json")
        return keys, {**_DEFAULTS, **config}

    def _network(self, found: ResolvedWeights) -> nn.Module:
        import torch

        config = transformers_config("dinov2", self._config)
        if found.path is None:
            # Through the published key names, so that a seed gives one network whatever transformers calls its layers.
            filled = fill(dinov2_shapes(self._config), found.seed or 0)
            state = {name: torch.from_numpy(value) for name, value in filled.items()}
        else:
            state = safe_load(found.path)
        return from_table("Dinov2Model", config, state)[0]

    def _outputs(self, module: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        how = self.preprocessing
        output = module(pixel_values=normalise(batch, how.divisor, how.mean, how.std))
        if self.options["pooling"] == "cls":
            return {"features": output.pooler_output}
        return {"features": output.last_hidden_state[:, 1:].mean(1)}


_DEFAULTS: dict[str, Any] = {**VIT_B_14, "mlp_ratio": 4, "num_channels": 3, "qkv_bias": True}
PUBLISHED: dict[str, Any] = {**_DEFAULTS, "hidden_act": "gelu", "layer_norm_eps": 1e-6, "use_swiglu_ffn": False}
"""What shapes the published network's output besides its weights (config.json of its hub repository)."""


def with_revision(encoder: str, reference: str, revision: str | None) -> str:
    """The hub id with `revision` pinned to it. Raises ConfigError when it is pinned twice or is no hub id."""
    if revision is None:
        return reference
    if "@" in reference or "://" in reference or reference.startswith(("random:", "package:", "/", ".", "~")):
        raise ConfigError(f"{encoder}: revision goes with a hub id without '@'; found weights: {quoted(reference)}.")
    return f"{reference}@{revision}"


def dinov2_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Key -> shape of a DINOv2 checkpoint in the names it is published with (those of transformers 4)."""
    width, patch = config["hidden_size"], config["patch_size"]
    inner = int(width * config["mlp_ratio"])
    tokens = (config["image_size"] // patch) ** 2 + 1

    def linear(name: str, out: int, into: int, *, bias: bool = True) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (out, into), **({f"{name}.bias": (out,)} if bias else {})}

    def norm(name: str) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (width,), f"{name}.bias": (width,)}

    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.cls_token": (1, 1, width),
        "embeddings.mask_token": (1, width),
        "embeddings.position_embeddings": (1, tokens, width),
        "embeddings.patch_embeddings.projection.weight": (width, config["num_channels"], patch, patch),
        "embeddings.patch_embeddings.projection.bias": (width,),
        **norm("layernorm"),
    }
    for index in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{index}"
        shapes |= norm(f"{layer}.norm1") | norm(f"{layer}.norm2")
        for part in ("query", "key", "value"):
            shapes |= linear(f"{layer}.attention.attention.{part}", width, width, bias=config["qkv_bias"])
        shapes |= linear(f"{layer}.attention.output.dense", width, width)
        shapes |= linear(f"{layer}.mlp.fc1", inner, width) | linear(f"{layer}.mlp.fc2", width, inner)
        shapes |= {f"{layer}.layer_scale{half}.lambda1": (width,) for half in (1, 2)}
    return shapes


def _architecture(given: dict[str, Any]) -> dict[str, Any]:
    for key, value in given.items():
        if key not in VIT_B_14 or not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ConfigError(
                f"rad_dino: architecture has {shown(key, 80)}: {quoted(value, 80)}; expected a whole number "
                f"above 0 for one of {', '.join(VIT_B_14)}."
            )
    config = {**_DEFAULTS, **given}
    for whole, part in (("hidden_size", "num_attention_heads"), ("image_size", "patch_size")):
        if config[whole] % config[part]:
            raise ConfigError(
                f"rad_dino: architecture {whole} {config[whole]} is not a multiple of {part} {config[part]}."
            )
    return config


def _own_preprocessing(path: Path) -> Preprocessing | None:
    return from_transformers(read_json(path, needed_by="rad_dino"), str(path)) if path.exists() else None
