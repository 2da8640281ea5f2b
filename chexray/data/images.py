"""Many images at once: fetched and decoded in a pool of threads, one result for each, in the order asked for.

An image is a file, or bytes inside a Parquet file: `path/to/file.parquet#column=image&row=17`, where the column holds
binary or the Hugging Face struct {bytes, path}.
"""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote, unquote

import numpy as np

from chexray.data.decoding import MAX_PIXELS, Reject, decode
from chexray.errors import StorageError
from chexray.storage import Storage, StorageFailure

__all__ = ["MAX_PIXELS", "Reject", "decode", "embedded_uri", "load_images", "split_embedded"]

_EMBEDDED = re.compile(r"(?P<file>.+)#column=(?P<column>[^&#]+)&row=(?P<row>\d+)", re.DOTALL)
_STORAGE_CODES = ("not_found", "denied", "unavailable", "corrupt")


def embedded_uri(file: str, column: str, row: int) -> str:
    """The URI of the image in `row` (from 0) of a Parquet file's `column`."""
    return f"{file}#column={quote(column, safe='')}&row={row}"


def split_embedded(uri: str) -> tuple[str, str, int] | None:
    """File, column and row of an embedded image; None when `uri` names a file of its own."""
    found = _EMBEDDED.fullmatch(uri)
    return (found["file"], unquote(found["column"]), int(found["row"])) if found else None


def load_images(
    uris: Sequence[str], storage: Storage, *, threads: int = 16, max_pixels: int = MAX_PIXELS
) -> list[np.ndarray | Reject]:
    """Each image as (height, width) uint8, or why it is not one. Never raises for a bad image or a failed fetch.

    Each Parquet row group that holds wanted rows is read once a call, whatever the order of `uris`. All encoded bytes
    of those rows are held at once, so ask for a chunk of images, not for a whole set.
    """
    embedded: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for position, uri in enumerate(uris):
        if parts := split_embedded(uri):
            embedded.setdefault((parts[0], parts[1]), []).append((parts[2], position))
    with ThreadPoolExecutor(threads) as pool:
        fetched: dict[int, bytes | Reject] = {}
        tasks = [(file, column, rows) for (file, column), rows in embedded.items()]
        for found in pool.map(lambda task: _embedded_bytes(task[0], task[1], task[2], storage), tasks):
            fetched.update(found)

        def load(position: int) -> np.ndarray | Reject:
            # Popped, so that each image's encoded bytes are freed as soon as it is decoded.
            data = fetched.pop(position, None)
            if data is None:
                data = _guarded(lambda: storage.read(uris[position]))
            return data if isinstance(data, Reject) else decode(data, max_pixels=max_pixels)

        return list(pool.map(load, range(len(uris))))


def _guarded(fetch: Callable[[], Any]) -> Any:
    """What `fetch` returns, or the Reject of its failure."""
    try:
        return fetch()
    except StorageError as error:
        code = getattr(error, "code", "")
        return Reject(code if code in _STORAGE_CODES else "unreadable", str(error), error.transient)
    except MemoryError:
        return Reject("out_of_memory", "no memory to fetch the image", transient=True)
    except Exception as error:  # one odd name must not lose the whole chunk
        return Reject("unreadable", f"cannot be fetched ({type(error).__name__})")


def _embedded_bytes(
    file: str, column: str, rows: Iterable[tuple[int, int]], storage: Storage
) -> dict[int, bytes | Reject]:
    """{position: bytes or Reject} for `rows`, pairs of row and position, of one column of one Parquet file."""
    rows = sorted(rows)
    found: dict[int, bytes | Reject] = {}

    def everything() -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        with storage.open(file) as source:
            try:
                table = pq.ParquetFile(source)
                if column not in table.schema_arrow.names:
                    names = ", ".join(table.schema_arrow.names)
                    raise StorageFailure(f"no column {column!r} in {file}. Its columns: {names}", code="not_found")
                sizes = [table.metadata.row_group(group).num_rows for group in range(table.num_row_groups)]
                starts = [0, *itertools.accumulate(sizes)]
                for group, members in itertools.groupby(rows, lambda pair: bisect.bisect_right(starts, pair[0]) - 1):
                    if group == len(sizes):
                        missing = Reject("not_found", f"{file} has only {starts[-1]} rows")
                        found.update({position: missing for _, position in members})
                        continue
                    values = table.read_row_group(group, columns=[column]).column(column)
                    found.update({p: _image_bytes(values[row - starts[group]].as_py()) for row, p in members})
            except pa.ArrowException as error:
                raise StorageFailure(f"{file} is not a readable Parquet file", code="corrupt") from error

    failure = _guarded(everything) or Reject("unreadable", f"{file} gave nothing for the row")
    return {position: found.get(position, failure) for _, position in rows}


def _image_bytes(value: Any) -> bytes | Reject:
    """The bytes of one cell."""
    if isinstance(value, dict):
        if value.get("bytes") is None and value.get("path"):
            return Reject("not_found", "the row names a path but embeds no bytes")
        value = value.get("bytes")
    if value is None:
        return Reject("empty", "the row is null")
    return value if isinstance(value, bytes) else Reject("not_an_image", f"a {type(value).__name__}, not bytes")
