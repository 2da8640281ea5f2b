"""Encodes what is pending, on Ray Data, and loses nothing.

Pending images are cut into fixed chunks, one Ray Data block each. Fused (CPU): one actor fetches, decodes, encodes and
commits. Split (GPU): decode tasks feed the encoder actors. The commit is ours (features.py), because Ray Data's own
writers and checkpoints lose rows or reasons. A chunk that kills its worker is bisected until the one image that does
it stands alone among the rejects. Too little memory, or a neighbour, may have been the cause: the next run tries such
an image once more, with nothing beside it, and only then the reject is final.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import pyarrow as pa
import ray
from ray.exceptions import (
    GetTimeoutError,
    NodeDiedError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    WorkerCrashedError,
)

from chexray import errors
from chexray.data.depth import Depth
from chexray.encoders.base import Encoder, EncoderSpec
from chexray.engine.failures import explained, is_of_others
from chexray.engine.features import Done, FeatureStore, chunk_name, pending
from chexray.engine.pools import Pool
from chexray.engine.progress import Progress
from chexray.engine.telemetry import meter
from chexray.engine.worker import CHUNK_SCHEMA, Encode, Job, prepare
from chexray.errors import RunFailed
from chexray.log import say

CRASH = "crash"
"""Code of a reject whose image ended the process that read it; transient until it was tried alone."""

MAX_RESTARTS = 3
"""Restarts of an actor whose process died. Ray's default of -1 would feed a poisonous image to new actors for ever.

