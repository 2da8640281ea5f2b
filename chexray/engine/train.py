"""Trains classifiers on Ray Train: one group of workers goes through all fits, so that it starts once.

What is trained, committed and resumed is chexray.utility's; this module sizes the group, hands the workers what they
need, watches what they commit, and turns what went wrong into one line. Ray's own checkpoints are not used: a restarted
group was seen to go back one more epoch than was reported, and the folder of a fit says exactly what is done.
"""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from chexray import errors
from chexray.config import UtilityConfig
from chexray.encoders.base import EncoderSpec
from chexray.encoders.weights import ResolvedWeights
from chexray.engine.autoscaler import silence
from chexray.engine.failures import explained
from chexray.engine.features import Done, FeatureStore
from chexray.engine.groups import free_groups, without_cleaner
from chexray.engine.pools import Resources, choose_device
from chexray.engine.progress import Progress
from chexray.engine.scaling import asks
from chexray.engine.telemetry import meter, note_reads, noted
from chexray.engine.watching import watched
from chexray.errors import ChexrayError, ResourceError, RunFailed
from chexray.log import say
from chexray.storage import Storage, is_remote, join
from chexray.storage.scratch import scratch
from chexray.utility.checkpointing import Folder
from chexray.utility.fit import Fit

MAX_FAILURES = 3
"""Restarts of the group after lost workers without an epoch committed in between: a day of preemptions ends no run."""

PAUSE_S = 5.0
"""Before a group is started anew: whoever took the memory, or the node, may be gone by then."""

POLL_S = 1.0
"""How often the folder of the current fit is looked at for new epochs; on S3 five times less."""


@dataclass(frozen=True)
class TrainPool:
    """Sizes of the group. cpus_per_worker is what Ray books, never all; threads is what a worker uses."""

    workers: int
    device: str
    threads: int
    cpus_per_worker: float

    def describe(self) -> str:
        threads = f"{self.threads} thread{'s' * (self.threads != 1)} each" if self.device == "cpu" else "one GPU each"
        return f"{self.workers} training worker{'s' * (self.workers != 1)} on {self.device}, {threads}"


