"""The nearest reference of every query, over sets of any size, on Ray tasks that stream the references.

A stripe of queries meets all blocks of references, one read while the other is searched, and commits what it found:

    <root>/search/<key>/stripe-00000.parquet     row, squared, reference

The file is the commit: a stripe that has one is not searched again. Stripes are cut by a constant and each is exact by
itself, so neither the number of workers nor the loss of one can reach a value.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import torch

from chexray.engine.blocks import FeatureBlocks, block_order
from chexray.engine.committed import names_in, read_committed
from chexray.engine.progress import Progress
from chexray.engine.tasks import as_they_finish
from chexray.errors import RunFailed, StorageError
from chexray.stats.nearest import Block, NearestRows, nearest_in_blocks
from chexray.storage import Storage, basename, join

STRIPE_TYPES = {"row": pa.int64(), "squared": pa.float64(), "reference": pa.int64()}

SEARCH_VERSION = 1
"""Part of every key: raise it when a change of the code changes what is found."""

STRIPE_ROWS = 2048
"""Queries of a stripe: 26 GFLOP for each block of 8192 x 768, against 25 MB to read."""

SMALL_FLOP = 1e11
"""Work in products, over all searches of a call, below which it is done in this process: 1.5 s of a core, while two
workers take as long to start and import torch (measured: 1.6 s, and 4 CPU-s)."""


@dataclass(frozen=True, eq=False)
class Search:
    """Which rows of `references` are nearest to the rows of `queries`, and which pairs do not count.

    query_codes, reference_codes: (n,) int64 by row of each set, both or neither; a reference with its query's code is
    excluded (the same patient, or the query itself). query_rows: distinct rows to search for; None is all of them.
    signs: (width,) of +-1 by which queries are multiplied first; order: (width,) a permutation of their entries (a
    hash, a grid, as its mirrored image would have it).
    views: vectors that the references hold for each of their rows, one after the other, each as wide as a query; what
    is found is then row * views + view.
    """

    queries: FeatureBlocks
    references: FeatureBlocks
    query_codes: np.ndarray | None = None
    reference_codes: np.ndarray | None = None
    query_rows: np.ndarray | None = None
    signs: np.ndarray | None = None
    order: np.ndarray | None = None
    views: int = 1

    def __post_init__(self) -> None:
        if self.queries.width * self.views != self.references.width:
            of = f" for {self.views} views" if self.views > 1 else ""
            raise ValueError(f"queries have width {self.queries.width}, references {self.references.width}{of}")
        if (self.query_codes is None) != (self.reference_codes is None):
            raise ValueError("codes for both sides, or for neither")
        for codes, blocks in ((self.query_codes, self.queries), (self.reference_codes, self.references)):
            if codes is not None and codes.shape != (blocks.n,):
                raise ValueError(f"{codes.shape} codes for {blocks.n} rows")
        if self.signs is not None and (self.signs.shape != (self.queries.width,) or np.any(np.abs(self.signs) != 1)):
            raise ValueError(f"signs must be {self.queries.width} values of +1 or -1")
        if self.order is not None and not np.array_equal(np.sort(self.order), np.arange(self.queries.width)):
            raise ValueError(f"order must be a permutation of 0 to {self.queries.width - 1}")
        rows = self.query_rows
        if rows is not None and (len(np.unique(rows)) < len(rows) or np.any((rows < 0) | (rows >= self.queries.n))):
            raise ValueError(f"query_rows must be distinct rows of a set of {self.queries.n}")

    @property
    def key(self) -> str:
        """16 hex digits over everything that reaches what is found, and where stripes begin."""
        digest = hashlib.blake2b(digest_size=8)
        digest.update(f"{SEARCH_VERSION} {STRIPE_ROWS} {self.queries.digest} {self.references.digest}".encode())
        rows = None if self.query_rows is None else np.sort(self.query_rows)
        for array, dtype in (
            (self.query_codes, "<i8"),
            (self.reference_codes, "<i8"),
            (rows, "<i8"),
            (self.signs, "i1"),
        ):
            digest.update(b"-" if array is None else f"{len(array)}:".encode() + array.astype(dtype).tobytes())
        if self.order is not None or self.views > 1:  # searches without either keep the keys they had before
            order = b"-" if self.order is None else self.order.astype("<i8").tobytes()
            digest.update(f"views {self.views} order ".encode() + order)
        return digest.hexdigest()

    def stripes(self) -> list[np.ndarray]:
        """The rows to search for, in the order of the queries' blocks, so that a stripe reads few of them."""
        rows = block_order(self.queries.n)
        if self.query_rows is not None:
            asked = np.zeros(self.queries.n, bool)
            asked[self.query_rows] = True
            rows = rows[asked[rows]]
        return [rows[start : start + STRIPE_ROWS] for start in range(0, len(rows), STRIPE_ROWS)]

    def flop(self, n_queries: int) -> float:
        """Of the products that so many queries need."""
        return 2.0 * n_queries * self.references.n * self.references.width


