"""The images of a run as columns: each once, where it lies, the depth it is decoded by, and who wants it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from chexray.data.manifest import Manifest
from chexray.data.matching import index_in, is_in

if TYPE_CHECKING:
    from chexray.data.depth import Depth


@dataclass(frozen=True, eq=False)
class ImageList:
    """Images in manifest order. keys: distinct image_keys; uris; depths: that of the set as text, or null.

    wanted: {encoder label: (n,) bool, which images it encodes}, all of them for a label that is not there: an image
    that two suites read is decoded once, and one that only privacy reads meets no Inception.
    """

    keys: pa.StringArray
    uris: pa.StringArray
    depths: pa.StringArray
    wanted: Mapping[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        images: Mapping[str, str],
        wanted: Mapping[str, Collection[str]] | None = None,
        depths: Mapping[str, Depth] | None = None,
    ) -> ImageList:
        """From {image_key: uri}, {label: keys} and {image_key: the depth of its set}."""
        keys = pa.array(list(images), pa.string())
        texts = [str(depths[key]) if depths and key in depths else None for key in images]
        masks = {label: is_in(keys, pa.array(list(each), pa.string())) for label, each in (wanted or {}).items()}
        return cls(keys, pa.array(list(images.values()), pa.string()), pa.array(texts, pa.string()), masks)

    @classmethod
    def of_sets(cls, sets: Iterable[Manifest], readers: Mapping[str, Iterable[Manifest]]) -> ImageList:
        """Of some sets, an image that several name once, as the first of them has it. readers: {encoder label: the sets
        that it encodes}."""
        columns = {"image_key": [], "uri": [], "depth": []}
        for each in sets:
            depth = None if each.depth is None else str(each.depth)
            for name in ("image_key", "uri"):
                columns[name] += each.table[name].chunks
            columns["depth"].append(pa.array([depth], pa.string()).take(pa.array(np.zeros(len(each), np.int64))))
        keys, uris, depths = (pa.chunked_array(found, pa.string()).combine_chunks() for found in columns.values())
        codes = keys.dictionary_encode().indices.to_numpy()
        first = pa.array(np.unique(codes, return_index=True)[1])
        keys = keys.take(first)
        wanted = {label: _in_any(keys, found) for label, found in readers.items()}
        return cls(keys, uris.take(first), depths.take(first), wanted)

    def __len__(self) -> int:
        return len(self.keys)

    def mask(self, label: str) -> np.ndarray:
        """(n,) bool: the images that an encoder is wanted for."""
        found = self.wanted.get(label)
        return np.ones(len(self), bool) if found is None else found

    def places(self, keys: pa.Array | pa.ChunkedArray) -> np.ndarray:
        """(n,) int64: where each of some keys stands, -1 where it does not."""
        return index_in(keys, self.keys)

    def keys_for(self, label: str) -> pa.StringArray:
        """The keys of these images."""
        return self.keys.filter(pa.array(self.mask(label)))

    def take(self, positions: np.ndarray) -> ImageList:
        """The images at these positions."""
        at = pa.array(positions)
        wanted = {label: mask[positions] for label, mask in self.wanted.items()}
        return ImageList(self.keys.take(at), self.uris.take(at), self.depths.take(at), wanted)


def _in_any(keys: pa.StringArray, sets: Iterable[Manifest]) -> np.ndarray:
    chunks = [chunk for each in sets for chunk in each.table["image_key"].chunks]
    return is_in(keys, pa.chunked_array(chunks, pa.string()).combine_chunks())
