"""Chunks of work on Ray: each is committed once, and an item that ends its worker process is found and rejected.

A stage cuts its items into chunks: tables with a row an item. A worker does a chunk, commits what came out of it, and
answers with one row. Ray Data streams the chunks through a pool of workers, or plain actors do where there are few; its
own writers and checkpoints lose rows or reasons, so that the commit is the worker's.

Where workers die of what they read, the chunks that are left run each in a process of its own, and one that ends its
process is halved until the item that does it is alone. It becomes a reject. Too little memory, or a neighbour, may have
been the cause: the next run tries such an item once more, with nothing beside it, and only then the reject is final.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import pyarrow as pa
import ray
from ray.exceptions import GetTimeoutError, NodeDiedError, OutOfMemoryError, RayActorError, RayError, WorkerCrashedError

from chexray.engine.answers import answer, checked
from chexray.engine.failures import causes, explained, is_of_others, likely_cause
from chexray.engine.features import chunk_name
from chexray.engine.few_chunks import FEW_CHUNKS, answers_of_few
from chexray.engine.pools import Pool
from chexray.engine.quiet import quiet_data
from chexray.log import say
from chexray.spelling import plural
from chexray.text import listed

MAX_RESTARTS = 3
"""Restarts of an actor whose process died. Ray's default of -1 would feed an item that kills it to new ones for ever.