def search(
    searches: Mapping[str, Search],
    *,
    root: str,
    storage: Storage,
    workers: int,
    progress: Progress,
    gpu_share: float = 0.0,
) -> dict[str, NearestRows]:
    """The nearest reference of each query, {name: NearestRows}, with n in the order of query_rows or of the set.

    Progress counts the queries not yet committed. gpu_share: of a GPU, for the products of a task. Raises
    StorageError, and RunFailed when a row is missing at the end.
    """
    plans = {name: _Plan(each, join(root, "search", each.key), each.stripes()) for name, each in searches.items()}
    # Two names may ask for the same; it is searched once.
    pending = [(plan, plan.missing(storage)) for plan in {plan.folder: plan for plan in plans.values()}.values()]
    n_queries = [sum(len(plan.stripes[i]) for i in missing) for plan, missing in pending]
    if any(n_queries):
        progress.total = sum(n_queries)
        flop = sum(plan.search.flop(n) for (plan, _), n in zip(pending, n_queries, strict=True))
        here = flop < SMALL_FLOP
        items = _items(pending, storage, put=not here)
        progress.work = flop
        for n_done, work in as_they_finish(
            _search_stripe, items, workers=workers, what="search", here=here, gpu_share=gpu_share
        ):
            progress.advance(n_done, work=work)
        progress.close()
    return {name: plan.collect(storage) for name, plan in plans.items()}


def _items(pending: list[tuple[_Plan, list[int]]], storage: Storage, *, put: bool) -> Iterator[tuple[Any, ...]]:
    """Arguments of _search_stripe for each stripe; `put`: a search, with its codes, goes to the object store once."""
    for plan, missing in pending:
        placed = ray.put(plan.search) if put and missing else plan.search
        yield from ((placed, plan.stripes[i], plan.uri(i), storage) for i in missing)


@dataclass(frozen=True, eq=False)
class _Plan:
    """A search, the folder of its stripes, and their rows."""

    search: Search
    folder: str
    stripes: list[np.ndarray]

    def uri(self, i: int) -> str:
        return join(self.folder, f"stripe-{i:05d}.parquet")

    def missing(self, storage: Storage) -> list[int]:
        there = names_in(self.folder, storage)
        return [i for i in range(len(self.stripes)) if basename(self.uri(i)) not in there]

    def collect(self, storage: Storage) -> NearestRows:
        """What all stripes found, in the order asked for."""
        squared = np.full(self.search.queries.n, np.nan)
        row = np.full(self.search.queries.n, -1, np.int64)
        n_found = 0
        with ThreadPoolExecutor(8) as pool:
            tables = pool.map(lambda i: self._read_stripe(i, storage), range(len(self.stripes)))
            for found, distances, references in tables:
                squared[found], row[found] = distances, references
                n_found += len(found)
        asked = np.arange(len(row)) if self.search.query_rows is None else self.search.query_rows
        missing = int(np.isnan(squared[asked]).sum())
        if missing or n_found != len(asked):
            raise RunFailed(
                f"{self.folder} holds {n_found} rows where {len(asked)} were asked for, {missing} of them missing. "
                "Delete this folder and run the same command again."
            )
        return NearestRows(squared[asked], row[asked])

    def _read_stripe(self, i: int, storage: Storage) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(rows, squared distances, references) of a stripe that is committed. Raises StorageError for one that this
        search cannot have written: whoever can write to the store could otherwise choose what was found."""
        uri, again = self.uri(i), "Delete it and run the same command again; only this part is searched again."
        table = read_committed(storage, uri, STRIPE_TYPES, again)
        if any(table[name].null_count for name in STRIPE_TYPES):
            raise StorageError(f"{uri} is refused: it has a row without a value. {again}")
        rows, squared, references = (table[name].to_numpy() for name in STRIPE_TYPES)
        in_range = (references >= -1) & (references < self.search.references.n * self.search.views)
        if not (np.array_equal(rows, self.stripes[i]) and np.all(squared >= 0) and in_range.all()):
            raise StorageError(f"{uri} is refused: its rows or values are invalid. {again}")
        return rows, squared, references


def _search_stripe(search: Search, rows: np.ndarray, uri: str, storage: Storage) -> tuple[int, float]:
    """Searches for these rows, commits what was found to `uri`; how many there were, and the work in products."""
    queries = search.queries.take(rows)
    if search.signs is not None:
        queries *= search.signs.astype(np.float32)
    if search.order is not None:
        queries = np.ascontiguousarray(queries[:, search.order])
    codes = None if search.query_codes is None else search.query_codes[rows]
    with _one_thread():
        found = nearest_in_blocks(queries, _stream(search), codes=codes)
    table = pa.table({"row": rows, "squared": found.squared, "reference": found.row})
    storage.write_parquet(uri, table, new=True)  # the first of two runs is taken, as it may have been read
    return len(rows), search.flop(len(rows))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Ray books one CPU a stripe; and torch's threads wait for each other at each tile, 4 times as long on a busy
    machine (measured in the driver, 8000 x 8000)."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _stream(search: Search) -> Iterator[Block]:
    """All blocks in their order, one read by a thread while the one before it is searched: no more are in memory."""
    references, views = search.references, search.views

    def load(i: int) -> Block:
        rows = references.rows_of(i)
        codes = None if search.reference_codes is None else np.repeat(search.reference_codes[rows], views)
        vectors = references.read(i).reshape(len(rows) * views, search.queries.width)
        return Block(vectors, (rows[:, None] * views + np.arange(views)).reshape(-1), codes)

    with ThreadPoolExecutor(1) as pool:
        ahead = None
        for following in [*range(references.n_blocks), None]:
            block = ahead.result() if ahead else None
            ahead = None if following is None else pool.submit(load, following)
            if block is not None:
                yield block
