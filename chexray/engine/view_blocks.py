"""Blocks of views: for each image of a set, what an encoder makes of it as it is, turned and cropped.

They lie beside the blocks of plain features (blocks.py), in the same order and as whole files, and are made by the
tasks that gather: from stored features and stored small pictures, never from the images again.

Cost: 15 views of an image take 2 ms of a core in `pixels` and `patches`, 3 ms in `perceptual_hash`, where encoding a
512 x 512 image takes 4 ms without decoding it (measured); 60 bytes of disk for each number of the plain vector; and 15
times the products of the plain search, 30 in a space where that search was not mirrored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from chexray.encoders.base import Encoder, EncoderSpec
from chexray.encoders.views import VIEWS, VIEWS_VERSION, view_features
from chexray.engine.blocks import BLOCK_ROWS, GATHER_BYTES, FeatureBlocks
from chexray.engine.features import Done, FeatureStore
from chexray.engine.tasks import as_they_finish
from chexray.storage import join

__all__ = ["VIEWS", "write_view_blocks"]

Stored = tuple[EncoderSpec, Done]
"""An encoder's spec, and what the store holds of it."""

HERE_IMAGES = 1000
"""Images whose views are made in this process: a second or two, what two workers need to start."""


def write_view_blocks(
    store: FeatureStore, encoder: Encoder, plain: Stored, small: Stored, keys: Sequence[str], *, workers: int
) -> FeatureBlocks:
    """Blocks of width views * width, the views of each image one after the other, gathered where not committed yet.

    plain, small: the encoder's own features and the small pictures; both hold every key. keys: the image_key of each
    row of the set. Raises StorageError.
    """
    spec, width = plain[0], plain[0].outputs["features"]
    block_rows = max(1, BLOCK_ROWS // len(VIEWS))
    parts = (str(VIEWS_VERSION), spec.name, spec.fingerprint, small[0].fingerprint, repr(VIEWS), str(block_rows), *keys)
    digest = hashlib.blake2b("\0".join(parts).encode(), digest_size=8).hexdigest()
    folder = join(store.root, "blocks", f"{spec.name}-{spec.fingerprint}", f"views-{digest}")
    blocks = FeatureBlocks(folder, len(keys), len(VIEWS) * width, block_rows, store.storage, digest)
    missing = blocks.missing()
    per_task = max(1, GATHER_BYTES // (4 * blocks.width * block_rows))

    def item(group: list[int]) -> tuple:
        wanted = [keys[int(row)] for i in group for row in blocks.rows_of(i)]
        places = [(of, Done({key: done.rows[key] for key in wanted})) for of, done in (plain, small)]
        return blocks, group, store, encoder, places[0], places[1], wanted

    items = (item(missing[start : start + per_task]) for start in range(0, len(missing), per_task))
    here = len(missing) * block_rows <= HERE_IMAGES
    for _ in as_they_finish(_gather, items, workers=workers, what="views of images", here=here):
        pass
    return blocks


def _gather(
    blocks: FeatureBlocks,
    group: list[int],
    store: FeatureStore,
    encoder: Encoder,
    plain: Stored,
    small: Stored,
    keys: list[str],
) -> None:
    """Writes the blocks of `group`; keys: of their rows, block after block."""
    start = 0
    features = store.read(plain[0], "features", keys, plain[1])
    pictures = store.read(small[0], "image", keys, small[1])
    for i in group:
        stop = start + len(blocks.rows_of(i))
        blocks.write(i, view_features(encoder, features[start:stop], pictures[start:stop]))
        start = stop
