"""What runs inside the workers: fetch and decode a chunk, prepare it for every encoder, encode, commit.

Every image of a chunk ends in exactly one of part and rejects, in each encoder's folder. A rejected image keeps its
place in the batch as zeros, so its neighbours see the batch they would have seen without the fault.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from chexray.data.depth import Depth, Facts
from chexray.data.images import Reject, load_and
from chexray.data.rejects import CLIPPED
from chexray.encoders.base import Encoder, EncoderSpec
from chexray.engine.arrow_types import forget_extension_types
from chexray.engine.features import FeatureStore, chunk_name
from chexray.errors import ChexrayError, ResourceError, StorageError
from chexray.storage import Storage
from chexray.storage.traffic import taken
from chexray.text import first_line

CHUNK_SCHEMA = pa.schema(
    [("image_key", pa.string()), ("uri", pa.string()), ("encoders", pa.string()), ("depth", pa.string())]
)
"""One row an image; `depth` is that of its set as text, or null; `encoders` holds
the labels still pending for this chunk, joined by commas (equal in all rows)."""

HELD_BYTES = 128_000_000
"""Pixels of a batch that are held, decoded, until all are there: 16 images of 8 million. Preparing them then, one after
the other in one thread, costs least; the temporary arrays of 16 threads cost a third of decoding again (measured)."""

_PREPARER = ThreadPoolExecutor(1)
"""Prepares the larger ones, one at a time, as encoders expect."""

ALL_UNAVAILABLE = 8
"""A batch of at least so many images that all fail for a passing reason is an outage, not bad images: the run stops."""


@dataclass(frozen=True)
class Job:
    """What a worker needs; travels to it once. encoders: {label: (encoder, spec)}."""

    encoders: dict[str, tuple[Encoder, EncoderSpec]]
    store: FeatureStore
    storage: Storage
    device: str
    torch_threads: int
    batch_size: int
    io_threads: int
    max_pixels: int


class _Batches:
    """Prepared batches of a chunk, the next one being fetched and decoded while the present one is encoded."""

    def __init__(self, job: Job, table: pa.Table, labels: Sequence[str], pool: ThreadPoolExecutor):
        self.job, self.labels, self.pool = job, labels, pool
        size = job.batch_size
        self.slices = [table.slice(start, size) for start in range(0, len(table), size)]

    def _load(self, part: pa.Table) -> tuple[dict[str, np.ndarray], dict[int, Reject]]:
        """The prepared images, and by row why one is none; or, with code CLIPPED, that some of its values were cut."""
        uris, depths = part["uri"].to_pylist(), [Depth.parse(text) for text in part["depth"].to_pylist()]
        facts = [Facts() for _ in uris]
        specs = {label: self.job.encoders[label][1] for label in self.labels}
        batch = {label: np.zeros((len(uris), *spec.input_shape), spec.input_dtype) for label, spec in specs.items()}

        def fill(row: int, image: np.ndarray) -> Reject | None:
            for label, block in batch.items():
                try:
                    block[row] = self.job.encoders[label][0].prepare(image)
                except MemoryError:
                    return Reject("out_of_memory", f"{label}: no memory to prepare the image", transient=True)
                except (ValueError, OverflowError) as error:
                    return Reject("unpreparable", f"{label}: {first_line(error)}")
            return None

        def use(row: int, image: np.ndarray) -> np.ndarray | Reject | None:
            """Large images are prepared at once, while their pixels count among those of the process."""
            small = image.nbytes * len(uris) <= HELD_BYTES
            return image if small else _PREPARER.submit(fill, row, image).result()

        answers = load_and(
            use,
            uris,
            self.job.storage,
            threads=self.job.io_threads,
            max_pixels=self.job.max_pixels,
            depths=depths,
            facts=facts,
        )
        rejects = {}
        for row, answer in enumerate(answers):
            answers[row] = None  # each image is let go once it is prepared
            answer = fill(row, answer) if isinstance(answer, np.ndarray) else answer
            if answer is not None:
                rejects[row] = answer
        for row in rejects:
            for block in batch.values():
                block[row] = 0
        if len(rejects) == len(uris) >= ALL_UNAVAILABLE and all(reject.transient for reject in rejects.values()):
            raise StorageError(
                f"{uris[0]} and the {len(uris) - 1} images after it are unavailable ({rejects[0].detail}). What is "
                "encoded so far is kept: run the same command again when the storage answers.",
                transient=True,
            )
        for row, (fact, depth) in enumerate(zip(facts, depths, strict=True)):
            if fact.clipped and row not in rejects:
                rejects[row] = Reject(CLIPPED, f"values beyond {depth.bits if depth else 'its'} bits were cut off")
        return batch, rejects

    def __iter__(self):
        ahead = self.pool.submit(self._load, self.slices[0])
        for following in [*self.slices[1:], None]:
            batch, rejects = ahead.result()
            if following is not None:
                ahead = self.pool.submit(self._load, following)
            yield batch, rejects


def _reject_rows(keys: Sequence[str], rejects: dict[int, Reject], stage: str = "") -> list[dict]:
    fetch = {"not_found", "denied", "unavailable"}
    return [
        {
            "image_key": keys[row],
            "stage": stage or ("fetch" if reject.code in fetch else "decode"),
            "code": reject.code,
            "detail": reject.detail,
            "transient": reject.transient,
        }
        for row, reject in sorted(rejects.items())
    ]


def _answer(chunk: str, **values: object) -> pa.Table:
    """What an actor returns for a chunk. An expected error travels as data, since Ray Data keeps only the text of
    what a function raises: `kind` is its class in chexray.errors, `message` its line."""
    row = {"chunk": chunk, "n_done": 0, "n_rejected": 0, "wall_s": 0.0, "cpu_s": 0.0, "pid": os.getpid()}
    row |= {"node": os.uname().nodename, "bytes_read": 0, "reads": 0}
    return pa.Table.from_pylist([{**row, "kind": "", "message": "", **values}])


def _failure(error: ChexrayError) -> pa.Table:
    # StorageFailure and the like are private refinements; the class users know is the first one of chexray.errors.
    kind = next(base.__name__ for base in type(error).__mro__ if base.__module__ == ChexrayError.__module__)
    return _answer("", kind=kind, message=str(error))


def prepare(job: Job, table: pa.Table) -> pa.Table:
    """The decode task of the split layout: a chunk in, the same chunk with prepared images as fixed-size binary out."""
    forget_extension_types()
    try:
        return _prepare(job, table)
    except ChexrayError as error:
        return _failure(error)


def _prepare(job: Job, table: pa.Table) -> pa.Table:
    taken()  # what another task of this process read
    labels = table["encoders"][0].as_py().split(",")
    blocks: dict[str, list[np.ndarray]] = {label: [] for label in labels}
    rejects: dict[int, Reject] = {}
    start = 0
    with ThreadPoolExecutor(1) as pool:
        for batch, bad in _Batches(job, table, labels, pool):
            rejects.update({start + row: reject for row, reject in bad.items()})
            for label in labels:
                blocks[label].append(batch[label])
            start += len(batch[labels[0]])
    for label in labels:
        stacked = np.concatenate(blocks[label])
        width = stacked[0].nbytes
        column = pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(stacked), [None, pa.py_buffer(stacked)])
        table = table.append_column(f"image:{label}", column)
    for name in ("code", "detail", "transient"):
        values = [getattr(rejects[row], name) if row in rejects else None for row in range(table.num_rows)]
        table = table.append_column(name, pa.array(values, pa.bool_() if name == "transient" else pa.string()))
    for name, amount in zip(("bytes_read", "reads"), taken(), strict=True):
        table = table.append_column(name, pa.array([amount] + [0] * (table.num_rows - 1), pa.int64()))
    return table


class Encode:
    """The encoder actor: a chunk in (raw, or from `prepare`), one committed part an encoder, one small row out."""

    def __init__(self, job: Job):
        forget_extension_types()
        self.job = job
        self.loaded: set[str] = set()
        self.pool = ThreadPoolExecutor(1)

    def _network(self, label: str) -> tuple[Encoder, EncoderSpec]:
        encoder, spec = self.job.encoders[label]
        if label not in self.loaded:
            encoder.load(self.job.device)
            self.loaded.add(label)
            # Only if the encoder brought torch along: importing it costs seconds that `pixels` need not pay.
            if "torch" in sys.modules:
                sys.modules["torch"].set_num_threads(self.job.torch_threads)
        return encoder, spec

    def _batches(self, table: pa.Table, labels: list[str]):
        if "code" not in table.column_names:
            yield from _Batches(self.job, table, labels, self.pool)
            return
        for start in range(0, table.num_rows, self.job.batch_size):
            part = table.slice(start, self.job.batch_size).combine_chunks()
            batch = {}
            for label in labels:
                spec = self.job.encoders[label][1]
                column = part[f"image:{label}"].combine_chunks()
                data = np.frombuffer(column.buffers()[1], spec.input_dtype)
                shape = (-1, *spec.input_shape)
                batch[label] = data.reshape(shape)[column.offset : column.offset + len(column)]
            reasons = part.select(["code", "detail", "transient"]).to_pylist()
            yield batch, {row: Reject(**reason) for row, reason in enumerate(reasons) if reason["code"]}

    def __call__(self, table: pa.Table) -> pa.Table:
        if "kind" in table.column_names:  # the decode task failed
            return table
        try:
            return self._chunk(table)
        except ChexrayError as error:
            return _failure(error)

    def _chunk(self, table: pa.Table) -> pa.Table:
        wall, cpu = time.monotonic(), time.process_time()
        taken()
        labels = table["encoders"][0].as_py().split(",")
        keys = table["image_key"].to_pylist()
        rejects: dict[int, Reject] = {}
        vectors: dict[str, dict[str, list[np.ndarray]]] = {label: {} for label in labels}
        start = 0
        for batch, bad in self._batches(table, labels):
            rejects.update({start + row: reject for row, reject in bad.items()})
            for label in labels:
                encoder, spec = self._network(label)
                for output, block in _encode(encoder, batch[label], label).items():
                    vectors[label].setdefault(output, []).append(block)
            start += len(batch[labels[0]])

        clipped = {row: reject for row, reject in rejects.items() if reject.code == CLIPPED}
        rejects = {row: reject for row, reject in rejects.items() if row not in clipped}
        name = chunk_name(keys)
        failed: set[int] = set(rejects)
        for label in labels:
            spec = self.job.encoders[label][1]
            features = {output: np.concatenate(vectors[label][output]) for output in spec.outputs}
            finite = np.logical_and.reduce([np.isfinite(block).all(axis=1) for block in features.values()])
            broken = {
                int(row): Reject("not_finite", f"{label} returned NaN or infinity for this image")
                for row in np.flatnonzero(~finite)
                if int(row) not in rejects
            }
            keep = [row for row in range(len(keys)) if row not in rejects and row not in broken]
            cut = {row: reject for row, reject in clipped.items() if row not in broken}
            rows = _reject_rows(keys, rejects) + _reject_rows(keys, broken, "encode") + _reject_rows(keys, cut)
            kept = {output: block[keep] for output, block in features.items()}
            self.job.store.commit(spec, [keys[row] for row in keep], kept, rows)
            failed |= set(broken)
        bytes_read, reads = taken()
        if "bytes_read" in table.column_names:  # by the decode task
            bytes_read, reads = (
                bytes_read + sum(table["bytes_read"].to_pylist()),
                reads + sum(table["reads"].to_pylist()),
            )
        return _answer(
            name,
            n_done=len(keys),
            n_rejected=len(failed),
            wall_s=time.monotonic() - wall,
            cpu_s=time.process_time() - cpu,
            bytes_read=bytes_read,
            reads=reads,
        )


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
