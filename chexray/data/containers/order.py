"""In which order and in which portions images inside containers are read, so that little is read twice."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

import numpy as np

from chexray.data.containers.addresses import split_embedded, split_member
from chexray.data.containers.parquet_rows import group_starts
from chexray.storage import Storage

MOST = 256
"""Images up to which a portion grows, or up to twice its size, so that a row group is not read for two portions."""
AT_LEAST = 64
"""Portions that a set is cut into at least: work for this many workers counts more than reading a row group once."""


def container_order(uris: Sequence[str]) -> np.ndarray:
    """Positions of `uris`, (n,) int64, so that images of one container follow one another as they lie in it.

    A container takes the place of its first image; files of their own keep theirs. Neighbours share a row group, or
    the range of one request.
    """
    first: dict[str, int] = {}
    places = np.empty((len(uris), 2), np.int64)
    for position, uri in enumerate(uris):
        if row := split_embedded(uri):
            places[position] = first.setdefault(f"{row[0]}#{row[1]}", position), row[2]
        elif member := split_member(uri):
            places[position] = first.setdefault(member.file, position), member.start
        else:
            places[position] = position, 0
    return np.lexsort((places[:, 1], places[:, 0]))


def portions(uris: Sequence[str], size: int, storage: Storage, total: int = 0) -> list[slice]:
    """Slices of `uris`, which stand in `container_order`, of `size` images or more: row groups stay whole where they
    are small enough.

    total: images of all sets, of which `uris` are what is left. When whole portions are taken out of `uris`, the rest
    is cut as before.
    """
    most = max(size, min(max(2 * size, MOST), (total or len(uris)) // AT_LEAST))
    groups = _row_groups(uris, storage) if most > size else [None] * len(uris)
    found, begin = [], 0
    while begin < len(uris):
        end = min(begin + size, len(uris))
        while end < min(begin + most, len(uris)) and groups[end] is not None and groups[end] == groups[end - 1]:
            end += 1
        found.append(slice(begin, end))
        begin = end
    return found


def _row_groups(uris: Sequence[str], storage: Storage) -> list[tuple[str, str, int] | None]:
    """The file, column and row group of each image; None for what is in none, or in one that cannot be read."""
    rows = [split_embedded(uri) for uri in uris]
    starts = group_starts(dict.fromkeys(row[0] for row in rows if row), storage)
    return [
        (row[0], row[1], bisect.bisect_right(starts[row[0]], row[2])) if row and row[0] in starts else None
        for row in rows
    ]
