"""Many images at once: fetched and decoded in a pool of threads, one result for each, in the order asked for.

An image is a file, or bytes inside a Parquet file: `path/to/file.parquet#column=image&row=17`, where the column holds
binary or the Hugging Face struct {bytes, path}.
"""

from __future__ import annotations

import bisect
import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import quote, unquote

import numpy as np

from chexray.data import memory
from chexray.data.decoding import MAX_PIXELS, Reject, decode, decode_and
from chexray.data.depth import Depth, Facts
from chexray.errors import StorageError
from chexray.storage import Storage, is_remote
from chexray.storage.uris import local_path
from chexray.text import shown

if TYPE_CHECKING:
    from chexray.storage.parquet import ParquetFile

__all__ = ["MAX_PIXELS", "Reject", "decode", "embedded_uri", "load_and", "load_images", "split_embedded"]

T = TypeVar("T")

PARQUET_READERS = 4
"""Parquet files read at once. Each holds a slice of its column, and one image that waits to be decoded."""
FILE_OVERHEAD = 32_000_000
"""Bytes of a file that are not pixels. What is longer than this and 8 bytes for each pixel allowed is not read."""

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
    uris: Sequence[str],
    storage: Storage,
    *,
    threads: int = 16,
    max_pixels: int = MAX_PIXELS,
    depth: Depth | None = None,
) -> list[np.ndarray | Reject]:
    """Each image as (height, width) uint8, or why it is not one. Never raises for a bad image or a failed fetch.

    All images come back at their own size, so ask for a few, or use `load_and`. depth: of the set they are from.
    """
    return load_and(_whole, uris, storage, threads=threads, max_pixels=max_pixels, depths=[depth] * len(uris))


def load_and(
    use: Callable[[int, np.ndarray], T],
    uris: Sequence[str],
    storage: Storage,
    *,
    threads: int = 16,
    max_pixels: int = MAX_PIXELS,
    depths: Sequence[Depth | None] | None = None,
    facts: Sequence[Facts] | None = None,
) -> list[T | Reject]:
    """What `use(position, pixels)` makes of each image, (height, width) uint8, or why it is not one, in order.

    `use` is called in `threads` threads. Never raises for a bad image or a failed fetch, but for what `use` raises.
    Encoded bytes and pixels are bounded by `chexray.data.memory`, so whatever `use` returns should be small. Each
    Parquet row group that holds wanted rows is read once a call, whatever the order of `uris`.
    depths: one an image, of its set; None for images that stand alone. facts: one an image, which is filled in.
    """
    loading = _Loading(use, uris, storage, max_pixels, depths, facts)
    embedded: dict[tuple[str, str], list[tuple[int, int]]] = {}
    found: dict[int, Future[T | Reject]] = {}
    # Rows have threads of their own: they hold their bytes while they wait for a thread, which must not be one that
    # waits for room to read a file.
    with ThreadPoolExecutor(threads) as pool, ThreadPoolExecutor(threads) as of_rows:
        for position, uri in enumerate(uris):
            if parts := split_embedded(uri):
                embedded.setdefault((parts[0], parts[1]), []).append((parts[2], position))
            else:
                found[position] = pool.submit(loading.from_file, position)

        def give(position: int, data: bytes | Reject) -> None:
            lease = memory.files.lease()
            lease.take(0 if isinstance(data, Reject) else len(data))
            found[position] = of_rows.submit(loading.from_row, position, data, lease)

        with ThreadPoolExecutor(PARQUET_READERS) as readers:
            tasks = [(file, column, rows, storage, give) for (file, column), rows in embedded.items()]
            list(readers.map(lambda task: _embedded_bytes(*task), tasks))
        return [found[position].result() for position in range(len(uris))]


