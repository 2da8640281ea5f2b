"""The workers' part in choosing a precision: what their device is, and a sample of images in two precisions."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from chexray.data.depth import Depth
from chexray.encoders.base import Encoder, EncoderSpec
from chexray.encoders.capability import Machine, machine
from chexray.engine.arrow_types import forget_extension_types
from chexray.engine.batches import Batches, Job
from chexray.engine.features import FeatureStore
from chexray.engine.pools import Pool
from chexray.engine.worker import CHUNK_SCHEMA
from chexray.errors import ChexrayError

LABEL = "sample"
MOST_TASKS = 8

Both = dict[str, tuple[np.ndarray, np.ndarray]]
"""{output: (features in the first precision, in the second)}, (n, width) each."""


def worker_machine(pool: Pool) -> Machine:
    """What the device of a worker of this pool is."""
    return ray.get(_task(pool)(machine).remote(pool.device))


def encode_both(
    encoders: tuple[Encoder, Encoder], spec: EncoderSpec, chunk: pa.Table, store: FeatureStore, pool: Pool
) -> tuple[Both, list[int]]:
    """Features of the images of a chunk by both encoders, on workers of this pool, and the rows that were rejected.

    chunk: of `sample_chunk`. Nothing is committed. A rejected image has no row in the features. Raises the
    ChexrayError that a worker met.
    """
    n_tasks = 1 if pool.device == "cuda" else min(pool.actors, MOST_TASKS, chunk.num_rows)
    size = -(-chunk.num_rows // n_tasks)
    parts = [chunk.slice(start, size) for start in range(0, chunk.num_rows, size)]
    submit = _task(pool)(_guarded).remote
    shared = ray.put((encoders, spec, store, pool))
    answers = ray.get([submit(shared, part.combine_chunks()) for part in parts])
    if failed := next((answer for answer in answers if isinstance(answer, ChexrayError)), None):
        raise failed
    both = {
        output: (
            np.concatenate([blocks[output][0] for blocks, _ in answers]),
            np.concatenate([blocks[output][1] for blocks, _ in answers]),
        )
        for output in spec.outputs
    }
    return both, [place * size + row for place, (_, rejected) in enumerate(answers) for row in rejected]


def _task(pool: Pool) -> Any:
    """A remote function with the resources of an encoder of this pool, in a process that ends after it."""
    return ray.remote(num_cpus=pool.cpus_per_actor or 1, num_gpus=pool.gpus_per_actor, max_calls=1)


def _guarded(shared: Any, chunk: pa.Table) -> Any:
    """An expected error as a value: raised, Ray would wrap it and print its traceback."""
    try:
        return _encode_part(shared, chunk)
    except ChexrayError as error:
        return error


def _encode_part(shared: tuple[tuple[Encoder, Encoder], EncoderSpec, FeatureStore, Pool], chunk: pa.Table) -> Any:
    import torch

    forget_extension_types()
    encoders, spec, store, pool = shared
    for encoder in encoders:
        encoder.load(pool.device)
    torch.set_num_threads(pool.torch_threads)
    job = Job({LABEL: (encoders[0], spec)}, store, pool)
    found: dict[str, tuple[list[np.ndarray], list[np.ndarray]]] = {output: ([], []) for output in spec.outputs}
    rejected, start = [], 0
    with ThreadPoolExecutor(1) as loader:
        for images, rejects in Batches(job, chunk, loader):
            keep = [row for row in range(len(images[LABEL])) if row not in rejects]
            rejected += [start + row for row in rejects]
            start += len(images[LABEL])
            for place, encoder in enumerate(encoders):
                for output, block in encoder.encode(images[LABEL][keep]).items():
                    found[output][place].append(block)
    return {output: tuple(map(np.concatenate, pair)) for output, pair in found.items()}, sorted(rejected)


def sample_chunk(images: Sequence[tuple[str, str, Depth | None]]) -> pa.Table:
    """Images, each its key, its URI and the depth of its set, as a chunk for `encode_both`."""
    keys, uris, depths = zip(*images, strict=True)
    columns = {"image_key": list(keys), "uri": list(uris), "encoders": [LABEL] * len(keys)}
    texts = [None if depth is None else str(depth) for depth in depths]
    return pa.table({**columns, "depth": pa.array(texts, pa.string())}, schema=CHUNK_SCHEMA)
