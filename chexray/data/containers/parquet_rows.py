"""Images in the rows of a Parquet column: bytes, the Hugging Face struct {bytes, path}, or pixels as nested lists.

Parquet brings a row group at once, often 100 MB, and decodes it in slices of a few rows. So a group is read once for
all rows of a call that lie in it, and `Groups` keeps it from one call to the next.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
import pyarrow as pa

from chexray.data import memory
from chexray.data.containers.array3d import is_pixels, pixels_of, values_of
from chexray.data.containers.guard import guarded
from chexray.data.rejects import Reject
from chexray.errors import StorageError
from chexray.storage import Storage
from chexray.text import shown

Cell = bytes | np.ndarray | Reject
"""What a row holds: an encoded image, pixels (height, width[, 3]) uint8, or why it holds none."""
KEPT = 2
"""Row groups that `Groups` keeps, each with the bytes of its column."""
THREADS = 8
LARGE_ROW = 4_000_000
"""Numbers of a picture from which on its reading counts among the bytes that are held: few are read at once then."""
VALUE_BYTES = 32
"""Bytes that a nested number takes while it is read, with levels and copies: 17 of uint8, 31 of int64 measured."""


def read_rows(
    file: str,
    column: str,
    rows: Iterable[tuple[int, int]],
    storage: Storage,
    give: Callable[[int, Cell], None],
    groups: Groups | None = None,
    *,
    max_pixels: int,
    max_bytes: int,
) -> None:
    """Gives (position, cell) for each of `rows`, pairs of row and position, of one column of a Parquet file.

    Each row group that holds wanted rows is read once. `give` may wait, and what was not given yet is not held.
    max_pixels, max_bytes: of a picture, and of a file in a cell. The rows of a group that hold more on average are
    rejects, and the group is not read.
    """
    rows = sorted(rows)
    given: set[int] = set()

    def everything() -> None:
        opened = (groups.take(file, column) if groups else None) or _Open(file, column, storage)
        try:
            for position, cell in opened.cells(rows, max_pixels, max_bytes):
                given.add(position)
                give(position, cell)
        except BaseException:
            opened.close()
            raise
        groups.keep(opened) if groups else opened.close()

    failure = guarded(everything) or Reject("unreadable", f"{shown(file)} gave nothing for the row")
    for _, position in rows:
        if position not in given:
            give(position, failure)


class Groups:
    """Row groups that one caller goes on reading: its next call finds them where the last one stopped."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, str], _Open] = {}

    def take(self, file: str, column: str) -> _Open | None:
        return self._open.pop((file, column), None)

    def keep(self, opened: _Open) -> None:
        self._open[opened.file, opened.column] = opened
        while len(self._open) > KEPT:
            self._open.pop(next(iter(self._open))).close()

    def close(self) -> None:
        while self._open:
            self._open.popitem()[1].close()


class _Open:
    """A column of a Parquet file, and how far its present row group was read."""

    def __init__(self, file: str, column: str, storage: Storage):
        self.file, self.column = file, column
        self._closing = ExitStack()
        self.table = self._closing.enter_context(storage.open_parquet(file))
        try:
            self.table.need([column])
        except BaseException:
            self.close()
            raise
        self.starts = [0, *itertools.accumulate(self.table.group_rows)]
        self._group = -1
        self._batches: Iterator[pa.Array] = iter(())
        self._begin = 0
        self._values: pa.Array | None = None

    def close(self) -> None:
        self._batches, self._values = iter(()), None
        self._closing.close()

    def cells(self, rows: Sequence[tuple[int, int]], max_pixels: int, max_bytes: int) -> Iterator[tuple[int, Cell]]:
        """(position, cell) of ascending pairs of row and position."""
        kind = self.table.schema.field(self.column).type
        largest = values_of(kind, max_pixels) if is_pixels(kind) else None
        refused: dict[int, Reject | None] = {}
        for row, position in rows:
            group = bisect.bisect_right(self.starts, row) - 1
            if group == len(self.table.group_rows):
                yield position, Reject("not_found", f"{shown(self.file)} has only {self.starts[-1]} rows")
                continue
            if group not in refused:
                refused[group] = self._too_large(group, largest, max_bytes)
            yield position, refused[group] or self._cell(group, row - self.starts[group], max_pixels)

    def _too_large(self, group: int, most_values: int | None, most_bytes: int) -> Reject | None:
        """Why a row group is not read: a few hundred bytes may hold gigabytes of one number."""
        values, n_bytes = self.table.mean_row(group, self.column)
        if most_values is None and n_bytes > most_bytes:
            return Reject("too_large", f"rows of {n_bytes:,.0f} bytes, more than the {most_bytes:,} allowed")
        if most_values is not None and values > most_values:
            return Reject("too_large", f"rows of {values:,.0f} numbers, more than the {most_values:,} of max_pixels")
        return None

    def _cell(self, group: int, row: int, max_pixels: int) -> Cell:
        """What a row of a group holds. Slices before it are decoded and dropped: one repeated value may expand to
        gigabytes."""
        if group != self._group or row < self._begin:
            self._group, self._begin, self._values = group, 0, None
            self._batches = self.table.batches(group, self.column)
        while self._values is None or row >= self._begin + len(self._values):
            self._begin += 0 if self._values is None else len(self._values)
            self._values = None  # before the next slice is decoded
            with memory.files.lease(self._held(group)):  # nothing is waited for while this is held
                following = next(self._batches, None)
            if following is None:
                self._group = -1
                return Reject("unreadable", f"{shown(self.file)} gave nothing for the row")
            self._values = following
        if is_pixels(self._values.type):
            return pixels_of(self._values.slice(row - self._begin, 1), max_pixels)
        return _image_bytes(self._values[row - self._begin].as_py())

    def _held(self, group: int) -> int:
        """Bytes that reading a large picture takes, 0 for others, whose slices are small."""
        if not is_pixels(self.table.schema.field(self.column).type):
            return 0
        values, _ = self.table.mean_row(group, self.column)
        return int(values) * VALUE_BYTES if values >= LARGE_ROW else 0


def group_starts(files: Iterable[str], storage: Storage) -> dict[str, list[int]]:
    """{file: the first row of each of its row groups, and how many rows it has}; files that cannot be read are left
    out."""

    def starts(file: str) -> list[int] | None:
        try:
            with storage.open_parquet(file) as table:
                return [0, *itertools.accumulate(table.group_rows)]
        except StorageError:  # its images become rejects, one by one
            return None

    names = list(files)
    with ThreadPoolExecutor(THREADS) as pool:
        return {file: found for file, found in zip(names, pool.map(starts, names), strict=True) if found}


def _image_bytes(value: object) -> bytes | Reject:
    """The bytes of one cell."""
    if isinstance(value, dict):
        if value.get("bytes") is None and value.get("path"):
            return Reject("not_found", "the row names a path but embeds no bytes")
        value = value.get("bytes")
    if value is None:
        return Reject("empty", "the row is null")
    return value if isinstance(value, bytes) else Reject("not_an_image", f"a {type(value).__name__}, not bytes")
