"""Encodes what is pending, and loses nothing: every image ends in the parts or in the rejects of each encoder.

Pending images are cut into fixed chunks (chunks.py). Fused (CPU): one actor fetches, decodes, encodes and commits.
Split (GPU): decode tasks feed the encoder actors.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from chexray.data.depth import Depth
from chexray.encoders.base import Encoder, EncoderSpec
from chexray.engine.chunks import Stage, run_chunks
from chexray.engine.features import StoreIndex, pending
from chexray.engine.progress import Progress
from chexray.engine.telemetry import meter
from chexray.engine.worker import CHUNK_SCHEMA, Encode, Job, prepare
from chexray.errors import RunFailed

CRASH = "crash"
"""Code of a reject whose image ended the process that read it; transient until it was tried alone."""

Wanted = Mapping[str, Collection[str]]
"""{label: the keys that an encoder must encode}: an image that two suites read is decoded once, and one that only
privacy reads meets no Inception."""


@dataclass(frozen=True)
class Encoded:
    """What the stage did: images encoded now, CPU-seconds inside the workers, and what the stores hold at the end."""

    n_encoded: int
    cpu_s: float
    done: dict[str, StoreIndex]


def plan_chunks(
    images: Mapping[str, str],
    encoders: Mapping[str, tuple[Encoder, EncoderSpec]],
    done: Mapping[str, StoreIndex],
    chunk_size: int,
    wanted: Wanted | None = None,
    depths: Mapping[str, Depth] | None = None,
) -> tuple[list[pa.Table], list[pa.Table]]:
    """Pending images cut into chunks of equal pending encoders, and the suspects of an earlier run, a chunk each.

    images: {image_key: uri} in manifest order. wanted: None is all of them. depths: {image_key: the depth of its set}.
    Committed chunks are whole slices of this order, so what is left after a crash is sliced as it was before it, and
    every batch holds the images it would have held.
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
        parts = [calm[start : start + chunk_size] for start in range(0, len(calm), chunk_size)]
        chunks += [_chunk(part, images, need, depths or {}) for part in parts]
        alone += [_chunk([key], images, need, depths or {}) for key in keys if key in suspects]
    return chunks, alone


def _suspects(done: Mapping[str, StoreIndex]) -> set[str]:
    """Images that ended a worker in an earlier run, and were not tried alone since."""
    rejects = [(key, reject) for found in done.values() for key, reject in found.rejects.items()]
    return {key for key, reject in rejects if reject["code"] == CRASH and reject["transient"]}


def _wanted(images: Mapping[str, str], wanted: Wanted | None, label: str) -> list[str]:
    return [key for key in images if wanted is None or key in wanted[label]]


def _chunk(
    keys: Sequence[str], images: Mapping[str, str], need: Sequence[str], depths: Mapping[str, Depth]
) -> pa.Table:
    columns = {"image_key": keys, "uri": [images[key] for key in keys], "encoders": [",".join(need)] * len(keys)}
    texts = [str(depths[key]) if key in depths else None for key in keys]
    return pa.table({**columns, "depth": pa.array(texts, pa.string())}, schema=CHUNK_SCHEMA)


def encode(
    images: Mapping[str, str],
    job: Job,
    progress: Progress,
    wanted: Wanted | None = None,
    depths: Mapping[str, Depth] | None = None,
) -> Encoded:
    """Encodes what is pending, commits it, and returns what is committed. Raises RunFailed if an image is in neither
    parts nor rejects at the end. wanted, depths: as in `plan_chunks`."""
    for _, spec in job.encoders.values():
        job.store.describe(spec)
    done = job.done()
    chunks, alone = plan_chunks(images, job.encoders, done, job.pool.chunk_size, wanted, depths)
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
        keys = _wanted(images, wanted, label)
        missing = [key for key in keys if key not in done[label].rows and key not in done[label].rejects]
        if missing:
            raise RunFailed(
                f"{len(missing)} of {len(keys)} images are neither encoded by {label} nor rejected, first "
                f"{images[missing[0]]}. Run the same command again to resume; what is committed stays."
            )
    return Encoded(n_encoded, cpu_s, done)


def encode_stage(job: Job) -> Stage:
    """How the chunks of `plan_chunks` are encoded."""

    def committed(chunks: Sequence[pa.Table]) -> list[bool]:
        done = job.done()
        return [
            all(done[label].covers(key) for label in job.labels(chunk) for key in chunk["image_key"].to_pylist())
            for chunk in chunks
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
