"""What runs inside the workers: fetch and decode a chunk, prepare it for every encoder, encode, commit.

Every image of a chunk ends in exactly one of part and rejects, in each encoder's folder.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import pyarrow as pa

from chexray.data.images import Reject
from chexray.data.rejects import CLIPPED
from chexray.data.unchanged import CHANGED
from chexray.encoders.base import Encoder
from chexray.engine.answers import answer, as_data
from chexray.engine.arrow_types import forget_extension_types
from chexray.engine.batches import Batch, Batches, Job, changed_rows
from chexray.engine.features import chunk_name
from chexray.errors import ChexrayError, ResourceError
from chexray.storage.traffic import taken

CHUNK_SCHEMA = pa.schema(
    [("image_key", pa.string()), ("uri", pa.string()), ("encoders", pa.string()), ("depth", pa.string())]
)
"""One row an image; `depth` is that of its set as text, or null; `encoders` holds
the labels still pending for this chunk, joined by commas (equal in all rows)."""

K = TypeVar("K")
_REJECT_COLUMNS = {"code": pa.string(), "detail": pa.string(), "transient": pa.bool_()}
_FETCH = ("not_found", "denied", "unavailable", CHANGED)


def _answer(chunk: str, **values: object) -> pa.Table:
    """What a worker returns for a chunk; see `chunks.answer`."""
    who = {"wall_s": 0.0, "pid": os.getpid(), "node": os.uname().nodename, "bytes_read": 0, "reads": 0}
    return pa.Table.from_pylist([answer(chunk, **who | values)])


def prepare(job: Job, chunk: pa.Table) -> pa.Table:
    """The decode task of the split layout: a chunk in, the same chunk with prepared images as fixed-size binary out."""
    forget_extension_types()
    try:
        return _prepare(job, chunk)
    except ChexrayError as error:
        return _answer("", **as_data(error))


def _prepare(job: Job, chunk: pa.Table) -> pa.Table:
    taken()  # what another task of this process read
    with ThreadPoolExecutor(1) as loader:
        batches, rejects = _joined(Batches(job, chunk, loader))
    rejects |= changed_rows(job, chunk)
    for label, blocks in batches.items():
        stacked = np.concatenate(blocks)
        width = stacked[0].nbytes
        column = pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(stacked), [None, pa.py_buffer(stacked)])
        chunk = chunk.append_column(f"image:{label}", column)
    for name, kind in _REJECT_COLUMNS.items():
        values = [getattr(rejects[row], name) if row in rejects else None for row in range(chunk.num_rows)]
        chunk = chunk.append_column(name, pa.array(values, kind))
    for name, amount in zip(("bytes_read", "reads"), taken(), strict=True):
        chunk = chunk.append_column(name, pa.array([amount] + [0] * (chunk.num_rows - 1), pa.int64()))
    return chunk


def _joined(
    batches: Iterable[tuple[dict[K, np.ndarray], dict[int, Reject]]],
) -> tuple[dict[K, list[np.ndarray]], dict[int, Reject]]:
    """The blocks under each name, batch after batch, and the rejects by row of the chunk."""
    blocks: dict[K, list[np.ndarray]] = {}
    rejects: dict[int, Reject] = {}
    start = 0
    for batch, bad in batches:
        rejects |= {start + row: reject for row, reject in bad.items()}
        for name, block in batch.items():
            blocks.setdefault(name, []).append(block)
        start += len(next(iter(batch.values())))
    return blocks, rejects


class Encode:
    """The encoder actor: a chunk in (raw, or from `prepare`), one committed part an encoder, one small row out."""

    def __init__(self, job: Job):
        forget_extension_types()
        self.job = job
        self.loaded: set[str] = set()
        self.loader = ThreadPoolExecutor(1)

    def __call__(self, chunk: pa.Table) -> pa.Table:
        if "kind" in chunk.column_names:  # the decode task failed
            return chunk
        try:
            return self._chunk(chunk)
        except ChexrayError as error:
            return _answer("", **as_data(error))

    def _network(self, label: str) -> Encoder:
        encoder = self.job.encoders[label][0]
        if label not in self.loaded:
            encoder.load(self.job.pool.device)
            self.loaded.add(label)
            # Only if the encoder brought torch along: importing it costs seconds that `pixels` need not pay.
            if "torch" in sys.modules:
                sys.modules["torch"].set_num_threads(self.job.pool.torch_threads)
        return encoder

    def _chunk(self, chunk: pa.Table) -> pa.Table:
        wall, cpu = time.monotonic(), time.process_time()
        taken()
        keys = chunk["image_key"].to_pylist()
        is_raw = "code" not in chunk.column_names
        batches = Batches(self.job, chunk, self.loader) if is_raw else self._split(chunk)
        vectors, rejects = _joined(map(self._encoded, batches))
        if is_raw:  # else `prepare` has looked
            rejects |= changed_rows(self.job, chunk)
        clipped = {row: reject for row, reject in rejects.items() if reject.code == CLIPPED}
        rejects = {row: reject for row, reject in rejects.items() if row not in clipped}
        failed = set(rejects)
        for label in self.job.labels(chunk):
            outputs = self.job.encoders[label][1].outputs
            features = {output: np.concatenate(vectors[label, output]) for output in outputs}
            failed |= self._commit(label, keys, features, rejects, clipped)
        read = dict(zip(("bytes_read", "reads"), taken(), strict=True))
        if not is_raw:  # by the decode task too
            read = {name: amount + sum(chunk[name].to_pylist()) for name, amount in read.items()}
        spent = {"wall_s": time.monotonic() - wall, "cpu_s": time.process_time() - cpu}
        return _answer(chunk_name(keys), n_done=len(keys), n_rejected=len(failed), **spent, **read)

    def _split(self, chunk: pa.Table) -> Iterator[Batch]:
        """The batches of a chunk that `prepare` has prepared."""
        for start in range(0, chunk.num_rows, self.job.pool.batch_size):
            part = chunk.slice(start, self.job.pool.batch_size).combine_chunks()
            batch = {}
            for label in self.job.labels(chunk):
                spec = self.job.encoders[label][1]
                column = part[f"image:{label}"].combine_chunks()
                data = np.frombuffer(column.buffers()[1], spec.input_dtype)
                shape = (-1, *spec.input_shape)
                batch[label] = data.reshape(shape)[column.offset : column.offset + len(column)]
            reasons = part.select(list(_REJECT_COLUMNS)).to_pylist()
            yield batch, {row: Reject(**reason) for row, reason in enumerate(reasons) if reason["code"]}

    def _encoded(self, batch: Batch) -> tuple[dict[tuple[str, str], np.ndarray], dict[int, Reject]]:
        """{(encoder, output): (n, width)} of a batch, and its rejects."""
        images, rejects = batch
        return {
            (label, output): block
            for label, prepared in images.items()
            for output, block in _encode(self._network(label), prepared, label).items()
        }, rejects

    def _commit(
        self,
        label: str,
        keys: Sequence[str],
        features: dict[str, np.ndarray],
        rejects: Mapping[int, Reject],
        clipped: Mapping[int, Reject],
    ) -> set[int]:
        """Commits the chunk for one encoder; the rows whose features are not finite, which become rejects."""
        spec = self.job.encoders[label][1]
        finite = np.logical_and.reduce([np.isfinite(features[output]).all(axis=1) for output in spec.outputs])
        broken = {
            int(row): Reject("not_finite", f"{label} returned NaN or infinity for this image")
            for row in np.flatnonzero(~finite)
            if int(row) not in rejects
        }
        keep = [row for row in range(len(keys)) if row not in {*rejects, *broken}]
        cut = {row: reject for row, reject in clipped.items() if row not in broken}
        rows = _reject_rows(keys, rejects) + _reject_rows(keys, broken, "encode") + _reject_rows(keys, cut)
        kept = {output: features[output][keep] for output in spec.outputs}
        self.job.store.commit(spec, [keys[row] for row in keep], kept, rows)
        return set(broken)


def _reject_rows(keys: Sequence[str], rejects: Mapping[int, Reject], stage: str = "") -> list[dict]:
    return [
        {
            "image_key": keys[row],
            "stage": stage or ("fetch" if reject.code in _FETCH else "decode"),
            **{name: getattr(reject, name) for name in _REJECT_COLUMNS},
        }
        for row, reject in sorted(rejects.items())
    ]


def _encode(encoder: Encoder, batch: np.ndarray, label: str) -> dict[str, np.ndarray]:
    try:
        return encoder.encode(batch)
    except ChexrayError:
        raise
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
            raise ResourceError(
                f"{label} ran out of memory on a batch of {len(batch)} images. Lower encode.batch_size "
                f"(now {len(batch)}), or use precision: bf16."
            ) from None
        raise
