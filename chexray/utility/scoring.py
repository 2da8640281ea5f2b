"""What a classifier says about a set of images: 14 logits each, the same whatever the number of workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from chexray.findings import FINDINGS
from chexray.stats.ranking import roc_auc

if TYPE_CHECKING:
    from chexray.utility.network import Network
    from chexray.utility.world import World

Read = Callable[[np.ndarray], np.ndarray]
"""image_keys (n,) -> images (n, side, side) uint8, in that order."""

BATCH = 64
"""Images scored at once. Fixed, since a batch of another size may round otherwise."""
BATCHES_HELD = 16
"""Batches read at once: 51 MB of 224-pixel images."""


def own_slice(n: int, world: World) -> slice:
    """The images this worker scores: a run of whole batches, so that batches hold the same images for any number of
    workers."""
    batches = -(-n // BATCH)
    first, last = (batches * rank // world.size * BATCH for rank in (world.rank, world.rank + 1))
    return slice(min(first, n), min(last, n))


def predict_images(network: Network, images: np.ndarray) -> np.ndarray:
    """Logits (n, 14) float32 of images (n, side, side) uint8, by this worker alone."""
    import torch

    network.model.eval()
    found = [np.empty((0, len(FINDINGS)), np.float32)]
    with torch.inference_mode():
        for start in range(0, len(images), BATCH):
            # A copy, because images from an object store are read-only views of shared memory.
            batch = torch.from_numpy(np.array(images[start : start + BATCH])).to(network.device)
            with network.autocast():
                logits = network.model(network.inputs(batch))
            found.append(logits.float().cpu().numpy())
    return np.concatenate(found)


def predict_keys(network: Network, keys: np.ndarray, read: Read, world: World) -> np.ndarray | None:
    """Logits (n, 14) float32 of a set, read and scored a few batches at a time. Collective; None but on worker 0."""
    own = keys[own_slice(len(keys), world)]
    held = BATCH * BATCHES_HELD
    parts = [predict_images(network, read(own[start : start + held])) for start in range(0, len(own), held)]
    return together(np.concatenate([np.empty((0, len(FINDINGS)), np.float32), *parts]), world)


def together(own: np.ndarray, world: World) -> np.ndarray | None:
    """The rows of all workers by rank, on worker 0; None on the others. Collective."""
    parts = world.of_all(own)
    return np.concatenate(parts) if world.leads else None


def macro_auroc(logits: np.ndarray, labels: np.ndarray) -> float | None:
    """Mean AUROC over the findings with both classes; None when no finding has them.

    logits (n, 14); labels (n, 14) of 1, 0 and -1 for cells left out.
    """
    areas = [
        roc_auc(logits[labels[:, k] == 1, k], logits[labels[:, k] == 0, k])
        for k in range(labels.shape[1])
        if (labels[:, k] == 1).any() and (labels[:, k] == 0).any()
    ]
    return float(np.mean(areas)) if areas else None


def selection(labels: np.ndarray, asked: str = "auroc") -> str:
    """What the best epoch is chosen by, given the validation labels (n, 14) and what the recipe asks for.

    "auroc", the highest macro AUROC; "loss", the lowest, also when no finding has both classes; "last" without any
    label.
    """
    if asked == "auroc" and ((labels == 1).any(axis=0) & (labels == 0).any(axis=0)).any():
        return "auroc"
    return "loss" if (labels >= 0).any() else "last"


def validate(network: Network, images: np.ndarray, labels: np.ndarray, loss_of: Any, world: World) -> dict[str, Any]:
    """{"val_auroc", "val_loss", "finite"} on every worker. Collective.

    images: this worker's `own_slice` of the validation set, uint8; labels: (n, 14) of the whole set. The loss is one
    masked mean over all cells, not a mean of batches.
    """
    import torch

    logits = together(predict_images(network, images), world)
    found: dict[str, Any] = {"val_auroc": None, "val_loss": None, "finite": True}
    if logits is not None and (labels >= 0).any():
        found["finite"] = bool(np.isfinite(logits).all())
        if found["finite"]:
            found["val_auroc"] = macro_auroc(logits, labels)
            loss = loss_of(torch.from_numpy(logits).to(network.device), torch.from_numpy(labels).to(network.device))
            found["val_loss"] = float(loss)
    return world.of_leader(found)
