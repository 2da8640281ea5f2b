"""What a feature store holds of one encoder, as columns: 300,000 images are 15 MB, not dictionaries of 300 MB."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from chexray.data.rejects import CLIPPED

Keys: TypeAlias = "Sequence[str] | pa.Array | pa.ChunkedArray"
"""image_keys: a column, or text in a list."""


def as_keys(keys: Keys | Iterable[str]) -> pa.StringArray:
    """The keys as one Arrow column, without a copy where they are one."""
    column: Any = keys
    if isinstance(column, pa.ChunkedArray):
        return column.combine_chunks()
    return column if isinstance(column, pa.Array) else pa.array(list(column), pa.string())


def places_in(keys: Keys, known: pa.StringArray) -> np.ndarray:
    """(n,) int64: where each key stands in `known`, -1 where it does not."""
    found = pc.call_function("index_in", [as_keys(keys)], pc.SetLookupOptions(known, skip_nulls=True))
    return found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)


def _no_keys() -> pa.StringArray:
    return pa.array([], pa.string())


@dataclass(frozen=True, eq=False)
class Places(Mapping[str, "tuple[str, int]"]):
    """image_key -> (part, row). keys: distinct; part, row: (n,) int32, the number of a part in `parts`, and a row.

    A mapping for single looks, each of which reads the whole column; `find` looks up many at once.
    """

    keys: pa.StringArray = field(default_factory=_no_keys)
    part: np.ndarray = field(default_factory=lambda: np.empty(0, np.int32))
    row: np.ndarray = field(default_factory=lambda: np.empty(0, np.int32))
    parts: tuple[str, ...] = ()

    @classmethod
    def of(cls, rows: Mapping[str, tuple[str, int]]) -> Places:
        """The same, from a dictionary."""
        parts = tuple(dict.fromkeys(part for part, _ in rows.values()))
        number = {part: i for i, part in enumerate(parts)}
        places = np.array([(number[part], row) for part, row in rows.values()], np.int32).reshape(-1, 2)
        return cls(as_keys(list(rows)), places[:, 0], places[:, 1], parts)

    def find(self, keys: Keys) -> np.ndarray:
        """(n,) int64: positions of the keys in these columns, -1 for what is not there."""
        return places_in(keys, self.keys)

    def take(self, positions: np.ndarray) -> Places:
        """Some of the rows, with the names of their parts alone: what a task needs."""
        used, part = np.unique(self.part[positions], return_inverse=True)
        parts = tuple(self.parts[i] for i in used)
        return Places(self.keys.take(pa.array(positions)), part.astype(np.int32), self.row[positions], parts)

    def __getitem__(self, key: str) -> tuple[str, int]:
        place = int(self.find([key])[0])
        if place < 0:
            raise KeyError(key)
        return self.parts[self.part[place]], int(self.row[place])

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys.to_pylist())

    def __len__(self) -> int:
        return len(self.keys)


@dataclass
class StoreIndex:
    """What a store holds for one encoder: image_key -> (part, row), and the final rejects by image_key.

    clipped: images that are encoded, but for values beyond the depth of their set. rows may be given as a dictionary.
    Rejects are few, or the run fails (encode.max_reject_fraction), so that they stay one.
    """

    rows: Places | Mapping[str, tuple[str, int]] = field(default_factory=Places)
    rejects: dict[str, dict[str, object]] = field(default_factory=dict)
    clipped: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.places = self.rows if isinstance(self.rows, Places) else Places.of(self.rows)
        self.rows = self.places

    def encoded(self, keys: Keys) -> np.ndarray:
        """(n,) bool: which of the images have features."""
        return self.places.find(keys) >= 0

    def known(self, keys: Keys) -> np.ndarray:
        """(n,) bool: which of them have features, or a reject of any kind."""
        keys = as_keys(keys)
        return self.encoded(keys) | (places_in(keys, as_keys(self.rejects)) >= 0)

    def covered(self, keys: Keys) -> np.ndarray:
        """(n,) bool: which of them need no encoding: they have features, or a reject that is final."""
        final = as_keys(key for key, reject in self.rejects.items() if not reject["transient"])
        keys = as_keys(keys)
        return self.encoded(keys) | (places_in(keys, final) >= 0)

    def of(self, keys: Keys) -> StoreIndex:
        """The index of these encoded images alone."""
        return StoreIndex(self.places.take(self.places.find(keys)))


class Found:
    """Collects what the parts of a store hold, one after the other in the order of their names."""

    def __init__(self) -> None:
        self.keys: list[pa.StringArray] = []
        self.rejects: list[tuple[int, dict[str, object]]] = []

    def add(self, keys: pa.StringArray, rejects: Iterable[dict[str, object]]) -> None:
        """The keys of the next part, and its rejects."""
        self.rejects += [(len(self.keys), reject) for reject in rejects]
        self.keys.append(keys)

    def index(self, parts: Sequence[str]) -> tuple[StoreIndex, Places]:
        """The index, and where images lie a second time. parts: the names of those that were added."""
        lengths = np.array([len(keys) for keys in self.keys], np.int64)
        keys = pa.chunked_array(self.keys, pa.string()).combine_chunks()
        part = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
        row = (np.arange(len(keys)) - np.repeat(np.cumsum(lengths) - lengths, lengths)).astype(np.int32)
        every = Places(keys, part, row, tuple(parts))
        # Codes are given in the order of appearance, so that the first place of each is where it was met first.
        first = np.unique(keys.dictionary_encode().indices.to_numpy(), return_index=True)[1]
        places = Places(keys.take(pa.array(first)), part[first], row[first], tuple(parts))
        second = np.ones(len(keys), bool)
        second[first] = False
        found = StoreIndex(places)
        named = as_keys(str(reject["image_key"]) for _, reject in self.rejects)
        for where, (number, reject) in zip(places.find(named), self.rejects, strict=True):
            key, before = str(reject["image_key"]), found.rejects.get(str(reject["image_key"]))
            if reject["code"] == CLIPPED and where >= 0 and places.part[where] <= number:
                found.clipped.add(key)
            elif before is None or before["transient"]:  # a final reject is the last word, in whichever chunk
                found.rejects[key] = reject
        for key, where in zip(named.to_pylist(), places.find(named), strict=True):
            if where >= 0:
                found.rejects.pop(key, None)
        return found, every.take(np.flatnonzero(second))


def pending(keys: Keys | Iterable[str], done: StoreIndex) -> list[str]:
    """The distinct keys that still need encoding, in their first order."""
    distinct = as_keys(keys).unique()
    return distinct.filter(pa.array(~done.covered(distinct))).to_pylist()
