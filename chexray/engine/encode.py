"""Encodes what is pending, and loses nothing: every image ends in the parts or in the rejects of each encoder.

Pending images are cut into fixed chunks (chunks.py). Fused (CPU): one actor fetches, decodes, encodes and commits.
Split (GPU): decode tasks feed the encoder actors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from chexray.data.containers.order import container_order, portions
from chexray.data.image_list import ImageList
from chexray.encoders.base import Encoder, EncoderSpec
from chexray.engine.chunks import Stage, run_chunks
from chexray.engine.progress import Progress
from chexray.engine.store_index import StoreIndex, as_keys, places_in
from chexray.engine.telemetry import meter
from chexray.engine.worker import CHUNK_SCHEMA, Encode, Job, prepare
from chexray.errors import RunFailed
from chexray.storage import Storage

CRASH = "crash"
"""Code of a reject whose image ended the process that read it; transient until it was tried alone."""


@dataclass(frozen=True)
class Encoded:
    """What the stage did: images encoded now, CPU-seconds inside the workers, and what the stores hold at the end."""

    n_encoded: int
    cpu_s: float
    done: dict[str, StoreIndex]


def plan_chunks(
    images: ImageList,
    encoders: Mapping[str, tuple[Encoder, EncoderSpec]],
    done: Mapping[str, StoreIndex],
    chunk_size: int,
    storage: Storage | None = None,
) -> tuple[list[pa.Table], list[pa.Table]]:
    """Pending images cut into chunks of equal pending encoders, and the suspects of an earlier run, a chunk each.

    Images of one container are taken in its order. storage: where row groups are looked up, which are not cut.
    Committed chunks are whole slices of this order, so what is left after a crash is sliced as it was before it, and
    every batch holds the images it would have held.
    """
    images = images.take(container_order(images.uris.to_pylist()))
    suspect = places_in(images.keys, as_keys(_suspects(done))) >= 0
    todo = {label: images.mask(label) & ~done[label].covered(images.keys) for label in encoders}
    needs = np.stack(list(todo.values()), axis=1) if todo else np.empty((len(images), 0), bool)
    distinct, first, code = np.unique(needs, axis=0, return_index=True, return_inverse=True)
    code = code.reshape(-1)
    chunks, alone = [], []
    for kind in np.argsort(first):
        need = ",".join(label for label, is_needed in zip(todo, distinct[kind], strict=True) if is_needed)
        if not need:
            continue
        calm, others = (np.flatnonzero((code == kind) & mask) for mask in (~suspect, suspect))
        slices = portions(images.uris.take(pa.array(calm)).to_pylist(), chunk_size, storage or Storage(), len(images))
        chunks += [_chunk(images, calm[part], need) for part in slices]
        alone += [_chunk(images, others[place : place + 1], need) for place in range(len(others))]
    return chunks, alone


def _suspects(done: Mapping[str, StoreIndex]) -> set[str]:
    """Images that ended a worker in an earlier run, and were not tried alone since."""
    rejects = [(key, reject) for found in done.values() for key, reject in found.rejects.items()]
    return {key for key, reject in rejects if reject["code"] == CRASH and reject["transient"]}


def _chunk(images: ImageList, positions: np.ndarray, need: str) -> pa.Table:
    at = pa.array(positions)
    columns = [images.keys.take(at), images.uris.take(at), pa.array([need] * len(at)), images.depths.take(at)]
    return pa.Table.from_arrays(columns, schema=CHUNK_SCHEMA)


def encode(images: ImageList, job: Job, progress: Progress) -> Encoded:
    """Encodes what is pending, commits it, and returns what is committed. Raises RunFailed if an image is in neither
    parts nor rejects at the end."""
    for _, spec in job.encoders.values():
        job.store.describe(spec)
    done = job.done()
    chunks, alone = plan_chunks(images, job.encoders, done, job.pool.chunk_size, job.store.storage)
    n_encoded, cpu_s = 0, 0.0
    if chunks or alone:
        progress.total = sum(chunk.num_rows for chunk in (*chunks, *alone))
        for row in run_chunks(encode_stage(job), chunks, alone):
            n_encoded += row["n_done"] - row["n_rejected"]
            cpu_s += row["cpu_s"]
            meter().chunk(row)
            progress.advance(row["n_done"], row["n_rejected"])
        progress.close()
        done = job.done()
    for label in job.encoders:
        wanted = images.mask(label)
        missing = wanted & ~done[label].known(images.keys)
        if missing.any():
            raise RunFailed(
                f"{missing.sum()} of {wanted.sum()} images are neither encoded by {label} nor rejected, first "
                f"{images.uris[int(np.argmax(missing))].as_py()}. Run the same command again to resume; what is "
                "committed stays."
            )
    return Encoded(n_encoded, cpu_s, done)


def encode_stage(job: Job) -> Stage:
    """How the chunks of `plan_chunks` are encoded."""

    def committed(chunks: Sequence[pa.Table]) -> list[bool]:
        done = job.done()
        keys = pa.chunked_array([part for chunk in chunks for part in chunk["image_key"].chunks], pa.string())
        covered = {label: done[label].covered(keys) for label in done}
        stops = np.cumsum([chunk.num_rows for chunk in chunks])
        return [
            all(covered[label][stop - chunk.num_rows : stop].all() for label in job.labels(chunk))
            for chunk, stop in zip(chunks, stops, strict=True)
        ]

    def reject(chunk: pa.Table, final: bool) -> None:
        row = {"image_key": chunk["image_key"][0].as_py(), "stage": "decode", "code": CRASH, "transient": not final}
        row["detail"] = "the worker process died while decoding or encoding this image" + (
            ", again when nothing ran beside it" if final else "; the next run tries it once more, alone"
        )
        for label in job.labels(chunk):
            spec = job.encoders[label][1]
            empty = {output: np.empty((0, width), np.float32) for output, width in spec.outputs.items()}
            job.store.commit(spec, [], empty, [row])

    return Stage("encode", "image", job, Encode, prepare, job.pool, committed, reject)
