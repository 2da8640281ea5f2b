"""Sets given as a table that names image files, such as upstream CheXGenBench's CSVs as they are."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from chexray.data.sources import _columns
from chexray.data.sources._tables import read_table
from chexray.data.sources._types import holds_bytes
from chexray.data.values import identified, is_utf8, may_exist
from chexray.errors import ManifestError, StorageError
from chexray.storage import Storage, absolute, basename, inside, is_remote, join, parent
from chexray.text import quoted, shown

N_PROBES = 16
"""Rows, spread over the table, whose images are looked for when image_root is not given."""

MAX_SIBLINGS = 64


@dataclass(frozen=True)
class Table:
    """CSV, TSV, Parquet or JSON lines (also .gz), one row an image.

    path: the table. image_root: the folder its image paths start from; by default the table's own folder, a folder of
    the table's name, or the one folder beside the table in which its images lie.
    columns: role -> column for sample_id, image, subject_id, prompt and labels, null for none; recognised by default.
    """

    path: str
    image_root: str | None = None
    columns: dict[str, str | None] | None = None

    def __post_init__(self) -> None:
        _columns.check_columns(self.columns)

    def read(self, origin: str, storage: Storage) -> pa.Table:
        """The rows as a source's table. Raises ManifestError, naming the row where there is one."""
        path = absolute(self.path)
        table = self._rows(path, storage)
        roles = _columns.detect(table.column_names, origin, self.columns, path)
        if roles.image is None:
            raise _columns.no_image_column(table.column_names, origin, path)
        if holds_bytes(table[roles.image].type) or pa.types.is_struct(table[roles.image].type):
            raise ManifestError(
                f"{path}: column {quoted(roles.image)} holds image bytes, not paths. Set {origin}.source: "
                "parquet_images."
            )
        texts = _columns.role_as_text(table[roles.image], roles.image, "image", path, origin)
        images = _columns.blank_to_null(texts)
        root, note = self._root(path, images, origin, storage)
        uri = resolve(images.to_pylist(), root, path, origin)
        sample_id = images
        if roles.sample_id is not None:
            sample_id = _columns.role_as_text(table[roles.sample_id], roles.sample_id, "sample_id", path, origin)
        return _columns.standardise(
            table, roles, sample_id=sample_id, uri=pa.array(uri, pa.string()), where=path, notes=[note] if note else []
        )

    def _rows(self, path: str, storage: Storage) -> pa.Table:
        return read_table(path, storage, lambda name: _columns.is_text(name, self.columns))

    def _root(self, path: str, images: pa.ChunkedArray, origin: str, storage: Storage) -> tuple[str, str]:
        """The image root, and a note when it had to be guessed."""
        if self.image_root is not None:
            root = _columns.nameable(absolute(self.image_root))
            if not storage.is_dir(root):
                raise ManifestError(
                    f"{origin}.image_root: {shown(self.image_root)} is not a folder. Name an existing one."
                )
            return root, ""
        folder = _columns.nameable(parent(path))
        known = images.drop_null()
        if not len(known):
            raise ManifestError(f"{path}: no row names an image. Name the right column in {origin}.columns.image.")
        probes = known.take(np.unique(np.linspace(0, len(known) - 1, N_PROBES).astype(int))).to_pylist()
        stem = basename(path).split(".")[0]
        tried: list[str] = []
        for tier in self._tiers(folder, stem):
            hits = {root: _count(root, probes, storage) for root in tier}
            best = max(hits.values(), default=0)
            winners = [root for root, count in hits.items() if best and count == best]
            if len(winners) > 1:
                raise ManifestError(
                    f"{path}: its images are found in both {shown(winners[0])} and {shown(winners[1])}. "
                    f"Say which folder is meant in {origin}.image_root."
                )
            if winners:
                note = "" if winners[0] == folder else f"image_root taken to be {shown(winners[0])}"
                return winners[0], note
            tried += tier
        first = images.to_pylist().index(probes[0])
        resolve([None] * first + probes[:1], folder, path, origin)  # says so when the path leaves the folder
        raise ManifestError(
            f"{path}: images such as {identified(probes[0])} are not below {_listed(tried)}. "
            f"Set {origin}.image_root to the folder that their paths start from."
        )

    @staticmethod
    def _tiers(folder: str, stem: str) -> list[list[str]]:
        """Groups of candidate roots, best first: the folder, the one of the table's name, its namesakes, all others."""
        own = join(folder, stem)
        if is_remote(folder):  # listing all folders of a bucket may take minutes
            return [[folder], [own]]
        try:
            with os.scandir(folder) as entries:
                names = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
            names = [name for name in names if is_utf8(name)]
        except OSError:  # a folder whose files may be read but not listed
            names = []
        first_word = stem.replace("-", "_").split("_")[0]
        akin = [name for name in names if name != stem and len(first_word) > 2 and name.startswith(first_word)]
        others = [name for name in names if name != stem and name not in akin][:MAX_SIBLINGS]
        return [[folder], [own], [join(folder, name) for name in akin], [join(folder, name) for name in others]]


def resolve(images: list[str | None], root: str, path: str, origin: str) -> list[str | None]:
    """Absolute URIs of a table's image paths. Raises ManifestError naming the first row that leaves `root`."""
    uris: list[str | None] = []
    for image in images:
        try:
            uris.append(None if image is None else inside(root, image))
        except StorageError:  # it quotes the cell, also as the context of another error
            break
    if len(uris) < len(images):
        raise ManifestError(
            f"{path}: data row {len(uris) + 1} names {identified(images[len(uris)])}, which leaves the image root "
            f"{shown(root)}. Correct the path, or set {origin}.image_root to a folder that holds all images."
        )
    return uris


def _count(root: str, probes: list[str], storage: Storage) -> int:
    """How many of the probed images exist below `root`."""
    uris = []
    for image in probes:
        try:
            uris.append(inside(root, image))
        except StorageError:
            continue
    return sum(stat is not None for stat in storage.stat([uri for uri in uris if may_exist(uri)]))


def _listed(folders: list[str], at_most: int = 6) -> str:
    more = f" and {len(folders) - at_most} other folders" if len(folders) > at_most else ""
    return ", ".join(shown(folder) for folder in folders[:at_most]) + more
