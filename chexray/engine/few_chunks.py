"""Few chunks on plain actors: Ray Data starts three helper processes, which cost more than a small stage itself.

Its actors for statistics, for places and for the autoscaler took 8 CPU-seconds and 4 seconds of the wait for the first
chunk (measured, 2 cores). What is retried, and how often, is the same: both stand on Ray's own actors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import ray

if TYPE_CHECKING:
    from chexray.engine.chunks import Stage

FEW_CHUNKS = 128
"""Chunks up to which a stage does without Ray Data: 8,192 images on CPUs, a minute or more of work."""

IN_FLIGHT = 2
"""Chunks an actor has been given: one in work, one that waits in its process."""


class _Worker:
    """A process of the stage. `ready` answers once the worker is made; only then it is given chunks."""

    def __init__(self, make: Callable[[Any], Callable[[pa.Table], pa.Table]], job: Any):
        self.work = make(job)

    def ready(self) -> None:
        pass

    def do(self, chunk: pa.Table) -> dict[str, Any]:
        return self.work(chunk).to_pylist()[0]


def answers_of_few(stage: Stage, chunks: Sequence[pa.Table], *, max_restarts: int) -> Iterator[dict[str, Any]]:
    """The worker's answer to each chunk, as they come. Raises what Ray raises, RayActorError for an actor that died
    max_restarts + 1 times among it."""
    pool, waiting = stage.pool, list(reversed(chunks))
    make = ray.remote(
        num_cpus=pool.cpus_per_actor,
        num_gpus=pool.gpus_per_actor,
        max_restarts=max_restarts,
        max_task_retries=-1,
    )(_Worker).remote
    job = ray.put(stage.job)
    actors: list[Any] = [make(stage.worker, job) for _ in range(min(pool.actors, len(chunks)))]
    # An actor that found no place yet, on a cluster that grows, has no chunk that the others could do meanwhile.
    flying: dict[Any, tuple[Any, bool]] = {actor.ready.remote(): (actor, True) for actor in actors}
    try:
        n_left = len(chunks)
        while n_left:
            (finished, *_), _ = ray.wait(list(flying), num_returns=1)
            actor, is_new = flying.pop(finished)
            row = ray.get(finished)
            for _ in range(min(IN_FLIGHT if is_new else 1, len(waiting))):
                flying[actor.do.remote(waiting.pop())] = (actor, False)
            if not is_new:
                n_left -= 1
                yield row
    finally:
        for actor in actors:
            ray.kill(actor)
