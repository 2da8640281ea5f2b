"""A set's features of one output as a few large files, so that a search can stream them.

    <root>/blocks/<encoder>-<fingerprint>/<output>-<digest>/block-00000.parquet     row, features
                                          views-<digest>/                           of turned and cropped images

The feature store has one small part a chunk of images, in the order in which they were encoded. Here the rows lie in
a fixed random order: each block is then a random sample of the set, and neither ids, patients nor classes that lie
together can make a search slow. A vector is one fixed-size binary value (little-endian float32), uncompressed: a
column of lists is read at 0.9 GB/s and features do not shrink; this is read at 5 GB/s (one core, 8192 x 768).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np
import pyarrow as pa

from chexray.encoders.base import Encoder, EncoderSpec
from chexray.encoders.views import VIEWS, VIEWS_VERSION, view_features
from chexray.engine.committed import names_in, read_committed
from chexray.engine.features import FeatureStore
from chexray.engine.store_index import Keys, StoreIndex, as_keys
from chexray.engine.tasks import as_they_finish
from chexray.errors import StorageError
from chexray.storage import Storage, join

BLOCK_ROWS = 8192
"""Rows of a block: 25 MB at 768-d, read in 5 ms and searched by a stripe of queries in half a second of one core."""

GATHER_BYTES = 2**28
"""Features a gathering task holds. Random rows lie in nearly all parts, so each task reads nearly all of them: ten
blocks at once cost a tenth of the reads of ten tasks with one block each."""

HERE_IMAGES = 1000
"""Images whose views are made in this process: a second or two, what two workers need to start."""

BLOCKS_VERSION = 1
_NO_KEYS = pa.array([], pa.string())
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

    @classmethod
    def at(
        cls,
        root: str,
        spec: EncoderSpec,
        name: str,
        parts: Sequence[object],
        n: int,
        width: int,
        storage: Storage,
        block_rows: int = 0,
        keys: pa.StringArray | None = None,
    ) -> FeatureBlocks:
        """The blocks `name` of an encoder, in the store at `root`. parts, and keys, the image_keys of the rows: what
        tells their vectors from all others."""
        told = hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=8)
        column: pa.StringArray = _NO_KEYS if keys is None else keys
        for start in range(0, len(column), BLOCK_ROWS):
            told.update("".join(f"\0{key}" for key in column[start : start + BLOCK_ROWS].to_pylist()).encode())
        digest = told.hexdigest()
        folder = join(root, "blocks", f"{spec.name}-{spec.fingerprint}", f"{name}-{digest}")
        return cls(folder, n, width, block_rows or BLOCK_ROWS, storage, digest)

    @property
    def n_blocks(self) -> int:
        return -(-self.n // self.block_rows)

    def rows_of(self, i: int) -> np.ndarray:
        """Row numbers in the set of the vectors of block i, (m,) int64. Reads nothing."""
        return block_order(self.n)[i * self.block_rows : (i + 1) * self.block_rows]

    def read(self, i: int) -> np.ndarray:
        """The vectors of block i, (m, width) float32 in the order of rows_of(i), read-only. Raises StorageError."""
        uri = join(self.folder, block_name(i))
        again = "Delete it and run the same command again; it will be written again."
        types = {"row": pa.int64(), "features": pa.binary(4 * self.width)}
        table = read_committed(self.storage, uri, types, again)
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
        there = names_in(self.folder, self.storage)
        return [i for i in range(self.n_blocks) if block_name(i) not in there]


@dataclass(frozen=True)
class Stored:
    """An output of an encoder, and what the store holds of it."""

    spec: EncoderSpec
    done: StoreIndex
    output: str = "features"


def write_blocks(store: FeatureStore, stored: Stored, keys: Keys, *, workers: int) -> FeatureBlocks:
    """The blocks of these images' features, gathered where they are not committed yet.

    keys: the image_key of each row of the set, all of them in `stored.done`. A set of one block is gathered here,
    others by Ray tasks, and never as a whole in this process. Raises StorageError.
    """
    spec, output = stored.spec, stored.output
    keys = as_keys(keys)
    parts = (BLOCKS_VERSION, spec.name, spec.fingerprint, output, BLOCK_ROWS)
    blocks = FeatureBlocks.at(
        store.root, spec, output, parts, len(keys), spec.outputs[output], store.storage, keys=keys
    )
    _fill(blocks, store, (stored,), keys, _as_stored, "gathering features", workers, here_rows=BLOCK_ROWS)
    return blocks


def write_view_blocks(
    store: FeatureStore, encoder: Encoder, plain: Stored, small: Stored, keys: Keys, *, workers: int
) -> FeatureBlocks:
    """Blocks of views: for each image of a set, what an encoder makes of it as it is, turned and cropped.

    Their width is views * width, the views of each image one after the other. They are made from stored features and
    stored small pictures, never from the images again. plain, small: the encoder's own features and the small
    pictures; both hold every key. Raises StorageError.

    Cost: 15 views of an image take 2 ms of a core in `pixels` and `patches`, 3 ms in `perceptual_hash`, where encoding
    a 512 x 512 image takes 4 ms without decoding it (measured); 60 bytes of disk for each number of the plain vector;
    and 15 times the products of the plain search, 30 in a space where that search was not mirrored.
    """
    spec, width, rows = plain.spec, plain.spec.outputs["features"], max(1, BLOCK_ROWS // len(VIEWS))
    keys = as_keys(keys)
    parts = (VIEWS_VERSION, spec.name, spec.fingerprint, small.spec.fingerprint, VIEWS, rows)
    blocks = FeatureBlocks.at(
        store.root, spec, "views", parts, len(keys), len(VIEWS) * width, store.storage, rows, keys
    )
    make = partial(view_features, encoder)
    _fill(blocks, store, (plain, small), keys, make, "views of images", workers, here_rows=HERE_IMAGES)
    return blocks


def _as_stored(features: np.ndarray) -> np.ndarray:
    return features


def _fill(
    blocks: FeatureBlocks,
    store: FeatureStore,
    sources: Sequence[Stored],
    keys: pa.StringArray,
    make: Callable[..., np.ndarray],
    what: str,
    workers: int,
    *,
    here_rows: int,
) -> None:
    """Commits the blocks that are missing, by tasks of about GATHER_BYTES: `make` of the same rows of every source.

    here_rows: up to so many rows are made in this process.
    """
    missing = blocks.missing()
    per_task = max(1, GATHER_BYTES // (4 * blocks.width * blocks.block_rows))

    def item(group: list[int]) -> tuple:
        wanted = keys.take(pa.array(np.concatenate([blocks.rows_of(i) for i in group])))
        places = [replace(each, done=each.done.of(wanted)) for each in sources]
        return blocks, group, store, places, wanted, make

    items = (item(missing[start : start + per_task]) for start in range(0, len(missing), per_task))
    here = len(missing) * blocks.block_rows <= here_rows
    for _ in as_they_finish(_gather, items, workers=workers, what=what, here=here):
        pass


def _gather(
    blocks: FeatureBlocks,
    group: list[int],
    store: FeatureStore,
    sources: Sequence[Stored],
    keys: Keys,
    make: Callable[..., np.ndarray],
) -> None:
    """Writes the blocks of `group`; keys: of their rows, block after block."""
    read = [store.read(each.spec, each.output, keys, each.done) for each in sources]
    start = 0
    for i in group:
        stop = start + len(blocks.rows_of(i))
        blocks.write(i, make(*(rows[start:stop] for rows in read)))
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
