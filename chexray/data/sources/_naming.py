"""Which row of a table names which image of an archive: by the whole path, else by its end where no folder contradicts.

`images/1.png` names `images/1.png`; it also names `1.png` and `mine/images/1.png`, as long as it names nothing else and
no other path names them. `train/1.png` never names `test/1.png`, so that no image gets the text of another.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from chexray.data.containers.listing import MAX_NAME_BYTES, normal
from chexray.data.values import as_text

COUNTS = ("absent", "elsewhere", "repeated", "unclear")
_NONE, _SEVERAL = -1, -2
_LAST = "\U0010ffff"


@dataclass(frozen=True)
class Named:
    """index: (n,) int64, the row of each image, -1 for none; of rows with one path the first.

    Further rows: absent name no image, elsewhere one in another folder, repeated one again, unclear more than one image
    or one that another path names too.
    """

    index: np.ndarray
    absent: int
    elsewhere: int
    repeated: int
    unclear: int

    def notes(self) -> list[str]:
        """What became of the rows that describe no image."""
        counts = (
            (self.absent, "name images that are not in the archive"),
            (self.elsewhere, "name images in other folders and are left out: write paths as in the archive"),
            (self.repeated, "name an image again and are left out"),
            (self.unclear, "fit several images, or one that other rows fit, and are left out: write whole paths"),
        )
        return [f"{n:,} of its rows {what}" for n, what in counts if n]


def rows_of(images: pa.Array, column: pa.ChunkedArray) -> Named:
    """The row of each image. images: paths in the archive, strings. column: of a table, of any type."""
    names, texts = _plain(images), _plain(as_text(column).combine_chunks())
    index = _numbers(pc.call_function("index_in", [names], pc.SetLookupOptions(texts, skip_nulls=True)))
    exact = _numbers(pc.call_function("index_in", [texts], pc.SetLookupOptions(names, skip_nulls=True)))
    n_exact = int((exact >= 0).sum())
    same = names.dictionary_encode().indices.to_numpy()  # two members whose names differ by their encoding alone
    index[np.bincount(same)[same] > 1] = -1
    repeated, unclear = n_exact - len(np.unique(exact[exact >= 0])), 0
    bases = pc.call_function("is_in", [_base(texts)], pc.SetLookupOptions(_base(names), skip_nulls=True))
    rest = np.flatnonzero((exact < 0) & bases.to_numpy(zero_copy_only=False))
    elsewhere = 0
    if len(rest):
        places = _Ends(names).of(texts.take(pa.array(rest)))
        elsewhere, unclear = int((places == _NONE).sum()), int((places == _SEVERAL).sum())
        for row, place in zip(rest[places >= 0].tolist(), places[places >= 0].tolist(), strict=True):
            if index[place] >= 0:
                repeated += 1
            else:
                index[place] = row
    return Named(index, len(texts) - n_exact - len(rest), elsewhere, repeated, unclear)


class _Ends:
    """Images by the ends of their paths. A path from its file upwards is a key, so that ends are beginnings of keys."""

    def __init__(self, names: pa.Array):
        self.exact = {f"{name[::-1]}/": place for place, name in enumerate(names.to_pylist())}
        self.keys = sorted(self.exact)

    def of(self, texts: pa.Array) -> np.ndarray:
        """(n,) int64: the image that each path means; _SEVERAL where it fits more, or shares it with another path."""
        coded = texts.dictionary_encode()
        meant = np.array([self._meant(f"{text[::-1]}/") for text in coded.dictionary.to_pylist()], np.int64)
        places, counts = np.unique(meant[meant >= 0], return_counts=True)
        meant[np.isin(meant, places[counts > 1])] = _SEVERAL
        return meant[coded.indices.to_numpy()]

    def _meant(self, key: str) -> int:
        first, end = bisect_left(self.keys, key), bisect_left(self.keys, key + _LAST)
        if end > first:
            return self.exact[self.keys[first]] if end - first == 1 else _SEVERAL
        step = key.rfind("/", 0, min(len(key) - 1, MAX_NAME_BYTES + 1))
        while step > 0:  # the longest end first
            if (place := self.exact.get(key[: step + 1])) is not None:
                return place
            step = key.rfind("/", 0, step)
        return _NONE


def _numbers(found: pa.Array) -> np.ndarray:
    return np.array(found.fill_null(-1).to_numpy(zero_copy_only=False), np.int64)


def _base(names: pa.Array) -> pa.Array:
    return _replaced(names, r"^.*/", "")


def _plain(names: pa.Array) -> pa.Array:
    """Paths in one spelling: slashes, no `./`, and composed letters (NFC), as macOS and tables differ in them."""
    return normal(_replaced(_replaced(names, r"[/\\]+", "/"), r"^(\./)+", "").cast(pa.string()))


def _replaced(names: pa.Array, pattern: str, by: str) -> pa.Array:
    return pc.call_function("replace_substring_regex", [names], pc.ReplaceSubstringOptions(pattern, by))