Tries of a task are not bounded instead: while a dead node is not yet known to be dead (15 s and more), Ray tries its
open chunks again about once a second, and these tries would be used up by a machine that was merely preempted.
"""

CRASHES = RayActorError | WorkerCrashedError | OutOfMemoryError | GetTimeoutError

NAMED = 3
"""Items that a message names."""


@dataclass(frozen=True)
class Stage:
    """What is done with chunks, and how large the pool is that does it.

    name: a key of `failures.LOWER`. item: what a row is, for messages. job: what workers need, sent to each once.
    worker: `worker(job)` is made once in a process and called with chunks; it commits a chunk and returns its `answer`.
    prepare: (job, chunk) -> chunk, a task before the worker in the split layout.
    committed: which of some chunks are committed by now. reject: commits a chunk of one item as a reject, final or not.
    key, place: the columns that identify an item, and that a message names it by.
    """

    name: str
    item: str
    job: Any
    worker: Callable[[Any], Callable[[pa.Table], pa.Table]]
    prepare: Callable[[Any, pa.Table], pa.Table]
    pool: Pool
    committed: Callable[[Sequence[pa.Table]], list[bool]]
    reject: Callable[[pa.Table, bool], None]
    key: str = "image_key"
    place: str = "uri"


def run_chunks(stage: Stage, chunks: Sequence[pa.Table], suspects: Sequence[pa.Table] = ()) -> Iterator[dict[str, Any]]:
    """The answer for each chunk, once. suspects: chunks of one item each, which ended its worker in an earlier run.

    Raises the ChexrayError that a worker met, and what else is no crash of a worker.
    """
    if chunks:
        yield from _streamed(stage, chunks)
    if suspects:
        say(f"{plural(len(suspects), stage.item)} crashed a worker in an earlier run: each is tried once more, alone")
        yield from _Isolation(stage, suspects, alone=True)


def _streamed(stage: Stage, chunks: Sequence[pa.Table]) -> Iterator[dict[str, Any]]:
    answered: set[str] = set()
    try:
        for row in _stream(stage, chunks):
            answered.add(row["chunk"])
            yield row
        return
    except (RayError, RuntimeError) as error:
        if not _is_crash(error):
            raise
        why = likely_cause(error)
    left = []
    for chunk, done in zip(chunks, stage.committed(chunks), strict=True):
        name = chunk_name(chunk[stage.key].to_pylist())
        if not done:
            left.append(chunk)
        elif name not in answered:
            yield answer(name, n_done=chunk.num_rows)
    say(
        f"worker processes died {MAX_RESTARTS + 1} times: {why}. Isolating the {stage.item} that crashes them: "
        f"{plural(len(left), 'chunk')} run in separate processes"
    )
    yield from _Isolation(stage, left)


def _stream(stage: Stage, chunks: Sequence[pa.Table]) -> Iterator[dict[str, Any]]:
    if stage.pool.layout == "fused" and len(chunks) <= FEW_CHUNKS:
        yield from map(checked, answers_of_few(stage, chunks, max_restarts=MAX_RESTARTS))
    else:
        yield from _through_ray_data(stage, chunks)


def _through_ray_data(stage: Stage, chunks: Sequence[pa.Table]) -> Iterator[dict[str, Any]]:
    ray_data = quiet_data()
    data, pool = ray_data.from_arrow(list(chunks)), stage.pool
    how = {"batch_size": None, "batch_format": "pyarrow"}
    actors = min(pool.actors, len(chunks))
    if pool.layout == "split":
        # Other resources than the actors', so that Ray does not fuse the stages: a fused GPU waits for Pillow.
        data = data.map_batches(partial(stage.prepare, stage.job), num_cpus=pool.cpus_per_decode, **how)
    data = data.map_batches(
        cast(Any, stage.worker),
        fn_constructor_args=(stage.job,),
        compute=ray_data.ActorPoolStrategy(min_size=actors, max_size=actors, max_tasks_in_flight_per_actor=2),
        num_cpus=pool.cpus_per_actor,
        num_gpus=pool.gpus_per_actor or None,
        max_restarts=MAX_RESTARTS,
        **how,
    )
    for batch in data.iter_batches(prefetch_batches=0, **how):
        yield from map(checked, cast(pa.Table, batch).to_pylist())


@dataclass
class _Isolation:
    """Chunks in separate processes: one that dies is halved, and a single item that dies twice is a reject.

    alone: the chunks hold one item each; they run one after the other, each in a new process, and one that dies is a
    reject for good.
    """

    stage: Stage
    chunks: Sequence[pa.Table]
    alone: bool = False
    rejected: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        self.waiting, self.running = list(reversed(self.chunks)), {}
        self.tried = {self._key(chunk) for chunk in self.chunks} if self.alone else set[str]()
        self.n_short = 0
        submit, at_once = self._submit(), 1 if self.alone else self.stage.pool.actors
        while self.waiting or self.running:
            while self.waiting and len(self.running) < at_once:
                chunk = self.waiting.pop()
                self.running[submit(chunk)] = chunk
            (finished, *_), _ = ray.wait(list(self.running), num_returns=1)
            chunk = self.running.pop(finished)
            try:
                row = checked(ray.get(finished))
            except (RayError, RuntimeError) as error:
                row = self._after(chunk, error)
            if row:
                yield row
        say(self._outcome())

    def _submit(self) -> Callable[[pa.Table], Any]:
        worker, pool, job = self.stage.worker, self.stage.pool, ray.put(self.stage.job)

        def run(chunk: pa.Table, job: Any) -> dict[str, Any]:
            return worker(job)(chunk).to_pylist()[0]

        task = ray.remote(
            num_cpus=pool.cpus_per_actor or 1,
            num_gpus=pool.gpus_per_actor,
            max_retries=0,
            max_calls=1 if self.alone else 8,
        )(run)
        return lambda chunk: task.remote(chunk, job)

    def _key(self, chunk: pa.Table) -> str:
        return chunk[self.stage.key][0].as_py()

    def _after(self, chunk: pa.Table, error: BaseException) -> dict[str, Any] | None:
        """What follows from the end of a process: the chunk waits again, or its halves, or it is rejected."""
        if any(isinstance(cause, NodeDiedError) for cause in causes(error)):
            self.waiting.append(chunk)  # a preempted machine says nothing against the items it held
        elif not _is_crash(error):
            raise error
        elif is_of_others(error):  # nor does a neighbour that takes all memory
            self.n_short += 1
            if self.n_short > MAX_RESTARTS:
                raise (explained(error, self.stage.name) or error) from None
            self.waiting.append(chunk)
        elif chunk.num_rows > 1:
            half = chunk.num_rows // 2
            self.waiting += [chunk.slice(half), chunk.slice(0, half)]
        elif self._key(chunk) not in self.tried:
            self.tried.add(self._key(chunk))  # a process may also die of something else, once
            self.waiting.append(chunk)
        else:
            say(f"{chunk[self.stage.place][0].as_py()} crashed its worker: {likely_cause(error)}")
            self.stage.reject(chunk, self.alone)
            self.rejected.append(chunk[self.stage.place][0].as_py())
            return answer(chunk_name([self._key(chunk)]), n_done=1, n_rejected=1)
        return None

    def _outcome(self) -> str:
        item, n = self.stage.item, sum(chunk.num_rows for chunk in self.chunks)
        if not self.rejected:
            return f"no {item} crashed its worker this time: all {n:,} are done, and none is rejected for it"
        then = "for good" if self.alone else "until the next run, which tries it alone"
        are = "is" if len(self.rejected) == 1 else "are"
        named = listed(self.rejected, NAMED)
        return f"{len(self.rejected):,} of {plural(n, item)} crashed a worker and {are} rejected {then}: {named}"


def _is_crash(error: BaseException) -> bool:
    return any(isinstance(cause, CRASHES) for cause in causes(error))
