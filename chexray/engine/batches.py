"""Prepared batches of a chunk: images fetched, decoded and prepared for every encoder, the next batch meanwhile.

A rejected image keeps its place in the batch as zeros, so its neighbours see the batch they would have seen without the
fault.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from chexray.data.depth import Depth, Facts
from chexray.data.images import Groups, Reject, load_and
from chexray.data.rejects import CLIPPED
from chexray.data.unchanged import CHANGED, changed
from chexray.encoders.base import Encoder, EncoderSpec
from chexray.engine.features import FeatureStore, StoreIndex
from chexray.engine.pools import Pool
from chexray.errors import StorageError
from chexray.text import first_line

HELD_BYTES = 128_000_000
"""Pixels of a batch that are held, decoded, until all are there: 16 images of 8 million. Preparing them then, one after
the other in one thread, costs least; the temporary arrays of 16 threads cost a third of decoding again (measured)."""

_PREPARER = ThreadPoolExecutor(1)
"""Prepares the larger ones, one at a time, as encoders expect."""

ALL_UNAVAILABLE = 8
"""A batch of at least so many images that all fail for a passing reason is an outage, not bad images: the run stops."""


Batch = tuple[dict[str, np.ndarray], dict[int, Reject]]
"""The prepared images by encoder, and by row why one is none; or, with code CLIPPED, that some values were cut off."""


@dataclass(frozen=True)
class Job:
    """What a worker needs; travels to it once. encoders: {label: (encoder, spec)}."""

    encoders: dict[str, tuple[Encoder, EncoderSpec]]
    store: FeatureStore
    pool: Pool

    def done(self) -> dict[str, StoreIndex]:
        """What is committed now, by encoder."""
        return {label: self.store.done(spec) for label, (_, spec) in self.encoders.items()}

    @staticmethod
    def labels(chunk: pa.Table) -> list[str]:
        """The encoders that a chunk is for."""
        return chunk["encoders"][0].as_py().split(",")


class Batches:
    """Prepared batches of a chunk, the next one being fetched and decoded while the present one is encoded."""

    def __init__(self, job: Job, chunk: pa.Table, loader: ThreadPoolExecutor):
        self.job, self.loader, self.labels = job, loader, job.labels(chunk)
        size = job.pool.batch_size
        self.groups = Groups()
        self.slices = [chunk.slice(start, size) for start in range(0, len(chunk), size)]

    def __iter__(self) -> Iterator[Batch]:
        try:
            ahead = self.loader.submit(self._load, self.slices[0])
            for following in [*self.slices[1:], None]:
                batch = ahead.result()
                if following is not None:
                    ahead = self.loader.submit(self._load, following)
                yield batch
        finally:
            self.loader.submit(self.groups.close)  # behind a batch that is being read

    def _load(self, part: pa.Table) -> Batch:
        uris, depths = part["uri"].to_pylist(), [Depth.parse(text) for text in part["depth"].to_pylist()]
        facts = [Facts() for _ in uris]
        specs = {label: self.job.encoders[label][1] for label in self.labels}
        batch = {label: np.zeros((len(uris), *spec.input_shape), spec.input_dtype) for label, spec in specs.items()}

        def use(row: int, image: np.ndarray) -> np.ndarray | Reject | None:
            """Large images are prepared at once, while their pixels count among those of the process."""
            small = image.nbytes * len(uris) <= HELD_BYTES
            return image if small else _PREPARER.submit(self._fill, batch, row, image).result()

        pool = self.job.pool
        limits = {"threads": pool.io_threads, "max_pixels": pool.max_pixels, "groups": self.groups}
        answers = load_and(use, uris, self.job.store.storage, **limits, depths=depths, facts=facts)
        rejects: dict[int, Reject] = {}
        for row, answer in enumerate(answers):
            answers[row] = None  # each image is let go once it is prepared
            answer = self._fill(batch, row, answer) if isinstance(answer, np.ndarray) else answer
            if answer is not None:
                rejects[row] = answer
        for block in batch.values():
            block[list(rejects)] = 0
        check_available(uris, [rejects.get(row) for row in range(len(uris))])
        for row, (fact, depth) in enumerate(zip(facts, depths, strict=True)):
            if fact.clipped and row not in rejects:
                rejects[row] = Reject(CLIPPED, f"values beyond {depth.bits if depth else 'its'} bits were cut off")
        return batch, rejects

    def _fill(self, batch: dict[str, np.ndarray], row: int, image: np.ndarray) -> Reject | None:
        """Prepares an image for every encoder; the reject where one cannot."""
        for label, block in batch.items():
            try:
                block[row] = self.job.encoders[label][0].prepare(image)
            except MemoryError:
                return Reject("out_of_memory", f"{label}: no memory to prepare the image", transient=True)
            except (ValueError, OverflowError) as error:
                return Reject("unpreparable", f"{label}: {first_line(error)}")
        return None


def changed_rows(job: Job, chunk: pa.Table) -> dict[int, Reject]:
    """The images of a chunk that was read whose files are no more those of the plan.

    Raises StorageError where it is all of them, like `check_available`.
    """
    uris, depths = chunk["uri"].to_pylist(), [Depth.parse(text) for text in chunk["depth"].to_pylist()]
    found = changed(uris, chunk["image_key"].to_pylist(), depths, job.store.storage)
    check_available(uris, [found.get(row) for row in range(len(uris))])
    return found


def check_available(uris: Sequence[str], answers: Sequence[object]) -> None:
    """Raises StorageError where every image of a batch is a reject for a passing reason."""
    passing = [answer for answer in answers if isinstance(answer, Reject) and answer.transient]
    if len(passing) == len(uris) >= ALL_UNAVAILABLE:
        if passing[0].code == CHANGED:
            raise StorageError(f"{passing[0].detail}. What is done so far is kept.", transient=True)
        raise StorageError(
            f"{uris[0]} and the {len(uris) - 1} images after it are unavailable ({passing[0].detail}). What is done "
            "so far is kept: run the same command again when the storage answers.",
            transient=True,
        )
