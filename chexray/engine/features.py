"""The feature store: each image's features, once per encoder, as Parquet parts whose presence is the commit.

    <root>/<encoder>-<fingerprint>/encoder.json
                                   rejects-<chunk>.parquet   written first
                                   part-<chunk>.parquet      written last: this file is the commit

Keys are `image_key`s (location, size and version of the bytes), and the folder's fingerprint covers weights,
preprocessing, precision and code version: features of a changed image or another network are never served.
A rejected image is done unless its reason was transient (a bucket that was down); those are tried again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field

import numpy as np
import pyarrow as pa

from chexray.encoders.base import EncoderSpec
from chexray.errors import StorageError
from chexray.storage import Storage, basename, join

STORED_REJECTS = pa.schema(
    [
        ("image_key", pa.string()),
        ("stage", pa.string()),
        ("code", pa.string()),
        ("detail", pa.string()),
        ("transient", pa.bool_()),
    ]
)


def chunk_name(keys: Sequence[str]) -> str:
    """Name of the chunk that holds exactly these images: 16 hex digits over the sorted keys."""
    digest = hashlib.blake2b(digest_size=8)
    for key in sorted(keys):
        digest.update(key.encode())
    return digest.hexdigest()


@dataclass
class Done:
    """What a store holds for one encoder: image_key -> (part, row), and the final rejects by image_key."""

    rows: dict[str, tuple[str, int]] = field(default_factory=dict)
    rejects: dict[str, dict[str, object]] = field(default_factory=dict)

    def covers(self, key: str) -> bool:
        return key in self.rows or (key in self.rejects and not self.rejects[key]["transient"])


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
            self.storage.write(path, json.dumps(asdict(spec), indent=2, default=str).encode())

    def commit(
        self, spec: EncoderSpec, keys: Sequence[str], features: dict[str, np.ndarray], rejects: list[dict], chunk: str
    ) -> None:
        """Stores one chunk. keys: the n images encoded; features: {output: (n, width) of the spec's output_dtype}."""
        folder = self.folder(spec)
        columns = {"image_key": pa.array(keys, pa.string())}
        for output, width in spec.outputs.items():
            block = np.ascontiguousarray(features[output], dtype=spec.output_dtype)
            if block.shape != (len(keys), width):
                raise ValueError(f"{spec.name}.{output}: shape {block.shape}, spec says {(len(keys), width)}")
            columns[output] = _to_column(block)
        if rejects:
            table = pa.Table.from_pylist(rejects, STORED_REJECTS)
            self.storage.write_parquet(join(folder, f"rejects-{chunk}.parquet"), table)
        self.storage.write_parquet(join(folder, f"part-{chunk}.parquet"), pa.table(columns))

    def done(self, spec: EncoderSpec) -> Done:
        """What is committed for this encoder. A rejects file without its part was never committed and is ignored."""
        files = {basename(stat.uri): stat.uri for stat in self.storage.list(self.folder(spec))}
        parts = sorted(name for name in files if name.startswith("part-") and name.endswith(".parquet"))
        done = Done()
        chunks = {name.removeprefix("part-") for name in parts}
        reject_files = sorted(name for name in files if name.removeprefix("rejects-") in chunks)
        with ThreadPoolExecutor(16) as pool:
            keys = pool.map(lambda name: self._read(files[name], ["image_key"]), parts)
            for name, table in zip(parts, keys, strict=True):
                for row, key in enumerate(table["image_key"].to_pylist()):
                    done.rows.setdefault(key, (files[name], row))
            for table in pool.map(lambda name: self._read(files[name], None), reject_files):
                for reject in table.to_pylist():
                    if reject["image_key"] not in done.rows:
                        done.rejects[reject["image_key"]] = reject
        return done

    def read(self, spec: EncoderSpec, output: str, keys: Sequence[str], done: Done) -> np.ndarray:
        """Features of `keys`, (n, width) of the spec's output_dtype, in order. Every key must be in `done.rows`."""
        matrix = np.empty((len(keys), spec.outputs[output]), spec.output_dtype)
        by_part: dict[str, list[tuple[int, int]]] = {}
        for target, key in enumerate(keys):
            part, row = done.rows[key]
            by_part.setdefault(part, []).append((target, row))

        def fill(part: str) -> None:
            block = _to_block(self._read(part, [output])[output].combine_chunks(), spec.output_dtype)
            targets, rows = np.array(by_part[part]).T
            matrix[targets] = block[rows]

        with ThreadPoolExecutor(8) as pool:
            for _ in pool.map(fill, sorted(by_part)):
                pass
        return matrix

    def _read(self, uri: str, columns: list[str] | None) -> pa.Table:
        try:
            return self.storage.read_parquet(uri, columns)
        except StorageError as error:
            if error.transient:
                raise
            raise StorageError(f"{error} Delete this part of the feature store; it will be encoded again.") from None


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


def pending(keys: Iterable[str], done: Done) -> list[str]:
    """The distinct keys that still need encoding, in their first order."""
    return [key for key in dict.fromkeys(keys) if not done.covers(key)]
