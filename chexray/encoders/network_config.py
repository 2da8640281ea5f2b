"""The config.json of a transformers network: the keys that shape it, checked, and nothing that acts when it is loaded.

transformers obeys many keys of a config: `attn_implementation` and `kernel_config` fetch kernels, `quantization_config`
runs a quantiser, `fusion_config` patches layers, `auto_map` names code. So its config is built here, from the few keys
below, and the network is given a table of tensors instead of a folder: index files, adapters and code beside the
weights are not looked at. What a config asks for is compared with the tensors of the file before memory is taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from chexray.encoders.fields import Check, either, flag, number, several, side, taken, whole, word
from chexray.errors import WeightsError
from chexray.text import first_line, shown

if TYPE_CHECKING:
    from torch import nn

MOST_LAYERS = 1000
MOST_PATCHES = 8192
"""Patches of one image that a network with global attention may be given; SigLIP at 980 pixels has 4,900."""
SPARE_NUMBERS = 2**25
"""How many more numbers a network may hold than its file: tables of positions that are computed, not stored."""

_ACTIVATIONS = word(
    "gelu", "gelu_fast", "gelu_new", "gelu_python", "gelu_pytorch_tanh", "gelu_accurate", "quick_gelu",
    "relu", "relu6", "leaky_relu", "silu", "swish", "mish", "hardswish", "sigmoid", "tanh", "linear",
)  # fmt: skip
_WIDTH = whole(1, 65_536)
_COUNT = whole(1, 4096)
_SIDES = either(side, several(side, 2, 2))
_PER_STAGE = {"fewest": 1, "most": 8}

_ANY: dict[str, Check] = {
    "image_size": _SIDES,
    "patch_size": _SIDES,
    "num_channels": whole(3, 3),
    "hidden_act": _ACTIVATIONS,
    "layer_norm_eps": number(0, 1),
}
_TRANSFORMER = {
    **_ANY,
    "hidden_size": _WIDTH,
    "num_hidden_layers": whole(1, MOST_LAYERS),
    "num_attention_heads": _COUNT,
}
_VIT = {
    **_TRANSFORMER,
    "intermediate_size": _WIDTH,
    "qkv_bias": flag,
    "pooler_output_size": _WIDTH,
    "pooler_act": _ACTIVATIONS,
}
_DINOV2 = {
    **_TRANSFORMER,
    "mlp_ratio": number(0.1, 64),
    "qkv_bias": flag,
    "layerscale_value": number(-1000, 1000),
    "use_swiglu_ffn": flag,
    "use_mask_token": flag,
}
_BEIT = {
    **_TRANSFORMER,
    "intermediate_size": _WIDTH,
    "use_mask_token": flag,
    "use_absolute_position_embeddings": flag,
    "use_relative_position_bias": flag,
    "use_shared_relative_position_bias": flag,
    "layer_scale_init_value": number(0, 1000),
    "use_mean_pooling": flag,
}
_CLIP = {**_TRANSFORMER, "intermediate_size": _WIDTH}
_SWIN = {
    **_ANY,
    "embed_dim": _WIDTH,
    "depths": several(whole(1, MOST_LAYERS), **_PER_STAGE),
    "num_heads": several(_COUNT, **_PER_STAGE),
    "window_size": whole(1, 64),
    "mlp_ratio": number(0.1, 64),
    "qkv_bias": flag,
    "use_absolute_embeddings": flag,
}
_CONVNEXT = {
    **_ANY,
    "num_stages": whole(1, 8),
    "hidden_sizes": several(_WIDTH, **_PER_STAGE),
    "depths": several(whole(1, MOST_LAYERS), **_PER_STAGE),
}
_KEYS: dict[str, tuple[str, dict[str, Check]]] = {
    "dinov2": ("Dinov2Config", _DINOV2),
    "dinov2_with_registers": ("Dinov2WithRegistersConfig", {**_DINOV2, "num_register_tokens": whole(0, 1024)}),
    "vit": ("ViTConfig", _VIT),
    "deit": ("DeiTConfig", _VIT),
    "beit": ("BeitConfig", _BEIT),
    "data2vec-vision": ("Data2VecVisionConfig", _BEIT),
    "clip": ("CLIPVisionConfig", _CLIP),
    "clip_vision_model": ("CLIPVisionConfig", _CLIP),
    "siglip": ("SiglipVisionConfig", {**_CLIP, "vision_use_head": flag}),
    "siglip_vision_model": ("SiglipVisionConfig", {**_CLIP, "vision_use_head": flag}),
    "swin": ("SwinConfig", _SWIN),
    "swinv2": ("Swinv2Config", {**_SWIN, "pretrained_window_sizes": several(whole(0, 64), **_PER_STAGE)}),
    "convnext": ("ConvNextConfig", {**_CONVNEXT, "layer_scale_init_value": number(0, 1000)}),
    "convnextv2": ("ConvNextV2Config", _CONVNEXT),
}
"""model_type -> the config class of transformers, and the keys that are taken with how each is checked."""
_WIDTHS = ("hidden_size", "intermediate_size", "embed_dim", "pooler_output_size", "num_register_tokens")
_DTYPES = {name: word("float16", "bfloat16", "float32", "float64") for name in ("dtype", "torch_dtype")}


def architecture(
    config: Mapping[str, Any], kind: str, shapes: Mapping[str, tuple[int, ...]], where: object
) -> dict[str, Any]:
    """The keys of a config that shape a network of `kind`, checked against each other and the tensors of its file.

    config: of the image tower. shapes: name -> shape of the tensors of the file. where: the config's place.
    Raises WeightsError for a value that is none, or larger than anything the file holds.
    """
    found = taken(config, _KEYS[kind][1], where)
    widest = max((max(shape, default=0) for shape in shapes.values()), default=0)
    widths = [(key, found[key]) for key in _WIDTHS if key in found]
    widths += [("hidden_sizes", width) for width in found.get("hidden_sizes", ())]
    for key, width in widths:
        if width > widest:
            raise WeightsError(
                f"{shown(where)}: {key} is {width:,}, and no tensor of the weights is wider than {widest:,}: the files "
                "do not belong together."
            )
    layers = sum(found.get("depths", ())) or found.get("num_hidden_layers", 0)
    if layers > min(MOST_LAYERS, len(shapes)):
        raise WeightsError(
            f"{shown(where)} describes {layers:,} layers, and the weights are {len(shapes):,} tensors: the files do "
            "not belong together."
        )
    image = found.get("image_size")
    if image is not None:
        check_patches(kind, image if isinstance(image, list) else [image, image], found, where)
    return found


def check_patches(kind: str, shape: Sequence[int], keys: Mapping[str, Any], where: object) -> None:
    """Refuses images of (height, width) that a network cannot cut into patches, or only into too many.

    Attention over all patches takes memory with the square of their number; Swin and ConvNeXT look at windows.
    """
    patch = keys.get("patch_size", 4 if kind.startswith(("swin", "convnext")) else 14)
    sides = patch if isinstance(patch, list) else [patch, patch]
    n = math.prod(length // side for length, side in zip(shape, sides, strict=True))
    if n < 1 or (n > MOST_PATCHES and not kind.startswith(("swin", "convnext"))):
        raise WeightsError(
            f"{shown(where)}: images of {shape[0]}x{shape[1]} in patches of {sides[0]}x{sides[1]} are {n:,} patches; "
            f"from 1 to {MOST_PATCHES:,} are computed. Correct the file or fetch it again."
        )


def dtype_of(config: Mapping[str, Any], where: object) -> str:
    """The type in which the network says its weights are to be taken, "float32" for example; "" where it does not."""
    found = taken(config, _DTYPES, where)
    return found.get("dtype") or found.get("torch_dtype") or ""


def empty_network(model: str, kind: str, keys: Mapping[str, Any], extra: Mapping[str, Any], where: object) -> nn.Module:
    """The network that `architecture` describes, without memory: shapes only. Raises WeightsError if it cannot be."""
    import torch
    import transformers

    try:
        with quiet(), torch.device("meta"):
            return getattr(transformers, model)(transformers_config(kind, keys), **extra).eval()
    except Exception as error:  # of a library, about combinations of values that a stranger chose
        raise WeightsError(
            f"{shown(where)} does not describe a {model}: {first_line(error) or type(error).__name__}. Fetch it again."
        ) from error


def transformers_config(kind: str, keys: Mapping[str, Any]) -> Any:
    """transformers' config object, from checked keys alone; attention stays what transformers chooses by default."""
    import transformers

    return getattr(transformers, _KEYS[kind][0])(**keys)