Tries of a task are not bounded instead: while a dead node is not yet known to be dead (15 s and more), Ray tries its
open chunks again about once a second, and these tries would be used up by a machine that was merely preempted.
"""


@dataclass(frozen=True)
class Encoded:
    """What the stage did: images encoded now, CPU-seconds inside the workers, and what the stores hold at the end."""

    n_encoded: int
    cpu_s: float
    done: dict[str, Done]


def plan_chunks(
    images: dict[str, str],
    encoders: dict[str, tuple[Encoder, EncoderSpec]],
    done: dict[str, Done],
    chunk_size: int,
    wanted: Mapping[str, Collection[str]] | None = None,
    depths: Mapping[str, Depth] | None = None,
) -> list[pa.Table]:
    """Pending images cut into chunks of equal pending encoders.

    images: {image_key: uri} in manifest order. wanted: the keys each encoder must encode, all of them by default, so
    that an image two suites read is decoded once, and one that only privacy reads meets no Inception. depths:
    {image_key: the depth of its set}.

    Committed chunks are whole slices of this order, so what is left after
    a crash is sliced as it was before it, and every batch holds the images it would have held. The suspects of an
    earlier run come last, a chunk each.
    """
    suspects = _suspects(done)
    by_need: dict[tuple[str, ...], list[str]] = {}
    todo = {label: set(pending(_wanted(images, wanted, label), done[label])) for label in encoders}
    for key in images:
        need = tuple(label for label in encoders if key in todo[label])
        if need:
            by_need.setdefault(need, []).append(key)
    chunks, alone = [], []
    for need, keys in by_need.items():
        calm = [key for key in keys if key not in suspects]
        for start in range(0, len(calm), chunk_size):
            part = calm[start : start + chunk_size]
            chunks.append(_chunk(part, images, ",".join(need), depths or {}))
        alone += [_chunk([key], images, ",".join(need), depths or {}) for key in keys if key in suspects]
    return chunks + alone


def _suspects(done: Mapping[str, Done]) -> set[str]:
    """Images that ended a worker in an earlier run, and were not tried alone since."""
    rejects = [(key, reject) for found in done.values() for key, reject in found.rejects.items()]
    return {key for key, reject in rejects if reject["code"] == CRASH and reject["transient"]}


def _wanted(images: dict[str, str], wanted: Mapping[str, Collection[str]] | None, label: str) -> list[str]:
    return [key for key in images if wanted is None or key in wanted[label]]


def _chunk(keys: Sequence[str], images: Mapping[str, str], need: str, depths: Mapping[str, Depth]) -> pa.Table:
    columns = {"image_key": keys, "uri": [images[key] for key in keys], "encoders": [need] * len(keys)}
    texts = [str(depths[key]) if key in depths else None for key in keys]
    return pa.table({**columns, "depth": pa.array(texts, pa.string())}, schema=CHUNK_SCHEMA)


def encode(
    images: dict[str, str],
    encoders: dict[str, tuple[Encoder, EncoderSpec]],
    store: FeatureStore,
    pool: Pool,
    job: Job,
    progress: Progress,
    wanted: Mapping[str, Collection[str]] | None = None,
    depths: Mapping[str, Depth] | None = None,
) -> Encoded:
    """Encodes what is pending, commits it, and returns what is committed. Raises RunFailed if an image is in neither
    parts nor rejects at the end. wanted, depths: as in `plan_chunks`."""
    for _, spec in encoders.values():
        store.describe(spec)
    done = {label: store.done(spec) for label, (_, spec) in encoders.items()}
    chunks = plan_chunks(images, encoders, done, pool.chunk_size, wanted, depths)
    n_encoded, cpu_s = 0, 0.0
    if chunks:
        progress.total = sum(chunk.num_rows for chunk in chunks)
        suspects = _suspects(done)
        alone = [chunk for chunk in chunks if chunk["image_key"][0].as_py() in suspects]
        calm = chunks[: len(chunks) - len(alone)]
        if alone:
            say(f"{len(alone)} images ended their worker in an earlier run: each is tried once more, alone")
        for row in itertools.chain(
            _run(calm, job, pool, store) if calm else (), _isolate(alone, job, pool, last_try=True)
        ):
            n_encoded += row["n_done"] - row["n_rejected"]
            cpu_s += row["cpu_s"]
            meter().chunk(row)
            progress.advance(row["n_done"], row["n_rejected"])
        progress.close()
        done = {label: store.done(spec) for label, (_, spec) in encoders.items()}
    for label in encoders:
        keys = _wanted(images, wanted, label)
        missing = [key for key in keys if key not in done[label].rows and key not in done[label].rejects]
        if missing:
            raise RunFailed(
                f"{len(missing)} of {len(keys)} images are neither encoded by {label} nor rejected, first "
                f"{images[missing[0]]}. Run the same command again to resume; what is committed stays."
            )
    return Encoded(n_encoded, cpu_s, done)


def _run(chunks: list[pa.Table], job: Job, pool: Pool, store: FeatureStore) -> Iterator[dict]:
    """Commit rows of all chunks; falls back to one task a chunk when workers die of what they read."""
    committed: set[str] = set()
    try:
        for row in _stream(chunks, job, pool):
            committed.add(row["chunk"])
            yield row
        return
    except (RayError, RuntimeError) as error:
        if not _is_crash(error):
            raise
    say("a worker died repeatedly; isolating the image that kills it")
    done = {label: store.done(spec) for label, (_, spec) in job.encoders.items()}
    left = []
    for chunk in chunks:
        keys, labels = chunk["image_key"].to_pylist(), chunk["encoders"][0].as_py().split(",")
        if all(done[label].covers(key) for label in labels for key in keys):
            if chunk_name(keys) not in committed:
                yield {"chunk": chunk_name(keys), "n_done": len(keys), "n_rejected": 0, "cpu_s": 0.0}
        else:
            left.append(chunk)
    yield from _isolate(left, job, pool)


def _stream(chunks: list[pa.Table], job: Job, pool: Pool) -> Iterator[dict]:
    data = ray.data.from_arrow(chunks)
    actors = min(pool.actors, len(chunks))
    if pool.layout == "split":
        # Other resources than the actors', so that Ray does not fuse the stages: a fused GPU waits for Pillow.
        data = data.map_batches(
            partial(prepare, job),
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=pool.cpus_per_decode,
        )
    data = data.map_batches(
        Encode,
        fn_constructor_args=(job,),
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(min_size=actors, max_size=actors, max_tasks_in_flight_per_actor=2),
        num_cpus=pool.cpus_per_actor,
        num_gpus=pool.gpus_per_actor or None,
        max_restarts=MAX_RESTARTS,
    )
    for batch in data.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        yield from map(_checked, cast(pa.Table, batch).to_pylist())


def _isolate(chunks: list[pa.Table], job: Job, pool: Pool, *, last_try: bool = False) -> Iterator[dict]:
    """Each chunk in a process of its own; one that dies is halved, and a single image that dies is a reject.

    last_try: chunks of one image, one after the other, each in a new process; one that dies is a reject for good.
    """
    reference = ray.put(job)

    @ray.remote(
        num_cpus=pool.cpus_per_actor or 1,
        num_gpus=pool.gpus_per_actor,
        max_retries=0,
        max_calls=1 if last_try else 8,
    )
    def run(chunk: pa.Table, job: Job) -> dict:
        return Encode(job)(chunk).to_pylist()[0]

    waiting = list(reversed(chunks))
    flying: dict = {}
    n_short = 0
    suspects: set[str] = {chunk["image_key"][0].as_py() for chunk in chunks} if last_try else set()
    while waiting or flying:
        while waiting and len(flying) < (1 if last_try else pool.actors):
            chunk = waiting.pop()
            flying[run.remote(chunk, reference)] = chunk
        finished, _ = ray.wait(list(flying), num_returns=1)
        chunk = flying.pop(finished[0])
        try:
            yield _checked(ray.get(finished[0]))
        except (RayError, RuntimeError) as error:
            if any(isinstance(cause, NodeDiedError) for cause in _causes(error)):
                waiting.append(chunk)  # a preempted machine says nothing against the images it held
                continue
            if not _is_crash(error):
                raise
            if is_of_others(error):  # nor does a neighbour that takes all memory
                n_short += 1
                if n_short > MAX_RESTARTS:
                    raise (explained(error, "encode") or error) from None
                waiting.append(chunk)
                continue
            if chunk.num_rows > 1:
                half = chunk.num_rows // 2
                waiting += [chunk.slice(half), chunk.slice(0, half)]
            elif chunk["image_key"][0].as_py() not in suspects:
                suspects.add(chunk["image_key"][0].as_py())  # a process may also die of something else, once
                waiting.append(chunk)
            else:
                yield _reject_crash(chunk, job, final=last_try)


def _reject_crash(chunk: pa.Table, job: Job, *, final: bool) -> dict:
    import numpy as np

    keys = chunk["image_key"].to_pylist()
    reject = {"image_key": keys[0], "stage": "decode", "code": CRASH, "transient": not final}
    reject["detail"] = "the worker process died while decoding or encoding this image" + (
        ", again when nothing ran beside it" if final else "; the next run tries it once more, alone"
    )
    for label in chunk["encoders"][0].as_py().split(","):
        spec = job.encoders[label][1]
        empty = {output: np.empty((0, width), np.float32) for output, width in spec.outputs.items()}
        job.store.commit(spec, [], empty, [reject])
    return {"chunk": chunk_name(keys), "n_done": 1, "n_rejected": 1, "cpu_s": 0.0}


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    queue: list[BaseException | None] = [error]
    while queue:
        current = queue.pop()
        if current is None or any(current is other for other in seen):
            continue
        seen.append(current)
        yield current
        queue += [current.__cause__, current.__context__, getattr(current, "cause", None)]


def _checked(row: dict) -> dict:
    """The answer of a worker; an expected error in it is raised here as itself."""
    if row["kind"]:
        raise getattr(errors, row["kind"])(row["message"])
    return row


def _is_crash(error: BaseException) -> bool:
    kinds = RayActorError | WorkerCrashedError | OutOfMemoryError | GetTimeoutError
    return any(isinstance(cause, kinds) for cause in _causes(error))
