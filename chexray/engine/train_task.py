"""What the workers of a training group are handed, and what each of them does with it."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from chexray.encoders.base import EncoderSpec
from chexray.encoders.weights import ResolvedWeights
from chexray.engine.answers import as_data, raise_told
from chexray.engine.features import FeatureStore, StoreIndex
from chexray.engine.pools import TrainPool
from chexray.engine.telemetry import note_reads
from chexray.errors import ChexrayError
from chexray.storage import Storage, join
from chexray.utility.loop.checkpointing import Folder
from chexray.utility.loop.fit_spec import Fit


@dataclass(frozen=True)
class Task:
    """What travels to the workers. spec, done: where the stored images are. weights: what every fit starts from."""

    fits: tuple[Fit, ...]
    store: FeatureStore
    spec: EncoderSpec
    done: StoreIndex
    weights: ResolvedWeights | None
    pool: TrainPool
    root: str
    run_id: str
    attempt: str = field(default_factory=lambda: uuid.uuid4().hex[:16])
    """Of this process: the same run may have been started twice."""

    @property
    def stopped(self) -> str:
        """What a worker of this attempt leaves behind when it met an error that another try would meet again."""
        return join(self.root, f"stopped-{self.run_id}-{self.attempt}.json")

    @property
    def storage(self) -> Storage:
        return self.store.storage

    def reads_of(self, rank: int) -> str:
        """Where a worker leaves behind how much it read."""
        return join(self.root, f"read-{self.run_id}-{rank}.json")

    def folder_of(self, fit: Fit) -> str:
        return join(self.root, fit.name)

    def folder(self, fit: Fit) -> Folder:
        return Folder(self.folder_of(fit), fit, self.storage, self.attempt)

    def left(self) -> list[Fit]:
        """The fits that are not done. Those that were begun come last: another run may be at them, and be done by
        then."""
        found = []
        for fit in self.fits:
            folder = self.folder(fit)
            if folder.is_done:
                folder.tidy()  # a run that was killed just when another committed the fit may have left its checkpoint
            else:
                found.append((folder.is_begun, fit))
        return [fit for _, fit in sorted(found, key=lambda each: each[0])]

    def read(self, keys: np.ndarray) -> np.ndarray:
        """Images by key, (n, side, side) uint8."""
        flat = self.store.read(self.spec, "image", keys.tolist(), self.done)
        return flat.reshape(len(keys), *self.spec.input_shape)


def train_here(config: dict[str, Any]) -> None:
    """What runs in each worker of the group."""
    import ray
    import ray.train
    import ray.train.torch

    from chexray.utility.loop.fit_all import run_fits

    task: Task = ray.get(config["task"])
    if task.storage.exists(task.stopped):  # the group was restarted over an error that would come again
        return
    device = str(ray.train.torch.get_device()) if task.pool.device == "cuda" else "cpu"
    try:
        run_fits(
            task.fits,
            task.read,
            task.folder_of,
            task.storage,
            device=device,
            threads=task.pool.threads,
            weights=task.weights,
            say=lambda _: None,  # nobody reads a worker's output: the driver watches the folders
            attempt=task.attempt,
        )
    except ChexrayError as error:
        if not getattr(error, "transient", False):
            task.storage.write(task.stopped, json.dumps(as_data(error)).encode())
            if ray.train.get_context().get_world_size() == 1:
                return
        raise  # the others wait for this worker: only the end of the group frees them
    finally:
        note_reads(task.storage, task.reads_of(ray.train.get_context().get_world_rank()))


def raise_if_stopped(task: Task) -> None:
    if task.storage.exists(task.stopped):
        found = json.loads(task.storage.read(task.stopped))
        task.storage.delete(task.stopped)
        raise_told(found)
