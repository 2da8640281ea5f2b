"""Trains classifiers on Ray Train: one group of workers goes through all fits, so that it starts once.

What is trained, committed and resumed is chexray.utility's; this module sizes the group, hands the workers what they
need, watches what they commit, and turns what went wrong into one line. Ray's own checkpoints are not used: a restarted
group was seen to go back one more epoch than was reported, and the folder of a fit says exactly what is done.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from chexray.engine.arrow_types import forget_extension_types
from chexray.engine.autoscaler import silence
from chexray.engine.failures import explained
from chexray.engine.groups import free_groups, without_cleaner
from chexray.engine.pools import Resources
from chexray.engine.progress import Progress
from chexray.engine.scaling import asks
from chexray.engine.telemetry import meter, noted
from chexray.engine.train_task import Task, raise_if_stopped, train_here
from chexray.engine.watching import watched
from chexray.errors import ChexrayError, RunFailed
from chexray.log import say
from chexray.storage import is_remote, join
from chexray.storage.scratch import scratch
from chexray.utility.loop.fit_spec import Fit

MAX_FAILURES = 3
"""Restarts of the group after lost workers without an epoch committed in between: a day of preemptions ends no run."""

PAUSE_S = 5.0
"""Before a group is started anew: whoever took the memory, or the node, may be gone by then."""

POLL_S = 1.0
"""How often the folder of the current fit is looked at for new epochs; on S3 five times less."""


_LOCAL = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}
"""Nobody takes this machine away with notice. The watcher, and the coordinator that `silence` keeps from being asked,
are two of the seven helper processes of Ray Train, a CPU-second and more each; the others have no option."""


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

    forget_extension_types()  # Ray Train imports Ray Data

    class Trainer(TorchTrainer):
        """One that leaves Ctrl-C to us: Ray's handler ends the process with code 1 and no word of how to go on. And one
        that does not ask for GPUs a second time where the run has asked for them."""

        def _initialize_and_run_controller(self, **parts: Any) -> Any:
            if asks() or not resources.joined:  # nor for what a local Ray cannot have
                silence(parts.get("scaling_policy"))
            return super()._initialize_and_run_controller(**parts)

        def _register_sigint_handler(self, controller: object) -> None:
            pass

        def _create_default_callbacks(self) -> list[Any]:
            return without_cleaner(super()._create_default_callbacks())

    free_groups()
    if not resources.joined:
        for name, value in _LOCAL.items():
            os.environ.setdefault(name, value)
    pool = task.pool
    on_gpu = pool.device == "cuda"
    booked = {"CPU": pool.cpus_per_worker, **({"GPU": 1.0} if on_gpu else {})}
    with _scratch(task, resources) as place:
        trainer = Trainer(
            train_here,
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
            raise_if_stopped(task)
        except TrainingFailedError as error:
            raise_if_stopped(task)
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

        filesystem = PyFileSystem(FSSpecHandler(task.storage.fsspec_filesystem(shared)))
        yield {"storage_path": shared.partition("://")[2], "storage_filesystem": filesystem}
    else:
        yield {"storage_path": shared}
