"""Features of real images after changes, for a run that plants copies to see which of them its search finds.

The changed images are made and encoded in memory and never written: they show patients. What stays is a block of
features beside those of the sets, so that a second run encodes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from PIL import Image

from chexray.data.depth import Depth
from chexray.data.images import Reject, load_and
from chexray.data.unchanged import changed
from chexray.encoders.base import Encoder, EncoderSpec
from chexray.engine.blocks import FeatureBlocks
from chexray.errors import StorageError
from chexray.storage import Storage

PLANTED_VERSION = 1

SIDE = 256
"""Larger images are reduced to so many pixels of their shorter side before they are changed: the spaces searched hold
64 cells or fewer a side, and a film of 8 million pixels would take a second for each change."""

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]
Original = tuple[str, str, Depth | None]
"""image_key, uri and the depth of its set."""


class OriginalLost(StorageError):
    """An original that the encoders have read cannot be read again."""


def planted_blocks(
    originals: Sequence[Original],
    changes: Mapping[str, Change],
    encoders: Mapping[str, tuple[Encoder, EncoderSpec]],
    *,
    root: str,
    storage: Storage,
    seed: int,
    max_pixels: int,
    io_threads: int,
) -> dict[str, FeatureBlocks]:
    """{label: a block of the features of every change of every original}, n = originals * changes.

    Row o * changes + c is original o after change c; its generator is seeded by a hash of (seed, image_key, name).
    encoders: those without weights. Made in this process, since a few dozen images take less than a worker's start.
    Raises OriginalLost when an original cannot be read again.
    """
    n = len(originals) * len(changes)
    found: dict[str, FeatureBlocks] = {}
    for label, (_, spec) in encoders.items():
        parts = (PLANTED_VERSION, SIDE, seed, spec.fingerprint, *changes, *(key for key, *_ in originals))
        width = spec.outputs["features"]
        found[label] = FeatureBlocks.at(root, spec, "planted", parts, n, width, storage, max(n, 1))
    missing = {label: encoders[label] for label, blocks in found.items() if blocks.missing()}
    if missing:
        made = _changed(originals, changes, missing, storage, seed, max_pixels, io_threads)
        for label, features in made.items():
            found[label].write(0, features[found[label].rows_of(0)])
    return found


def _changed(
    originals: Sequence[Original],
    changes: Mapping[str, Change],
    encoders: Mapping[str, tuple[Encoder, EncoderSpec]],
    storage: Storage,
    seed: int,
    max_pixels: int,
    io_threads: int,
) -> dict[str, np.ndarray]:
    """{label: (n, width) float32} in the order of the rows."""
    n = len(originals) * len(changes)
    features = {label: np.empty((n, spec.outputs["features"]), np.float32) for label, (_, spec) in encoders.items()}

    def use(position: int, image: np.ndarray) -> None:
        image = _reduced(image)
        for i, (name, change) in enumerate(changes.items()):
            changed = change(image, change_rng(seed, originals[position][0], name))
            for label, (encoder, _) in encoders.items():
                vector = encoder.encode(encoder.prepare(changed)[None])["features"][0]
                features[label][position * len(changes) + i] = vector

    keys, uris, depths = zip(*originals, strict=True) if originals else ((), (), ())
    answers = load_and(use, uris, storage, threads=io_threads, max_pixels=max_pixels, depths=depths)
    for row, reject in changed(uris, keys, depths, storage).items():
        answers[row] = reject
    for uri, answer in zip(uris, answers, strict=True):
        if isinstance(answer, Reject):
            raise OriginalLost(
                f"{uri} cannot be read again to plant copies of it ({answer.code}: {answer.detail}). Run the same "
                "command again, or set privacy.planted to 0.",
                transient=answer.transient,
            )
    return features


def _reduced(image: np.ndarray) -> np.ndarray:
    """The image with its shorter side at SIDE pixels, or itself where it is smaller."""
    height, width = image.shape
    scale = SIDE / min(height, width)
    if scale >= 1:
        return image
    # A strip is squashed: turning it would need a square as wide as it is long.
    size = (min(4 * SIDE, max(SIDE, round(width * scale))), min(4 * SIDE, max(SIDE, round(height * scale))))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))


def change_rng(seed: int, key: str, change: str) -> np.random.Generator:
    """The generator of one change of one image, whatever else is changed."""
    digest = hashlib.blake2b(f"{seed}|{change}|{key}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))
