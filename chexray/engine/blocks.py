"""A set's features of one output as a few large files, so that a search can stream them.

    <root>/blocks/<encoder>-<fingerprint>/<output>-<digest>/block-00000.parquet     row, features

The feature store has one small part a chunk of images, in the order in which they were encoded. Here the rows lie in
a fixed random order: each block is then a random sample of the set, and neither ids, patients nor classes that lie
together can make a search slow. A vector is one fixed-size binary value (little-endian float32), uncompressed: a
column of lists is read at 0.9 GB/s and features do not shrink; this is read at 5 GB/s (one core, 8192 x 768).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa

from chexray.encoders.base import EncoderSpec
from chexray.engine.features import Done, FeatureStore
from chexray.engine.tasks import as_they_finish
from chexray.errors import StorageError
from chexray.storage import Storage, basename, join

BLOCK_ROWS = 8192
"""Rows of a block: 25 MB at 768-d, read in 5 ms and searched by a stripe of queries in half a second of one core."""

GATHER_BYTES = 2**28
"""Features a gathering task holds. Random rows lie in nearly all parts, so each task reads nearly all of them: ten
blocks at once cost a tenth of the reads of ten tasks with one block each."""

BLOCKS_VERSION = 1
_LITTLE_ENDIAN = np.dtype("<f4")


@lru_cache(maxsize=16)
def block_order(n: int) -> np.ndarray:
    """Row numbers 0..n-1, (n,) int64, in the order in which blocks hold them. Read-only."""
    order = np.random.default_rng(0).permutation(n)
    order.flags.writeable = False
    return order


@lru_cache(maxsize=16)
def _places(n: int) -> np.ndarray:
    """The inverse of block_order: where row i lies."""
    places = np.empty(n, np.int64)
    places[block_order(n)] = np.arange(n)
    places.flags.writeable = False
    return places


def block_name(i: int) -> str:
    return f"block-{i:05d}.parquet"


@dataclass(frozen=True)
class FeatureBlocks:
    """n vectors of `width` float32 in `folder`, `block_rows` a file. Holds no features itself, so it travels lightly.

    digest: hex; equal digests mean equal features of the same images in the same order.
    """

    folder: str
    n: int
    width: int
    block_rows: int
    storage: Storage
    digest: str

    @property
    def n_blocks(self) -> int:
        return -(-self.n // self.block_rows)

    def rows_of(self, i: int) -> np.ndarray:
        """Row numbers in the set of the vectors of block i, (m,) int64. Reads nothing."""
        return block_order(self.n)[i * self.block_rows : (i + 1) * self.block_rows]

    def read(self, i: int) -> np.ndarray:
        """The vectors of block i, (m, width) float32 in the order of rows_of(i), read-only. Raises StorageError."""
        uri = join(self.folder, block_name(i))
        again = "Delete it and run the same command again; it will be gathered anew."
        try:
            types = {"row": pa.int64(), "features": pa.binary(4 * self.width)}
            table = self.storage.read_parquet(uri, ["row", "features"], types=types)
        except StorageError as error:
            if error.transient:
                raise
            raise StorageError(f"{error} {again}") from None
        column = table["features"]
        whole = column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
        if whole.null_count or not np.array_equal(table["row"].to_numpy(), self.rows_of(i)):
            raise StorageError(f"{uri} holds other rows than expected. {again}")
        data = np.frombuffer(whole.buffers()[1], _LITTLE_ENDIAN)[whole.offset * self.width :]
        vectors = data[: len(whole) * self.width].reshape(len(whole), self.width).astype(np.float32, copy=False)
        if not np.isfinite(vectors).all():
            raise StorageError(f"{uri} holds NaN or infinity. {again}")
        return vectors

    def take(self, rows: np.ndarray) -> np.ndarray:
        """The vectors of these rows of the set, (len(rows), width) float32. Reads the blocks that hold them, one by
        one."""
        rows = np.asarray(rows, np.int64)
        if len(rows) and not 0 <= rows.min() <= rows.max() < self.n:
            raise IndexError(f"rows {rows.min()} to {rows.max()} of a set of {self.n}")
        blocks, places = np.divmod(_places(self.n)[rows], self.block_rows)
        found = np.empty((len(rows), self.width), np.float32)
        for i in np.unique(blocks):
            wanted = blocks == i
            found[wanted] = self.read(int(i))[places[wanted]]
        return found

    def write(self, i: int, features: np.ndarray) -> None:
        """Commits block i, unless it is there: features (m, width) float32 in the order of rows_of(i)."""
        rows = self.rows_of(i)
        data = np.ascontiguousarray(features, _LITTLE_ENDIAN)
        if data.shape != (len(rows), self.width):
            raise ValueError(f"block {i}: shape {data.shape}, expected {(len(rows), self.width)}")
        column = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(4 * self.width), len(rows), [None, pa.py_buffer(data.reshape(-1))]
        )
        table = pa.table({"row": pa.array(rows), "features": column})
        self.storage.write_parquet(join(self.folder, block_name(i)), table, plain=True, new=True)

    def missing(self) -> list[int]:
        """Numbers of the blocks that are not committed."""
        there = {basename(stat.uri) for stat in self.storage.list(self.folder)}
        return [i for i in range(self.n_blocks) if block_name(i) not in there]


def write_blocks(
    store: FeatureStore, spec: EncoderSpec, output: str, keys: Sequence[str], done: Done, *, workers: int
) -> FeatureBlocks:
    """The blocks of these images' features, gathered where they are not committed yet.

    keys: the image_key of each row of the set, all of them in `done.rows`. A set of one block is gathered here, others
    by Ray tasks, and never as a whole in this process. Raises StorageError.
    """
    parts = (str(BLOCKS_VERSION), spec.name, spec.fingerprint, output, str(BLOCK_ROWS), *keys)
    digest = hashlib.blake2b("\0".join(parts).encode(), digest_size=8).hexdigest()
    folder = join(store.root, "blocks", f"{spec.name}-{spec.fingerprint}", f"{output}-{digest}")
    blocks = FeatureBlocks(folder, len(keys), spec.outputs[output], BLOCK_ROWS, store.storage, digest)
    missing = blocks.missing()
    per_task = max(1, GATHER_BYTES // (4 * blocks.width * BLOCK_ROWS))

    def item(group: list[int]) -> tuple:
        wanted = [keys[int(row)] for i in group for row in blocks.rows_of(i)]
        return blocks, group, store, spec, output, wanted, Done({key: done.rows[key] for key in wanted})

    items = (item(missing[start : start + per_task]) for start in range(0, len(missing), per_task))
    for _ in as_they_finish(_gather, items, workers=workers, what="gathering features", here=blocks.n_blocks == 1):
        pass
    return blocks


def _gather(
    blocks: FeatureBlocks,
    group: list[int],
    store: FeatureStore,
    spec: EncoderSpec,
    output: str,
    keys: list[str],
    done: Done,
) -> None:
    """Writes the blocks of `group`; keys: of their rows, block after block."""
    features = store.read(spec, output, keys, done)
    start = 0
    for i in group:
        stop = start + len(blocks.rows_of(i))
        blocks.write(i, features[start:stop])
        start = stop


def blocks_of_array(array: np.ndarray, folder: str, storage: Storage, *, block_rows: int = BLOCK_ROWS) -> FeatureBlocks:
    """Blocks of an (n, width) float32 array in memory, for tests and measurements."""
    array = np.ascontiguousarray(array, np.float32)
    digest = hashlib.blake2b(repr((array.shape, block_rows)).encode(), digest_size=8)
    digest.update(array.data)
    blocks = FeatureBlocks(folder, len(array), array.shape[1], block_rows, storage, digest.hexdigest())
    for i in range(blocks.n_blocks):
        blocks.write(i, array[blocks.rows_of(i)])
    return blocks
