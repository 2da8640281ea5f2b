"""Many images at once: fetched and decoded in a pool of threads, one result for each, in the order asked for.

An image is a file, or lies inside one: in a row of a Parquet file or as a member of an archive
(`chexray.data.containers.addresses`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np

from chexray.data import memory
from chexray.data.containers.addresses import Member, embedded_uri, split_embedded, split_member
from chexray.data.containers.array3d import grey_and
from chexray.data.containers.guard import guarded
from chexray.data.containers.members import Run, Shared, by_file, part, runs
from chexray.data.containers.parquet_rows import Cell, Groups, read_rows
from chexray.data.decoding import MAX_PIXELS, Reject, decode, decode_and
from chexray.data.depth import Depth, Facts
from chexray.errors import StorageError
from chexray.storage import Storage, is_remote
from chexray.storage.uris import local_path

__all__ = ["MAX_PIXELS", "Groups", "Reject", "decode", "embedded_uri", "load_and", "load_images", "split_embedded"]

T = TypeVar("T")

PARQUET_READERS = 4
"""Parquet files read at once. Each holds a slice of its column, and one image that waits to be decoded."""
FILE_OVERHEAD = 32_000_000
"""Bytes of a file that are not pixels. What is longer than this and 8 bytes for each pixel allowed is not read."""


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
    groups: Groups | None = None,
) -> list[T | Reject]:
    """What `use(position, pixels)` makes of each image, (height, width) uint8, or why it is not one, in order.

    `use` is called in `threads` threads. Never raises for a bad image or a failed fetch, but for what `use` raises.
    Encoded bytes and pixels are bounded by `chexray.data.memory`, so whatever `use` returns should be small. Each
    Parquet row group that holds wanted rows is read once a call, whatever the order of `uris`; members of an archive
    that lie side by side are read with one range.
    depths: one an image, of its set; None for images that stand alone. facts: one an image, which is filled in.
    groups: of a caller that goes on with the next rows.
    """
    # What was read decodes in threads of its own: it holds its bytes while it waits for one, which must not be one
    # that waits for room to read.
    with ThreadPoolExecutor(threads) as fetch, ThreadPoolExecutor(threads) as unpack:
        loading = _Loading(use, uris, storage, max_pixels, depths, facts, unpack)
        rows: dict[tuple[str, str], list[tuple[int, int]]] = {}
        members: list[tuple[Member, int]] = []
        for position, uri in enumerate(uris):
            if row := split_embedded(uri):
                rows.setdefault((row[0], row[1]), []).append((row[2], position))
            elif member := split_member(uri):
                members.append((member, position))
            else:
                loading.found[position] = fetch.submit(loading.from_file, position)
        of_archives = [fetch.submit(loading.from_run, run) for run in loading.runs(members)]
        with ThreadPoolExecutor(PARQUET_READERS) as readers:
            tasks = [(file, column, wanted, storage, loading.give, groups) for (file, column), wanted in rows.items()]
            largest = {"max_pixels": max_pixels, "max_bytes": loading.limit}
            list(readers.map(lambda task: read_rows(*task, **largest), tasks))
        for task in of_archives:
            task.result()
        return [loading.found[position].result() for position in range(len(uris))]


@dataclass(frozen=True)
class _Loading(Generic[T]):
    """One call of `load_and`: what becomes of each image, once its bytes are at hand or its file is known.

    found: by position. unpack: where what was read inside a container becomes an image.
    """

    use: Callable[[int, np.ndarray], T]
    uris: Sequence[str]
    storage: Storage
    max_pixels: int
    depths: Sequence[Depth | None] | None
    facts: Sequence[Facts] | None
    unpack: ThreadPoolExecutor
    found: dict[int, Future[T | Reject]] = field(default_factory=dict)

    def from_file(self, position: int) -> T | Reject:
        uri = self.uris[position]
        if is_remote(uri):
            return self._pixels(position, guarded(lambda: self.storage.read(uri, most=self.limit)))
        size = _local_size(uri)
        if size > self.limit:
            return _too_long(size, self.limit)
        with memory.files.lease(size):
            return self._pixels(position, guarded(lambda: self.storage.read(uri)))

    def give(self, position: int, cell: Cell) -> None:
        """Takes what a row of Parquet holds."""
        lease = memory.files.lease()
        lease.take(0 if isinstance(cell, Reject) else cell.nbytes if isinstance(cell, np.ndarray) else len(cell))

        def use() -> T | Reject:
            with lease:
                return self._pixels(position, cell)

        self.found[position] = self.unpack.submit(use)

    def runs(self, members: Sequence[tuple[Member, int]]) -> list[Run]:
        """The ranges to read; a member that is too large is a reject and in none of them."""
        fitting = []
        for member, position in members:
            if member.largest > self.limit:
                self.found[position] = self.unpack.submit(_too_long, member.largest, self.limit)
            else:
                fitting.append((member, position))
        return [run for of_file in by_file(fitting) for run in runs(of_file)]

    def from_run(self, run: Run) -> None:
        shared = Shared(run.held, len(run.members))
        file = run.members[0][0].file
        data = guarded(lambda: self.storage.read_range(file, run.start, run.length))
        for member, position in run.members:
            self.found[position] = self.unpack.submit(self._member, position, data, run, member, shared)

    def _member(self, position: int, data: bytes | Reject, run: Run, member: Member, shared: Shared) -> T | Reject:
        try:
            if isinstance(data, Reject):
                return data
            return self._pixels(position, guarded(lambda: member.unpack(part(data, run, member))))
        finally:
            shared.done()

    @property
    def limit(self) -> int:
        return 8 * self.max_pixels + FILE_OVERHEAD

    def _pixels(self, position: int, data: Cell) -> T | Reject:
        if isinstance(data, Reject):
            return data
        facts = self.facts[position] if self.facts else None
        if isinstance(data, np.ndarray):
            return grey_and(lambda image: self.use(position, image), data, max_pixels=self.max_pixels, facts=facts)
        if len(data) > self.limit:
            return _too_long(len(data), self.limit)
        return decode_and(
            lambda image: self.use(position, image), data, max_pixels=self.max_pixels,
            depth=self.depths[position] if self.depths else None, facts=facts,
        )  # fmt: skip


def _whole(_: int, pixels: np.ndarray) -> np.ndarray:
    return pixels


def _local_size(uri: str) -> int:
    """Bytes of a local file; 0 where only reading it will tell."""
    try:
        return os.stat(local_path(uri)).st_size
    except (OSError, ValueError, StorageError):
        return 0


def _too_long(size: int, limit: int) -> Reject:
    return Reject("too_large", f"a file of {size} bytes, more than the {limit} that max_pixels justifies")