@dataclass(frozen=True)
class _Loading(Generic[T]):
    """One call of `load_and`: what becomes of each image, once its bytes are at hand or its file is known."""

    use: Callable[[int, np.ndarray], T]
    uris: Sequence[str]
    storage: Storage
    max_pixels: int
    depths: Sequence[Depth | None] | None
    facts: Sequence[Facts] | None

    def from_file(self, position: int) -> T | Reject:
        uri = self.uris[position]
        size = _local_size(uri)
        if size > self._limit:
            return _too_long(size, self._limit)
        with memory.files.lease(size):
            return self._pixels(position, _guarded(lambda: self.storage.read(uri)))

    def from_row(self, position: int, data: bytes | Reject, lease: memory.Lease) -> T | Reject:
        with lease:
            return self._pixels(position, data)

    @property
    def _limit(self) -> int:
        return 8 * self.max_pixels + FILE_OVERHEAD

    def _pixels(self, position: int, data: bytes | Reject) -> T | Reject:
        if isinstance(data, Reject):
            return data
        if len(data) > self._limit:
            return _too_long(len(data), self._limit)
        return decode_and(
            lambda image: self.use(position, image), data, max_pixels=self.max_pixels,
            depth=self.depths[position] if self.depths else None,
            facts=self.facts[position] if self.facts else None,
        )  # fmt: skip


def _whole(_: int, pixels: np.ndarray) -> np.ndarray:
    return pixels


def _local_size(uri: str) -> int:
    """Bytes of a local file; 0 where only reading it will tell."""
    try:
        return 0 if is_remote(uri) else os.stat(local_path(uri)).st_size
    except (OSError, ValueError, StorageError):
        return 0


def _too_long(size: int, limit: int) -> Reject:
    return Reject("too_large", f"a file of {size} bytes, more than the {limit} that max_pixels justifies")


def _guarded(fetch: Callable[[], object]) -> Any:
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
    file: str,
    column: str,
    rows: Iterable[tuple[int, int]],
    storage: Storage,
    give: Callable[[int, bytes | Reject], None],
) -> None:
    """Gives (position, bytes or Reject) for each of `rows`, pairs of row and position, of one column of a Parquet file.

    `give` may wait, and what was not given yet is not held.
    """
    rows = sorted(rows)
    given: set[int] = set()

    def everything() -> None:
        with storage.open_parquet(file) as table:
            table.need([column])
            starts = [0, *itertools.accumulate(table.group_rows)]
            for group, members in itertools.groupby(rows, lambda pair: bisect.bisect_right(starts, pair[0]) - 1):
                if group == len(table.group_rows):
                    missing = Reject("not_found", f"{shown(file)} has only {starts[-1]} rows")
                    for _, position in members:
                        given.add(position)
                        give(position, missing)
                    continue
                for position, data in _of_group(table, group, column, [(row - starts[group], p) for row, p in members]):
                    given.add(position)
                    give(position, data)

    failure = _guarded(everything) or Reject("unreadable", f"{shown(file)} gave nothing for the row")
    for _, position in rows:
        if position not in given:
            give(position, failure)


def _of_group(
    table: ParquetFile, group: int, column: str, rows: list[tuple[int, int]]
) -> Iterator[tuple[int, bytes | Reject]]:
    """(position, bytes or Reject) for `rows`, ascending pairs of row in the group and position. Slices of the group
    that hold none of them are decoded and dropped: a repeated value may expand to gigabytes."""
    start, waiting = 0, iter(rows)
    row, position = next(waiting)
    for values in table.batches(group, column):
        while row < start + len(values):
            yield position, _image_bytes(values[row - start].as_py())
            following = next(waiting, None)
            if following is None:
                return
            row, position = following
        start += len(values)


def _image_bytes(value: object) -> bytes | Reject:
    """The bytes of one cell."""
    if isinstance(value, dict):
        if value.get("bytes") is None and value.get("path"):
            return Reject("not_found", "the row names a path but embeds no bytes")
        value = value.get("bytes")
    if value is None:
        return Reject("empty", "the row is null")
    return value if isinstance(value, bytes) else Reject("not_an_image", f"a {type(value).__name__}, not bytes")
