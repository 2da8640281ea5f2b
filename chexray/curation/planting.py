"""Planted copies: real images, changed on purpose and written down as such, to measure what a search finds."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from chexray.data.depth import Depth
from chexray.data.images import load_images
from chexray.data.values import file_of, identified
from chexray.engine.planted import change_rng
from chexray.errors import ManifestError, StorageError
from chexray.storage import Storage, StorageFailure, absolute, join
from chexray.text import quoted

PLANTING_VERSION = 1
"""Raised whenever equal arguments give other pixels or columns, also for a change of an augmentation."""

MANIFEST, MARKER, FOLDER = "manifest.csv", "planted.json", "planted"
COLUMNS = ("sample_id", "image", "copy_of", "augmentation", "source_id")
CHUNK = 16
"""Originals held at once; a film of 3000 x 2500 takes 7.5 MB, and as much again for each thread that changes one."""

Parameters = dict[str, Any]
"""What a planted set depends on, as its marker says."""
Augmentation = Callable[[np.ndarray, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Planted:
    """A planted set as it lies in its folder.

    manifest: its table, which the source `table` reads. rows: the same rows as text, COLUMNS each, original after
    original. unreadable: {sample_id of the original: reason}; it has no row. n = originals with rows + unreadable.
    """

    manifest: str
    rows: list[dict[str, str]]
    unreadable: dict[str, str]


def plant(
    images: Sequence[tuple[str, str]],
    augmentations: Mapping[str, Augmentation],
    folder: str,
    storage: Storage,
    *,
    n: int | None = None,
    seed: int = 0,
    in_training: bool = True,
    depth: Depth | None = None,
) -> Planted:
    """Writes each augmentation of `n` of the images as PNG below `folder`, and manifest.csv beside them.

    images: (sample_id, uri) of real images, ids unique. n: how many of them, those whose ids hash lowest under `seed`;
    None for all. augmentations: {name: function of a (h, w) uint8 image and a generator}; the generator is seeded by a
    hash of (seed, sample_id, name), so an image looks the same whatever else is planted.
    in_training: whether the images are the training set's. `copy_of` then names the original; it is empty for twins of
    images that no generator saw, which are copies of nothing. `source_id` names the original either way, and stays text
    when the table is read. Images that cannot be read are counted in `unreadable`, never raised.
    depth: of the set that the images are from. A complete set of the same arguments and files is returned, not written
    anew; an interrupted one is finished. Raises ManifestError for repeated ids or names that cannot be a folder's,
    StorageError when it cannot be written.
    """
    _check([sample_id for sample_id, _ in images], augmentations)
    chosen = _lowest(images, len(images) if n is None else n, seed)
    folder = absolute(folder)
    parameters = {
        "planting_version": PLANTING_VERSION,
        "seed": seed,
        "in_training": in_training,
        "augmentations": list(augmentations),
        "images": _digest(chosen, storage),
    }
    if depth is not None and depth.bits:
        parameters["depth"] = str(depth)
    if (found := _complete(folder, parameters, chosen, storage)) is not None:
        return found
    # The marker of another set goes first, lest it vouch for both. Two runs may plant one set at the same time.
    if _vouched(folder, parameters, storage) is None:
        storage.delete(join(folder, MARKER))
    rows, unreadable, may_pass = _write_copies(chosen, augmentations, folder, storage, seed, in_training, depth)
    storage.keep(join(folder, MANIFEST), _table(rows))
    if not may_pass:  # a busy bucket must not leave images out for good
        storage.write(join(folder, MARKER), json.dumps({**parameters, "unreadable": unreadable}).encode())
    return Planted(join(folder, MANIFEST), rows, unreadable)


def _write_copies(
    chosen: Sequence[tuple[str, str]], augmentations: Mapping[str, Augmentation], folder: str, storage: Storage,
    seed: int, in_training: bool, depth: Depth | None,
) -> tuple[list[dict[str, str]], dict[str, str], bool]:  # fmt: skip
    """(rows of the table, {original that cannot be read: why}, whether a later try may read one of these)."""
    rows: list[dict[str, str]] = []
    unreadable: dict[str, str] = {}
    may_pass = False
    with ThreadPoolExecutor(min(8, 2 * (os.cpu_count() or 1))) as pool:
        for start in range(0, len(chosen), CHUNK):
            part = chosen[start : start + CHUNK]
            images = load_images([uri for _, uri in part], storage, depth=depth)
            tasks = []
            for (sample_id, _), image in zip(part, images, strict=True):
                if not isinstance(image, np.ndarray):
                    unreadable[sample_id] = f"{image.code}: {image.detail}"
                    may_pass |= image.transient
                    continue
                for name, augment in augmentations.items():
                    rows.append(_row(sample_id, name, in_training))
                    tasks.append((image, augment, change_rng(seed, sample_id, name), join(folder, rows[-1]["image"])))
            try:
                list(pool.map(lambda task: _write(storage, *task), tasks))
            except StorageError:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
    return rows, unreadable, may_pass


def file_name(sample_id: str) -> str:
    """A name that any file system and URL bears, another for each id: "p10/s50.dcm" to "p10_s50.dcm-1c0f2a9b".

    Capitals count as special, since some file systems do not tell "A" from "a".
    """
    if re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,99}", sample_id):
        return sample_id
    readable = re.sub(r"[^A-Za-z0-9_.-]", "_", sample_id)[:80].strip(".") or "image"
    return f"{readable}-{hashlib.blake2b(sample_id.encode(), digest_size=4).hexdigest()}"


def _check(ids: Sequence[str], augmentations: Mapping[str, Augmentation]) -> None:
    if len(set(ids)) < len(ids):
        twice = Counter(ids).most_common(1)[0][0]
        raise ManifestError(f"planted copies: sample_id {identified(twice)} names two images. Give each image its own.")
    for name in augmentations:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise ManifestError(
                f"planted copies: augmentation {quoted(name)} is no name of small letters, digits and _."
            )


def _lowest(images: Sequence[tuple[str, str]], n: int, seed: int) -> list[tuple[str, str]]:
    """The n images with the lowest hash, in the order given: the choice depends on no other image."""
    order = sorted(range(len(images)), key=lambda i: hashlib.blake2b(f"{seed}|{images[i][0]}".encode()).digest())
    return [images[i] for i in sorted(order[:n])]


def _digest(images: Sequence[tuple[str, str]], storage: Storage) -> str:
    """16 hex digits over ids, names and versions: an original changed in place is another."""
    files = [file_of(uri) for _, uri in images]
    try:
        stats = storage.stat(files)
    except StorageError:  # images that cannot be read are counted later, one by one
        stats = [None] * len(files)
    known = [(*image, stat and [stat.size, stat.version]) for image, stat in zip(images, stats, strict=True)]
    return hashlib.blake2b(json.dumps(known).encode(), digest_size=8).hexdigest()


def _complete(
    folder: str, parameters: Parameters, chosen: Sequence[tuple[str, str]], storage: Storage
) -> Planted | None:
    """The set in the folder if its marker vouches for these parameters and its table is that of the chosen images."""
    unreadable, manifest = _vouched(folder, parameters, storage), join(folder, MANIFEST)
    if unreadable is None or not storage.exists(manifest):
        return None
    augmentations, in_training = parameters["augmentations"], parameters["in_training"]
    rows = [
        _row(sample_id, name, in_training)
        for sample_id, _ in chosen
        if sample_id not in unreadable
        for name in augmentations
    ]
    # A table that says anything else was changed since: the set is planted anew.
    return Planted(manifest, rows, unreadable) if storage.read(manifest) == _table(rows) else None


def _vouched(folder: str, parameters: Parameters, storage: Storage) -> dict[str, str] | None:
    """What the marker of these parameters says about images that could not be read; None without such a marker."""
    try:
        vouched = json.loads(storage.read(join(folder, MARKER)))
        unreadable = {str(name): str(why) for name, why in vouched.pop("unreadable").items()}
    except StorageFailure as error:
        if error.code == "not_found":
            return None
        raise
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return None
    return unreadable if vouched == parameters else None


def _table(rows: Sequence[Mapping[str, str]]) -> bytes:
    """The bytes of manifest.csv. An id may hold any character, and Python's csv leaves \\r without quotes."""
    quoting = csv.QUOTE_ALL if any("\r" in row["sample_id"] for row in rows) else csv.QUOTE_MINIMAL
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n", quoting=quoting)
    writer.writerows([COLUMNS, *([row[name] for name in COLUMNS] for row in rows)])
    return text.getvalue().encode()


def _row(sample_id: str, augmentation: str, in_training: bool) -> dict[str, str]:
    image = f"{FOLDER}/{augmentation}/{file_name(sample_id)}.png"
    copy_of = sample_id if in_training else ""
    return dict(zip(COLUMNS, (f"{augmentation}/{sample_id}", image, copy_of, augmentation, sample_id), strict=True))


def _write(storage: Storage, image: np.ndarray, augment: Augmentation, rng: np.random.Generator, uri: str) -> None:
    packed = io.BytesIO()
    Image.fromarray(augment(image, rng)).save(packed, format="PNG", compress_level=1)
    storage.keep(uri, packed.getvalue())  # whoever reads it already knows it by its version