def compare_sizes(network: nn.Module, shapes: Mapping[str, tuple[int, ...]], where: object) -> None:
    """Refuses a network that would hold many more numbers than its file: memory is only taken for what is there."""
    held = sum(math.prod(shape) for shape in shapes.values())
    wanted = sum(value.numel() for values in (network.parameters(), network.buffers()) for value in values)
    if wanted > held + SPARE_NUMBERS:
        raise WeightsError(
            f"{shown(where)} describes a network of {wanted:,} numbers, and the weights beside it hold {held:,}: the "
            "files do not belong together."
        )


def from_table(model: str, config: Any, state: dict[str, Any], dtype: str = "", **extra: Any) -> tuple[nn.Module, Any]:
    """The network of this class with the weights of a table, and transformers' report of missing keys.

    dtype: what the weights are rounded to first, as transformers does where the config names a type.
    """
    import torch
    import transformers

    if dtype:
        kind = getattr(torch, dtype)
        state = {name: value.to(kind) if value.is_floating_point() else value for name, value in state.items()}
    with quiet():
        return getattr(transformers, model).from_pretrained(
            None, config=config, state_dict=state, output_loading_info=True, **extra
        )


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bar, and no report on stderr that repeats names of tensors; what is missing is checked by callers."""
    from logging import CRITICAL

    from transformers.utils import logging

    logging.disable_progress_bar()
    before = logging.get_verbosity()
    logging.set_verbosity(CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(before)
