"""A network on the device that trains it: its weights, its input, its arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chexray.errors import ResourceError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from chexray.encoders.weights import ResolvedWeights
    from chexray.storage import Storage
    from chexray.utility.loop.fit_spec import Fit
    from chexray.utility.loop.head import Head

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass
class Network:
    """model: float32 weights in channels_last on `device`. precision: as in the recipe; on a CPU always fp32, since
    autocast would change numbers there and win nothing. mean, std: of its input, three each."""

    head: Head
    model: nn.Module
    device: torch.device
    precision: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, fit: Fit, weights: ResolvedWeights | None, device: str, storage: Storage) -> Network:
        """The untrained network of a fit; see `Head.build`."""
        import torch

        model = fit.head.build(fit.recipe, weights, seed=fit.seed, storage=storage)
        target = torch.device(device)
        precision = fit.recipe.precision if target.type == "cuda" else "fp32"
        # channels_last is the layout of tensor cores, and of oneDNN on a CPU.
        moved = model.to(target).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        return cls(fit.head, moved, target, precision, *mean_std(model))

    def inputs(self, images: Tensor) -> Tensor:
        """(b, side, side) greys 0..255, uint8 or float, on the device -> (b, 3, side, side) as the model wants them."""
        import torch

        return normalise(images, self.mean, self.std).contiguous(memory_format=torch.channels_last)

    def autocast(self) -> torch.autocast:
        """The arithmetic of the forward pass, as a context."""
        import torch

        dtype = torch.float16 if self.precision == "fp16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype=dtype, enabled=self.precision != "fp32")


def mean_std(network: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and standard deviation of each channel the network expects, of greys in 0..1; ImageNet's if unknown."""
    cfg = timm_config(network)
    mean, std = (tuple(float(v) for v in cfg.get(key) or ()) for key in ("mean", "std"))
    return (mean, std) if len(mean) == len(std) == 3 else (IMAGENET_MEAN, IMAGENET_STD)


def timm_config(network: nn.Module) -> dict[str, Any]:
    """What timm notes on a network it has built; {} for others."""
    return dict(getattr(network, "pretrained_cfg", None) or {})


def normalise(batch: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """(b, 3, side, side) float32 on the batch's device: (grey / 255 - mean) / std for each channel, in one pass.

    batch: (b, side, side) or (b, 1, side, side), uint8, or float greys in 0..255 as `augment` returns them.
    """
    import torch

    grey = batch.reshape(len(batch), 1, *batch.shape[-2:]).float()
    scale = torch.tensor([1 / (255 * s) for s in std], device=batch.device).view(1, -1, 1, 1)
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=batch.device).view(1, -1, 1, 1)
    return torch.addcmul(shift, grey, scale)


@contextmanager
def arithmetic(device: str, threads: int) -> Iterator[None]:
    """Sets the arithmetic of this process for the time of a training, and its random generator back afterwards.

    TF32 is off, so that fp32 is fp32. On a CPU the same steps give the same bits. On a GPU cuDNN may choose the fastest
    algorithm, and some add in an order that varies: there, two trainings differ as between seeds.
    """
    import torch

    cuda = device.startswith("cuda")
    if cuda and not torch.cuda.is_available():
        raise ResourceError(f"a training was asked to run on {device!r}, but no GPU is visible here. Use device: cpu.")
    if cuda and torch.device(device).index is not None:
        torch.cuda.set_device(device)  # collectives of objects go through the current one
    cudnn: Any = torch.backends.cudnn  # pyright knows the module, not its properties
    matmul: Any = torch.backends.cuda.matmul
    settings = [
        (cudnn, "allow_tf32", False),
        (matmul, "allow_tf32", False),
        (cudnn, "benchmark", True),
        (cudnn, "deterministic", False),
    ]
    threads_before = torch.get_num_threads()
    before = [(place, name, getattr(place, name)) for place, name, _ in settings]
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if cuda else []):
            torch.set_num_threads(max(1, threads))
            for place, name, value in settings:
                setattr(place, name, value)
            yield
    finally:
        torch.set_num_threads(threads_before)
        for place, name, value in before:
            setattr(place, name, value)
