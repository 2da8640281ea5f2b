"""What a network says about a set of images, the same whatever the number of workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from chexray.utility.loop.head import Loss
    from chexray.utility.loop.network import Network
    from chexray.utility.loop.workers import Workers

Read = Callable[[np.ndarray], np.ndarray]
"""image_keys (n,) -> images (n, side, side) uint8, in that order."""

BATCH = 64
"""Images scored at once. Fixed, since a batch of another size may round otherwise."""
BATCHES_HELD = 16
"""Batches read at once: 51 MB of 224-pixel images."""


def own_slice(n: int, workers: Workers) -> slice:
    """The images this worker scores: a run of whole batches, so that batches hold the same images for any number of
    workers."""
    batches = -(-n // BATCH)
    first, last = (batches * rank // workers.size * BATCH for rank in (workers.rank, workers.rank + 1))
    return slice(min(first, n), min(last, n))


def outputs_of(network: Network, images: np.ndarray) -> np.ndarray:
    """Outputs (n, width) float32 of images (n, side, side) uint8, by this worker alone."""
    import torch

    network.model.eval()
    found = [np.empty((0, network.head.width), np.float32)]
    with torch.inference_mode():
        for start in range(0, len(images), BATCH):
            # A copy, because images from an object store are read-only views of shared memory.
            batch = torch.from_numpy(np.array(images[start : start + BATCH])).to(network.device)
            with network.autocast():
                outputs = network.model(network.inputs(batch))
            found.append(outputs.float().cpu().numpy())
    return np.concatenate(found)


def predict_keys(network: Network, keys: np.ndarray, read: Read, workers: Workers) -> np.ndarray | None:
    """Predictions (n, width) float32 of a set, read and scored a few batches at a time. Collective; None but on worker
    0."""
    own = keys[own_slice(len(keys), workers)]
    held = BATCH * BATCHES_HELD
    parts = [outputs_of(network, read(own[start : start + held])) for start in range(0, len(own), held)]
    found = gathered(np.concatenate([np.empty((0, network.head.width), np.float32), *parts]), workers)
    return None if found is None else network.head.predict(found)


def gathered(own: np.ndarray, workers: Workers) -> np.ndarray | None:
    """The rows of all workers by rank, on worker 0; None on the others. Collective."""
    parts = workers.of_all(own)
    return np.concatenate(parts) if workers.leads else None


def validate(network: Network, images: np.ndarray, labels: np.ndarray, loss: Loss, workers: Workers) -> dict[str, Any]:
    """{"val_<score>", "val_loss", "finite"} on every worker. Collective.

    images: this worker's `own_slice` of the validation set, uint8; labels: of the whole set. The loss is taken over all
    images at once, not as a mean of batches.
    """
    import torch

    head, score = network.head, f"val_{network.head.score}"
    outputs = gathered(outputs_of(network, images), workers)
    found: dict[str, Any] = {score: None, "val_loss": None, "finite": True}
    if outputs is not None and head.counts(labels):
        found["finite"] = bool(np.isfinite(outputs).all())
        if found["finite"]:
            found[score] = head.judge(head.predict(outputs), labels)
            targets = torch.from_numpy(head.batch(labels)).to(network.device)
            found["val_loss"] = float(loss(torch.from_numpy(outputs).to(network.device), targets))
    return workers.of_leader(found)
