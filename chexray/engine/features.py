"""The feature store: each image's features, once per encoder, as Parquet parts whose presence is the commit.

    <root>/<encoder>-<fingerprint>/encoder.json
                                   rejects-<chunk>.parquet   where there are any: written first
                                   part-<chunk>.parquet      written last: this file is the commit

Keys are `image_key`s (location, size and version of the bytes), and the folder's fingerprint covers weights,
preprocessing, precision and code version: features of a changed image or another network are never served.
A rejected image is done unless its reason was transient (a bucket that was down); those are tried again.

Two runs may encode the same images at the same time. No file is replaced, so no row moves under a reader; a run that
finds other rejects or other rows under the name of its chunk calls its own <chunk>_<outcome>.

Whoever can write to a store decides the numbers, so nothing in it is taken on trust that can be checked: only files
directly in the folder count, their columns have the types and widths of the spec, the images of a chunk are those that
its name is the digest of, no value is null, NaN or infinite, and where two runs encoded one image, both values agree.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from chexray.encoders.base import EncoderSpec
from chexray.engine.committed import read_committed
from chexray.engine.store_index import Found, Keys, Places, StoreIndex, as_keys, pending
from chexray.errors import StorageError
from chexray.storage import Storage, StorageFailure, join, parent

__all__ = ["STORED_REJECTS", "FeatureStore", "StoreIndex", "chunk_name", "outcome_name", "pending", "types_of"]

STORED_REJECTS = pa.schema(
    [
        ("image_key", pa.string()), ("stage", pa.string()), ("code", pa.string()), ("detail", pa.string()),
        ("transient", pa.bool_()),
    ]
)  # fmt: skip


_PART = re.compile(r"part-([0-9a-f]{16})(?:_([0-9a-f]{16}))?\.parquet")

TOLERANCE = {"fp32": 1e-3, "tf32": 1e-2, "bf16": 5e-2}
"""Largest distance, relative to their length, of two encodings of one image: other batches and devices round otherwise
(1e-5 measured in fp32, 1e-2 in bf16); another image or network is further off by orders of magnitude."""


AGAIN = "Delete this part of the feature store; it will be encoded again."


def chunk_name(keys: Sequence[str]) -> str:
    """Name of the chunk that holds exactly these images: 16 hex digits over the sorted keys."""
    digest = hashlib.blake2b(digest_size=8)
    for key in sorted(keys):
        digest.update(key.encode())
    return digest.hexdigest()


def outcome_name(keys: Iterable[str], rejects: Iterable[dict]) -> str:
    """16 hex digits over which images of a chunk are encoded and what the rows of its rejects say."""
    return chunk_name([*(f"encoded {key}" for key in keys), *(json.dumps(each, sort_keys=True) for each in rejects)])


@dataclass(frozen=True)
class FeatureStore:
    """Features below `root`, a local path or an S3 URL. Safe for many writers of different chunks."""

    root: str
    storage: Storage

    def folder(self, spec: EncoderSpec) -> str:
        return join(self.root, f"{spec.name}-{spec.fingerprint}")

    def describe(self, spec: EncoderSpec) -> None:
        """Writes encoder.json, so that a folder says what it holds."""
        path = join(self.folder(spec), "encoder.json")
        if not self.storage.exists(path):
            self.storage.write(path, json.dumps(spec.described(), indent=2, default=str).encode())

    def commit(
        self, spec: EncoderSpec, keys: Sequence[str], features: dict[str, np.ndarray], rejects: list[dict]
    ) -> None:
        """Stores one chunk, named after its images. keys: the n that are encoded; rejects: a row of STORED_REJECTS for
        each of the others, and for each of the n that was clipped; features: {output: (n, width) of the spec's
        output_dtype}. Rows are stored in the order of their keys; a part that is there is left as it is."""
        rejected = {str(reject["image_key"]) for reject in rejects}
        order = sorted(range(len(keys)), key=lambda row: keys[row])
        columns = {"image_key": pa.array([keys[row] for row in order], pa.string())}
        for output, width in spec.outputs.items():
            block = np.asarray(features[output], dtype=spec.output_dtype)
            if block.shape != (len(keys), width):
                raise ValueError(f"{spec.name}.{output}: shape {block.shape}, spec says {(len(keys), width)}")
            columns[output] = _to_column(np.ascontiguousarray(block[order]))
        part, chunk = pa.table(columns), chunk_name(list({*keys, *rejected}))
        lost = pa.Table.from_pylist(rejects, STORED_REJECTS)
        if not self._put(spec, chunk, part, lost):
            self._put(spec, f"{chunk}_{outcome_name(keys, lost.to_pylist())}", part, lost)

    def _put(self, spec: EncoderSpec, name: str, part: pa.Table, rejects: pa.Table) -> bool:
        """Writes the files of a chunk under this name; False when others are there.

        A part is written beside the rejects that it was made with, or with none and all its images: whichever of two
        runs comes first, both files agree.
        """
        uri, rejects_uri = (join(self.folder(spec), f"{kind}-{name}.parquet") for kind in ("part", "rejects"))
        if len(rejects) and not (
            self.storage.write_parquet(rejects_uri, rejects, new=True)
            or self._rejects(rejects_uri) == rejects.to_pylist()
        ):
            return False
        return self.storage.write_parquet(uri, part, new=True) or self._keys(spec, uri) == part["image_key"].to_pylist()

    def _keys(self, spec: EncoderSpec, uri: str) -> list[str]:
        return self._read(uri, ["image_key"], types_of(spec))["image_key"].to_pylist()

    def _rejects(self, uri: str) -> list[dict]:
        types = {field.name: field.type for field in STORED_REJECTS}
        return self._read(uri, STORED_REJECTS.names, types).to_pylist()

    def done(self, spec: EncoderSpec) -> StoreIndex:
        """What is committed for this encoder. A rejects file without its part was never committed and is ignored.

        Raises StorageError, naming the file to delete, for a chunk that is not what its name and the spec say.
        """
        folder = self.folder(spec)
        # What lies in a folder below is no part of this store.
        names = {stat.uri.rsplit("/", 1)[1] for stat in self.storage.list(folder) if parent(stat.uri) == folder}
        parts = sorted(name for name in names if _PART.fullmatch(name))
        found = Found()
        with ThreadPoolExecutor(16) as pool:
            for keys, rejects in pool.map(lambda name: self._chunk(spec, folder, name, names), parts):
                found.add(keys, rejects)
        done, again = found.index([join(folder, name) for name in parts])
        self._compare(spec, done, again)
        return done

    def _chunk(self, spec: EncoderSpec, folder: str, name: str, names: set[str]) -> tuple[pa.StringArray, list[dict]]:
        """Keys and rejects of a committed chunk."""
        part, rejects_name = join(folder, name), name.replace("part-", "rejects-", 1)
        chunk, outcome = _PART.fullmatch(name).groups()  # pyright: ignore[reportOptionalMemberAccess]
        column = self._read(part, ["image_key"], types_of(spec))["image_key"].combine_chunks()
        known = column.to_pylist()
        if None in known:
            raise self._foreign(part, "it has a row without a value")
        # A listing is no snapshot: it may lack the rejects that were written before the part it names.
        incomplete = chunk_name(known) != chunk or outcome not in (None, outcome_name(known, ()))
        rejects: list[dict] = []
        if rejects_name in names or (incomplete and self.storage.exists(join(folder, rejects_name))):
            rejects = self._rejects(join(folder, rejects_name))
        if any(value is None for reject in rejects for value in reject.values()):
            raise self._foreign(part, "it has a row without a value")
        rejected = {reject["image_key"] for reject in rejects}
        # Rejects that an interrupted try at this chunk wrote may name images that are encoded now.
        if len(set(known)) < len(known) or chunk_name(list({*known, *rejected})) != chunk:
            raise self._foreign(part, "its images do not match its name")
        if outcome and outcome_name(known, rejects) != outcome:
            raise self._foreign(part, "its rejects do not match its name")
        return column, rejects

    def _compare(self, spec: EncoderSpec, done: StoreIndex, again: Places) -> None:
        """Raises StorageError unless each second value of an image agrees with the first: two runs at once, or one
        interrupted, may encode an image in two chunks."""
        if not len(again.keys):
            return
        where, rows = done.places.find(again.keys), np.arange(len(again.keys))
        for output in spec.outputs:
            first = self._gather(spec, output, done.places, where)
            second = self._gather(spec, output, again, rows)
            if spec.output_dtype == "uint8":
                apart = (first != second).any(axis=1)
            else:
                # In float64, whose range no square of a float32 leaves.
                first, second = first.astype(np.float64), second.astype(np.float64)
                limit = TOLERANCE.get(spec.precision, 1e-3) * np.linalg.norm(first, axis=1)
                apart = ~(np.linalg.norm(first - second, axis=1) <= limit)
            if apart.any():
                place = int(np.argmax(apart))
                one, other = done.places.parts[done.places.part[where[place]]], again.parts[again.part[place]]
                raise StorageError(
                    f"{one} and {other} hold different {output} of one image. One "
                    "of them is not what this encoder computes: delete both; their images will be encoded again."
                )

    def read(self, spec: EncoderSpec, output: str, keys: Keys, done: StoreIndex) -> np.ndarray:
        """Features of `keys`, (n, width) of the spec's output_dtype, in order. Every key must be in `done.rows`.

        Raises StorageError for a part that is not of the spec's type and width, or has null, NaN or infinite values.
        """
        where = done.places.find(keys)
        if (where < 0).any():
            raise KeyError(as_keys(keys)[int(np.argmin(where))].as_py())
        return self._gather(spec, output, done.places, where)

    def _gather(self, spec: EncoderSpec, output: str, places: Places, where: np.ndarray) -> np.ndarray:
        """The vectors at these positions of the index, (n, width)."""
        matrix = np.empty((len(where), spec.outputs[output]), spec.output_dtype)
        part_of = places.part[where]
        order = np.argsort(part_of, kind="stable")
        numbers, starts = np.unique(part_of[order], return_index=True)
        stops = [*starts[1:], len(order)][: len(starts)]
        by_part = {int(number): order[start:stop] for number, start, stop in zip(numbers, starts, stops, strict=True)}
        types = {output: types_of(spec)[output]}

        def fill(number: int) -> None:
            part, targets = places.parts[number], by_part[number]
            column = self._read(part, [output], types)[output].combine_chunks()
            rows = places.row[where[targets]]
            if column.null_count or (spec.output_dtype != "uint8" and column.flatten().null_count):
                raise self._foreign(part, "it has a row without a value")
            if rows.max() >= len(column):
                raise self._foreign(part, "it lost rows while it was read")
            block = _to_block(column, spec.output_dtype)[rows]
            if not np.isfinite(block).all():
                raise self._foreign(part, "it holds NaN or infinity")
            matrix[targets] = block

        with ThreadPoolExecutor(8) as pool:
            for _ in pool.map(fill, sorted(by_part)):
                pass
        return matrix

    def _read(self, uri: str, columns: list[str], types: dict[str, pa.DataType]) -> pa.Table:
        return read_committed(self.storage, uri, {name: types[name] for name in columns}, AGAIN)

    @staticmethod
    def _foreign(part: str, why: str) -> StorageFailure:
        return StorageFailure(f"{part} is refused: {why}. {AGAIN}", code="refused")


def types_of(spec: EncoderSpec) -> dict[str, pa.DataType]:
    """The columns of a part of this encoder, and their types."""
    return {"image_key": pa.string(), **{output: _column_type(spec, width) for output, width in spec.outputs.items()}}


def _column_type(spec: EncoderSpec, width: int) -> pa.DataType:
    if spec.output_dtype == "uint8":
        return pa.binary(width)
    return pa.list_(pa.from_numpy_dtype(spec.output_dtype), width)


def _to_column(block: np.ndarray) -> pa.Array:
    """(n, width) as an Arrow column: lists of floats, or bytes, since Parquet would widen uint8 to 32 bits."""
    n, width = block.shape
    if block.dtype == np.uint8:
        return pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), n, [None, pa.py_buffer(block)])
    return pa.FixedSizeListArray.from_arrays(pa.array(block.reshape(-1)), width)


def _to_block(column: pa.Array, dtype: str) -> np.ndarray:
    """The inverse of `_to_column`, without a copy."""
    if dtype == "uint8":
        width = column.type.byte_width
        data = np.frombuffer(column.buffers()[1], np.uint8) if len(column) else np.empty(0, np.uint8)
        return data.reshape(-1, width)[column.offset : column.offset + len(column)]
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)