def plan_train_pool(config: UtilityConfig, resources: Resources) -> TrainPool:
    """Sizes the group for what the cluster has. Raises ResourceError rather than let it wait for ever."""
    device = choose_device("utility.device", config.device, resources)
    most = int(resources.gpus if device == "cuda" else resources.cpus)
    workers = (most if device == "cuda" else min(most, resources.nodes)) if config.workers == "auto" else config.workers
    if not 1 <= workers <= most:
        raise ResourceError(
            f"utility.workers is {workers}, one {'GPU' if device == 'cuda' else 'CPU'} each, but "
            f"{resources.describe()}. Set it from 1 to {most}, or auto."
        )
    # Workers are spread over the nodes, and each must fit on the smallest: Ray waits for ever for a larger one.
    on_one_node = -(-workers // max(1, resources.nodes))
    threads = max(1, int(resources.smallest_node_cpus // on_one_node))
    share = resources.smallest_node_cpus / on_one_node
    return TrainPool(workers, device, threads, min(1.0, 0.5 * share) if device == "cuda" else 0.5 * min(share, threads))


@dataclass(frozen=True)
class Task:
    """What travels to the workers. spec, done: where the stored images are. weights: what every fit starts from."""

    fits: tuple[Fit, ...]
    store: FeatureStore
    spec: EncoderSpec
    done: Done
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


def train(task: Task, resources: Resources, progress: Callable[[str, str, int], Progress]) -> dict[str, str]:
    """Trains and scores what is not committed yet; {title of a fit: why it has no classifier}, most often empty.

    Raises the ChexrayError a worker met, and RunFailed when every fit failed, or when workers were lost
    MAX_FAILURES + 1 times without an epoch in between.
    """
    left = task.left()
    if not left:
        return {}
    n_epochs = sum(max(1, fit.recipe.epochs) for fit in left)
    folders = [task.folder(fit) for fit in left]
    with watched(folders, progress("train", "epochs", n_epochs), every=POLL_S * (5 if is_remote(task.root) else 1)):
        with meter().booked("utility", task.pool.workers if task.pool.device == "cuda" else 0):
            _train_on_ray(task, left, resources)
        meter().add("utility", **noted(task.storage, map(task.reads_of, range(task.pool.workers))))
    failed, missing = {}, []
    for fit in left:
        folder = task.folder(fit)
        why = folder.failure
        if why:
            folder.forget_failure()
        if not folder.is_done:  # another run may have trained what failed here
            failed |= {fit.title: why} if why else {}
            missing += [] if why else [fit]
    if missing:
        raise RunFailed(
            f"{len(missing)} of {len(task.fits)} trainings are not committed, first {missing[0].title}. "
            "Run the same command again to resume."
        )
    if len(failed) == len(task.fits):
        raise RunFailed(next(iter(failed.values())))
    return failed


class _Lost(Exception):
    """A group that ended for what a machine or cluster did, `why`; was_restarted: Ray has tried it again already."""

    def __init__(self, why: ChexrayError, *, was_restarted: bool):
        super().__init__(str(why))
        self.why, self.was_restarted = why, was_restarted


def _train_on_ray(task: Task, fits: Sequence[Fit], resources: Resources) -> None:
    """All fits, with a new group each time that one was lost for good but had committed something.

    Where only the process that leads a group was lost, which Ray does not restart, MAX_FAILURES new ones are tried.
    """
    lost = 0
    while True:
        before = _n_committed(task, fits)
        try:
            _fit_on_ray(task, fits, resources)
        except _Lost as error:
            lost = 0 if _n_committed(task, fits) > before else lost + 1
            if lost > (0 if error.was_restarted else MAX_FAILURES):
                raise error.why from None
            say(f"note: training starts again from its last checkpoint, since {error.why}")
            time.sleep(PAUSE_S)
            continue
        return


def _n_committed(task: Task, fits: Sequence[Fit]) -> int:
    """Epochs and whole fits committed so far."""
    folders = [task.folder(fit) for fit in fits]
    return sum(len(folder.history()) + folder.is_done for folder in folders)


def _fit_on_ray(task: Task, left: Sequence[Fit], resources: Resources) -> None:
    import ray
    from ray.exceptions import RayError
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchTrainer

    class Trainer(TorchTrainer):
        """One that leaves Ctrl-C to us: Ray's handler ends the process with code 1 and no word of how to go on. And one
        that does not ask for GPUs a second time where the run has asked for them."""

        def _initialize_and_run_controller(self, **parts: Any) -> Any:
            if asks():
                silence(parts.get("scaling_policy"))
            return super()._initialize_and_run_controller(**parts)

        def _register_sigint_handler(self, controller: Any) -> None:
            pass

        def _create_default_callbacks(self) -> list[Any]:
            return without_cleaner(super()._create_default_callbacks())

    free_groups()
    pool = task.pool
    on_gpu = pool.device == "cuda"
    booked = {"CPU": pool.cpus_per_worker, **({"GPU": 1.0} if on_gpu else {})}
    with _scratch(task, resources) as place:
        trainer = Trainer(
            _work,
            train_loop_config={"task": ray.put(replace(task, fits=tuple(left)))},  # keys of many fits: sent once a node
            scaling_config=ScalingConfig(
                num_workers=pool.workers, use_gpu=on_gpu, resources_per_worker=booked, placement_strategy="SPREAD"
            ),
            run_config=RunConfig(
                name=f"utility-{task.run_id}-{task.attempt}",
                failure_config=FailureConfig(max_failures=MAX_FAILURES),
                **place,
            ),
        )
        try:
            trainer.fit()
            _raise_if_stopped(task)
        except TrainingFailedError as error:
            _raise_if_stopped(task)
            lost = getattr(error, "worker_failures", None) or {}
            known = next((each for each in lost.values() if isinstance(each, ChexrayError)), None)
            if known is not None:
                raise known from None
            first = next(iter(lost.values()), error)
            text = (str(first).strip().splitlines() or [""])[-1][:300]
            last = explained(error, "utility") or (
                f"{type(first).__name__}: {text}. What is committed stays. For lack of memory lower utility.batch_size "
                "or utility.image_size, then run the same command again."
            )
            why = RunFailed(f"training: workers failed {MAX_FAILURES + 1} times, last: {last}")
            raise _Lost(why, was_restarted=True) from None
        except RayError as error:  # of the process that leads the group
            if (why := explained(error, "utility")) is None:
                raise
            raise _Lost(why, was_restarted=False) from None


@contextlib.contextmanager
def _scratch(task: Task, resources: Resources) -> Iterator[dict[str, Any]]:
    """Where Ray Train leaves its marker: a folder every node reaches. Nothing of ours lies there."""
    if resources.nodes == 1:
        with scratch("train-") as folder:
            yield {"storage_path": folder}
        return
    shared = join(task.root, "ray-train")
    if is_remote(shared):
        from pyarrow.fs import FSSpecHandler, PyFileSystem

        filesystem = PyFileSystem(FSSpecHandler(task.storage.s3_filesystem(shared)))
        yield {"storage_path": shared.removeprefix("s3://"), "storage_filesystem": filesystem}
    else:
        yield {"storage_path": shared}


def _work(config: dict[str, Any]) -> None:
    """What runs in each worker of the group."""
    import ray
    import ray.train
    import ray.train.torch

    from chexray.utility.training import run_fits

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
            kind = next(base.__name__ for base in type(error).__mro__ if base.__module__ == ChexrayError.__module__)
            task.storage.write(task.stopped, json.dumps({"kind": kind, "message": str(error)}).encode())
            if ray.train.get_context().get_world_size() == 1:
                return
        raise  # the others wait for this worker: only the end of the group frees them
    finally:
        note_reads(task.storage, task.reads_of(ray.train.get_context().get_world_rank()))


def _raise_if_stopped(task: Task) -> None:
    if task.storage.exists(task.stopped):
        found = json.loads(task.storage.read(task.stopped))
        task.storage.delete(task.stopped)
        raise getattr(errors, found["kind"])(found["message"])
