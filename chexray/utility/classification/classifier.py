"""Classifiers of the 14 findings: any timm network by name, from a seed or from weights of three origins.

| weights | classifier of the file |
|---|---|
| timm's own (another number of classes) | dropped, initialised from the seed |
| `model.safetensors` of an earlier fit | kept |
| a CheXGenBench checkpoint (.pth) | kept, under timm's name for it |

Row k of a classifier is FINDINGS[k]; upstream trains on the same alphabetical order. Torch and timm load on use.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from chexray.encoders.checkpoints import check_keys, safe_load, safetensors_header
from chexray.encoders.fields import checked, means, parse_json, spreads
from chexray.encoders.timm_vision import data_config
from chexray.encoders.weights import MODEL_FILE, ResolvedWeights, on_this_machine, resolve
from chexray.errors import ConfigError, WeightsError
from chexray.findings import FINDINGS
from chexray.spelling import suggestion
from chexray.text import first_line, quoted
from chexray.utility.loop.network import IMAGENET_MEAN, IMAGENET_STD, timm_config

if TYPE_CHECKING:
    from torch import Tensor, nn

    from chexray.storage import Storage

_UPSTREAM_HEADS = ("fc", "classifier", "head")
"""What CheXGenBench names its new last layer, in the order it looks: not always what timm calls it."""

_COUNTERS = ("*num_batches_tracked",)
_STATISTICS = {"mean": means, "std": spreads}


def find_weights(model: str, reference: str, storage: Storage | None = None) -> ResolvedWeights | None:
    """The weights a fit starts from, found and hashed on this machine; None for "none".

    model: a timm name. reference: "none", "pretrained" (the hub repository timm names for the model), a hub id, a
    file, a folder such as that of an earlier fit, or an fsspec URL; storage: reads s3:// URLs.
    Raises ConfigError for an unknown model or random:SEED, WeightsError with the next move when nothing is found.
    """
    _check_name(model)
    if reference == "none":
        return None
    if reference.startswith("random:"):
        raise ConfigError(
            f"utility.model.weights is {quoted(reference)}: a fit is initialised from its own seed. Set weights: none."
        )
    hub_id = _hub_id(model)
    if reference == "pretrained":
        if not hub_id:
            raise ConfigError(f"timm names no weights for {model}. Set utility.model.weights to a file, or to none.")
        reference = hub_id
    return resolve(reference, storage=storage, **_home(hub_id))


def fetch_weights(
    model: str, weights: ResolvedWeights | None, storage: Storage | None = None
) -> ResolvedWeights | None:
    """The same weights on the machine of a worker: fetched again if need be, refused if they have changed since."""
    return None if weights is None else on_this_machine(weights, storage=storage, **_home(_hub_id(model)))


def has_head(model: str, weights: ResolvedWeights | None, *, image_size: int) -> bool:
    """True when `build` would take the 14-class classifier from the weights too: they can be tested as they are.

    Raises what `build` raises, without its cost: the driver's check that model, weights and image size go together.
    """
    network = _shapes(model, image_size)
    return weights is not None and _fitting(network, model, weights)[1]


def build(model: str, weights: ResolvedWeights | None, *, seed: int, image_size: int) -> nn.Module:
    """A timm network with 3 input channels and 14 logits, in float32 on the CPU, in training mode.

    Parameters that no weights give are drawn from `seed`; the global random state stays as it was. Position embeddings
    of another image size are resampled as timm does. `network.mean_std` tells how to normalise its input.
    Raises ConfigError for a model that does not exist or refuses the image size, WeightsError for weights of another.
    """
    import torch

    shapes = _shapes(model, image_size)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would also seed every GPU of the process
        network = _create(model, image_size).float()
    if weights is not None:
        state, _, statistics = _fitting(shapes, model, weights)
        network.load_state_dict(state, strict=False)  # keys were checked, but for the classifier and counters
        network.pretrained_cfg = {**timm_config(network), **statistics}  # pyright: ignore[reportArgumentType]
    return network


def _check_name(model: str) -> None:
    import timm

    if not timm.is_model(model):
        hint = suggestion(model, timm.list_models(), "`timm.list_models()` lists them.")
        raise ConfigError(f"utility.model.name: timm {timm.__version__} has no model {quoted(model)}. {hint}")
    name, _, tag = model.partition(".")
    tags = timm.list_pretrained(f"{name}.*")
    if tag and model not in tags:
        raise ConfigError(f"utility.model.name: timm has no {quoted(model)}. Known: {', '.join((name, *tags[:4]))}.")


def _hub_id(model: str) -> str:
    import timm

    cfg = timm.get_pretrained_cfg(model)
    return (cfg.hf_hub_id if cfg is not None else None) or ""


def _home(hub_id: str) -> dict[str, str]:
    return {"wanted": MODEL_FILE, "where": f"the hub repository {hub_id or 'of the model'}"}


def _create(model: str, image_size: int) -> nn.Module:
    """The network as timm initialises it on the current device, told its image size where it has to know it."""
    import timm

    how = {"pretrained": False, "in_chans": 3, "num_classes": len(FINDINGS)}
    try:
        return timm.create_model(model, **how, img_size=image_size)
    except TypeError as error:
        if "img_size" not in str(error):
            raise
    return timm.create_model(model, **how)  # convolutions alone take images of any size


def _shapes(model: str, image_size: int) -> nn.Module:
    """The network without memory, after images of this size went through it."""
    import torch

    _check_name(model)

    def attempt(device: str) -> tuple[nn.Module, tuple[int, ...]]:
        with torch.random.fork_rng(devices=[]), torch.device(device), torch.inference_mode():
            network = _create(model, image_size).eval()
            return network, tuple(network(torch.zeros(2, 3, image_size, image_size)).shape)

    try:
        try:
            network, shape = attempt("meta")
        except RuntimeError as error:  # some networks compute with values as they are built, which meta has not
            if "meta" not in str(error):
                raise
            network, shape = attempt("cpu")
    except (ArithmeticError, AssertionError, IndexError, RuntimeError, ValueError) as error:
        reason = (first_line(error) or type(error).__name__).rstrip(".")
        raise ConfigError(
            f"utility.image_size is {image_size}, which timm's {model} does not take ({reason}). "
            "Set one it was made for, such as 224, or another model."
        ) from error
    if shape != (2, len(FINDINGS)):
        raise ConfigError(
            f"utility.model.name: {model} gives {shape} for 2 images, not one logit a finding. Use another."
        )
    return network


def _fitting(
    network: nn.Module, model: str, weights: ResolvedWeights
) -> tuple[dict[str, Tensor], bool, dict[str, tuple[float, ...]]]:
    """The tensors of a file under the network's names, whether the classifier is among them, and its mean and std.

    A classifier of another number of classes is left out. Raises WeightsError for weights of another network.
    """
    if weights.path is None:
        raise WeightsError(
            f"weights {quoted(weights.reference)} name no file. Set utility.model.weights to a file, or to none."
        )
    state = safe_load(weights.path, numpy_scalars=True)
    is_upstream = bool(state) and all(name.startswith("model.") for name in state)
    if is_upstream:
        state = {name.removeprefix("model."): value for name, value in state.items()}
    wanted = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    classifiers = _classifiers(network)
    state = _resampled(_timm_names(state, wanted, classifiers), network, wanted)
    own = {name for name in wanted if _belongs(name, classifiers)}
    complete = bool(own) and all(name in state and tuple(state[name].shape) == wanted[name] for name in own)
    if not complete:
        state = {name: value for name, value in state.items() if not _belongs(name, classifiers)}
    ignore = _COUNTERS if complete else (*_COUNTERS, *own)
    check_keys(state, wanted, ignore, what=f"timm's {model}", where=weights.reference)
    return state, complete, _statistics(weights, is_upstream)


def _classifiers(network: nn.Module) -> tuple[str, ...]:
    names = timm_config(network).get("classifier") or ()
    return (names,) if isinstance(names, str) else tuple(names)


def _belongs(name: str, modules: tuple[str, ...]) -> bool:
    return name.startswith(tuple(f"{module}." for module in modules))


def _timm_names(
    state: dict[str, Tensor], wanted: Mapping[str, tuple[int, ...]], classifiers: tuple[str, ...]
) -> dict[str, Tensor]:
    """The state with upstream's last layer under timm's name for it, if it has exactly the shape.

    Beside a classifier under timm's own name another one is dropped: upstream's inference adds an unused `classifier`
    to a ViT, which never saw an image.
    """
    if len(classifiers) != 1:
        return state
    target = classifiers[0]
    renamed = dict(state)
    for alias in _UPSTREAM_HEADS:
        names = [f"{alias}.weight", f"{alias}.bias"]
        if names[0] in wanted or names[0] not in state:
            continue
        tensors = {name.replace(alias, target, 1): renamed.pop(name) for name in names if name in state}
        fits = all(tuple(value.shape) == wanted.get(name) for name, value in tensors.items())
        if fits and f"{target}.weight" not in renamed:
            renamed |= tensors
    return renamed


def _resampled(
    state: dict[str, Tensor], network: nn.Module, wanted: Mapping[str, tuple[int, ...]]
) -> dict[str, Tensor]:
    """The state through timm's own filter for this family: other names, position embeddings of another image size.

    Only when something besides the classifier differs; a filter that cannot read the state leaves it to `check_keys`.
    """
    classifiers = _classifiers(network)

    def backbone(shapes: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        kept = (name for name in shapes if not _belongs(name, classifiers) and not name.endswith(_COUNTERS[0][1:]))
        return {name: tuple(getattr(shapes[name], "shape", shapes[name])) for name in kept}

    adapt = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if adapt is None or backbone(state) == backbone(wanted):
        return state
    try:
        return adapt(dict(state), network)
    except Exception:  # filters index and split names they expect; anything may be raised for another network's
        return state


def _statistics(weights: ResolvedWeights, is_upstream: bool) -> dict[str, tuple[float, ...]]:
    """mean and std where the weights know better than timm's config of the model.

    CheXGenBench normalises every network as ImageNet; an earlier fit says so in its file, a hub repository beside it.
    """
    if is_upstream:
        return {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
    assert weights.path is not None
    said: dict[str, Any] = {}
    if weights.path.suffix == ".safetensors":
        texts = safetensors_header(weights.path).metadata
        for key, check in _STATISTICS.items():
            if key in texts:
                said[key] = checked(_json(texts[key]), check, f"{key} in its metadata", weights.reference)
    if not said:
        beside = data_config(weights.path.parent / "config.json", needed_by="utility.model.weights")
        said = {key: beside[key] for key in _STATISTICS if key in beside}
    return {key: tuple(float(value) for value in said[key]) for key in said}


def _json(text: str) -> Any:
    """The value of a text of metadata; the text itself when it is no JSON."""
    try:
        return parse_json(text.encode())
    except ValueError:
        return text
