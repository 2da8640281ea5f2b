"""One epoch of training: batches in, a better network and its figures out. Numbers determine it: it can be redone."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from chexray.errors import RunFailed
from chexray.utility.loop.augmentation import augment
from chexray.utility.loop.loading import Loader, rate
from chexray.utility.loop.stream import AUGMENTATION, DROPOUT, Stream, derived_seed

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from chexray.utility.loop.head import Loss
    from chexray.utility.loop.network import Network
    from chexray.utility.loop.recipe import Recipe
    from chexray.utility.loop.workers import Workers

CHECK_EVERY = 50
"""Steps between looks at the losses: each look waits for the GPU."""
NAMED = 5
"""Images a message names."""


class Optimisation:
    """Optimiser, learning rate and gradient scaler of one phase of `steps` steps in all."""

    def __init__(self, recipe: Recipe, network: Network, steps: int):
        import torch

        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer]
        self.recipe, self.steps = recipe, steps
        self.parameters = list(network.model.parameters())
        self.optimiser = kind(self.parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
        self.scaler = torch.amp.GradScaler(network.device.type, enabled=network.precision == "fp16")
        self.plateau = None
        if recipe.schedule == "plateau":
            self.plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
                self.optimiser, factor=recipe.plateau_factor, patience=recipe.plateau_patience
            )

    @property
    def learning_rate(self) -> float:
        """Of the step to come, or of the last one."""
        return float(self.optimiser.param_groups[0]["lr"])

    def prepare(self, step: int) -> None:
        """Sets the learning rate of step 0, 1, ... of the phase: for "cosine" from the number of the step alone."""
        if self.recipe.schedule == "cosine":
            for group in self.optimiser.param_groups:
                group["lr"] = self.recipe.learning_rate * (1 + math.cos(math.pi * step / self.steps)) / 2

    def step(self, loss: Tensor) -> None:
        """Moves the weights down the gradient of `loss`."""
        import torch

        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        if self.recipe.grad_clip > 0:
            self.scaler.unscale_(self.optimiser)
            torch.nn.utils.clip_grad_norm_(self.parameters, self.recipe.grad_clip)
        self.scaler.step(self.optimiser)
        self.scaler.update()

    def end_epoch(self, loss: float) -> None:
        """loss: of the validation set, which "plateau" lowers the learning rate by."""
        if self.plateau is not None:
            self.plateau.step(loss)

    def state(self) -> dict[str, Any]:
        """Tensors and plain values for `restore`."""
        parts = {"optimiser": self.optimiser.state_dict(), "scaler": self.scaler.state_dict()}
        return parts if self.plateau is None else {**parts, "plateau": self.plateau.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on where `state` was taken."""
        self.optimiser.load_state_dict(state["optimiser"])
        if state["scaler"]:  # empty when the epochs before were not in fp16, such as on a CPU
            self.scaler.load_state_dict(state["scaler"])
        if self.plateau is not None:
            self.plateau.load_state_dict(state["plateau"])


@dataclass(frozen=True)
class InMemorySet:
    """This worker's share of the images of a phase: images (n, side, side) uint8, targets (n, ...) of `Head.batch`."""

    ids: np.ndarray
    images: np.ndarray
    targets: np.ndarray


@dataclass(frozen=True)
class PhaseTraining:
    """What stays the same over the epochs of a phase. module: the network's model, or its DistributedDataParallel."""

    network: Network
    module: nn.Module
    optimisation: Optimisation
    loss: Loss
    data: InMemorySet
    stream: Stream
    augmentation: str
    workers: Workers


def train_epoch(phase: PhaseTraining, epoch: int, where: str) -> dict[str, Any]:
    """Trains one epoch in place; {"lr", "loss", "images_per_s", "input_images_per_s"}. Collective.

    epoch: 0, 1, ... of this phase. where: for messages. loss: the mean over the images presented. Workers take the
    plain mean of their gradients, also where one has more labels left out than another. images_per_s: of all workers
    together; input_images_per_s: what their loaders could have delivered. Raises RunFailed on every worker when a loss
    is not finite.
    """
    import torch

    stream, device, optimisation = phase.stream, phase.network.device, phase.optimisation
    torch.manual_seed(derived_seed(DROPOUT, stream.seed, stream.phase, epoch, stream.rank))
    draws = torch.Generator()
    batches = stream.batches(epoch)
    losses = torch.zeros(len(batches), device=device)

    def gather(batch: np.ndarray) -> tuple[Tensor, Tensor]:
        return _tensor(phase.data.images[batch], device), _tensor(phase.data.targets[batch], device)

    def check(first: int, last: int) -> None:
        _check_finite(losses[first:last], batches[first:last], first, phase, where)

    phase.module.train()
    first_lr = None
    start = time.perf_counter()
    with Loader(gather, batches) as loader:
        for step, (images, targets) in enumerate(loader):
            optimisation.prepare(epoch * len(batches) + step)
            first_lr = optimisation.learning_rate if first_lr is None else first_lr
            draws.manual_seed(derived_seed(AUGMENTATION, stream.seed, stream.phase, epoch, step, stream.rank))
            images = augment(images.to(device, non_blocking=True), phase.augmentation, draws)
            with phase.network.autocast():
                outputs = phase.module(phase.network.inputs(images))
            loss = phase.loss(outputs.float(), targets.to(device, non_blocking=True))
            optimisation.step(loss)
            losses[step] = loss.detach()
            if (step + 1) % CHECK_EVERY == 0:
                check(step + 1 - CHECK_EVERY, step + 1)
    check(len(batches) // CHECK_EVERY * CHECK_EVERY, len(batches))  # waits for the GPU before the clock is read
    seconds = time.perf_counter() - start
    total = float(losses.double().cpu() @ torch.tensor([float(len(batch)) for batch in batches], dtype=torch.float64))
    told = phase.workers.of_all((total, rate(stream.mine, loader.busy_s)))
    return {
        "lr": first_lr,
        "loss": sum(total for total, _ in told) / stream.per_epoch,
        "images_per_s": rate(stream.per_epoch, phase.workers.of_leader(seconds)),
        "input_images_per_s": sum(speed for _, speed in told),
    }


def _tensor(rows: np.ndarray, device: torch.device) -> Tensor:
    """Rows as a tensor on the CPU, in memory a GPU can fetch from by itself."""
    import torch

    tensor = torch.from_numpy(rows)
    return tensor.pin_memory() if device.type == "cuda" else tensor


def _check_finite(losses: Tensor, batches: list[np.ndarray], first: int, phase: PhaseTraining, where: str) -> None:
    """Raises RunFailed on every worker when one of these losses, of steps `first` on, is NaN or infinite on any."""
    bad = (~losses.isfinite()).nonzero()
    found = None
    if len(bad):
        step = int(bad[0])
        named = phase.data.ids[batches[step]].tolist()
        more = f" and {len(named) - NAMED} others" if len(named) > NAMED else ""
        found = first + step, f"{', '.join(named[:NAMED])}{more}"
    reports = [report for report in phase.workers.of_all(found) if report is not None]
    if reports:
        step, images = min(reports)
        raise RunFailed(
            f"loss is not finite in {where}, step {step + 1}: images {images}. Lower utility.learning_rate, set "
            "precision: fp32 or a grad_clip such as 1.0; epochs committed before are kept."
        )
