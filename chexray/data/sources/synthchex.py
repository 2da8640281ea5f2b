"""SynthCheX-75K as it is published: ALL_FILES.zip with its table (v1), or Parquet of pixel arrays (v2)."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from chexray.data.containers.zip import index as members_of
from chexray.data.containers.zip import read as read_directory
from chexray.data.schema import IMAGE_SUFFIXES, METADATA_KEY
from chexray.data.sources import _columns
from chexray.data.sources._beside import find_tables, join_tables
from chexray.data.sources._names import without_suffix
from chexray.data.sources._peers import SYNTHCHEX_CARD, SYNTHCHEX_NAME
from chexray.data.sources._types import holds_pixels
from chexray.data.sources.parquet_images import ParquetImages
from chexray.errors import ManifestError, StorageError
from chexray.spelling import fold
from chexray.storage import Storage, absolute, basename, join
from chexray.text import listed, shown

N_IMAGES = 75_649
"""Images of the published set."""
ARCHIVE = "ALL_FILES.zip"
V1_COLUMNS = ("filename", "prompt", "labels_dict")
V2_COLUMNS = ("image_filename", "label", "image")
NAME = re.compile(SYNTHCHEX_NAME)


@dataclass(frozen=True)
class SynthCheX:
    """SynthCheX-75K: `ALL_FILES.zip` (v1) or the Parquet files of v2, read where they lie.

    sample_id is the DICOM id of the training image that each image was made for; images are paired with it.
    """

    path: str
    """The archive, or the folder it lies in; or a Parquet file, a folder or a pattern of such files."""
    table_path: str | None = None
    """Table of prompts and labels of v1. Default: those in the archive, or beside it, that name its images."""
    columns: dict[str, str | None] | None = None
    """Roles of the columns of this table, as for a table."""
    split: str | None = None
    """Split of v2 to read, as for Parquet."""

    def __post_init__(self) -> None:
        _columns.check_columns(self.columns)

    def read(self, origin: str, storage: Storage) -> pa.Table:
        """The images as a source's table. Raises ManifestError and StorageError."""
        where = absolute(self.path)
        where = archive_in(where, storage) or where
        if where.lower().endswith(".zip"):
            try:
                return self._archive(where, origin, storage)
            except StorageError as error:
                raise ManifestError(f"{shown(self.path)}: cannot be read ({error})") from error
        # `label` has no documented meaning: it stays text, and is no label of an image.
        columns = {"labels": None, "sample_id": "image_filename", **(self.columns or {})}
        found = ParquetImages(self.path, "image", columns, self.split).read(origin, storage)
        return _as_synthchex(found, "SynthCheX-75K v2")

    def _archive(self, where: str, origin: str, storage: Storage) -> pa.Table:
        _columns.nameable(where)
        directory = read_directory(where, storage)
        members = directory.table
        names = members["name"].to_pylist()
        is_image = [name.lower().endswith(IMAGE_SUFFIXES) for name in names]
        images = members.filter(pa.array(is_image, pa.bool_()))
        if not len(images):
            found = f"{len(names):,} other files, such as {listed(names, 2)}" if names else "no file"
            raise ManifestError(f"{shown(where)}: holds no image: found {found}. Name the archive of the images.")
        others = members.filter(pa.array([not each for each in is_image], pa.bool_()))
        files = [basename(name) for name in images["name"].to_pylist()]
        if directory.encrypted == len(members):
            raise ManifestError(
                f"{shown(where)}: its members are encrypted. Unpack it with its password, and name the folder."
            )
        found = find_tables(
            {"": where}, _with_shard(others), _with_shard(images), self.table_path, self.columns, origin, storage,
            beside=True,
        )  # fmt: skip
        joined, more = join_tables(found, shown(where))
        table = pa.table(joined.columns or {"filename": pa.array(files, pa.string())})
        notes = [*directory.notes, *more]
        notes += [f"{n:,} {what} are not in the set" for what, n in directory.left_out.items()]
        if n_others := len(others) - found.n_inside:
            notes.append(f"{n_others:,} other files of the archive are not in the set")
        roles = _columns.detect(table.column_names, origin, self.columns, shown(where), kinds=_columns.kinds_of(table))
        found = _columns.standardise(
            table, replace(roles, sample_id=None, image=joined.names.get("role image", "filename")),
            sample_id=pa.array(files, pa.string()), uri=images["uri"], where=shown(where), origin=origin, notes=notes,
        )  # fmt: skip
        return _as_synthchex(found, "SynthCheX-75K v1")


def archive_in(folder: str, storage: Storage) -> str:
    """The archive in the folder that it was downloaded in, whose pictures are those of the data card; "" for none."""
    inside = join(folder, ARCHIVE)
    return inside if not folder.lower().endswith((".zip", ".parquet")) and storage.exists(inside) else ""


def is_synthchex(where: str, storage: Storage) -> bool:
    """Whether a file is of one of the two forms of the data set: told by names of members and columns, and for an
    archive without its table by the archive's own name."""
    if where.lower().endswith(".zip"):
        members = members_of(where, storage)
        names = members["name"].to_pylist()
        if not any(NAME.fullmatch(name) for name in names):
            return False
        if basename(where) == ARCHIVE or "synthchex" in basename(where).lower():
            return True
        others = members.filter(pa.array([not name.lower().endswith(IMAGE_SUFFIXES) for name in names], pa.bool_()))
        try:
            found = find_tables(
                {"": where}, _with_shard(others), _with_shard(members), None, None, "synthetic", storage, beside=True
            )
        except ManifestError:  # the source that reads it says so
            return False
        v1 = {fold(name) for name in V1_COLUMNS}
        return any(v1 <= {fold(name) for name in part.table.column_names} for part in found.parts)
    if not where.lower().endswith(".parquet"):
        return False
    with storage.open_parquet(where) as parquet:
        schema = parquet.schema
        if not set(V2_COLUMNS) <= set(schema.names) or not holds_pixels(schema.field("image").type):
            return False
        first = next(parquet.batches(0, "image_filename"), pa.nulls(0)) if parquet.n_rows else pa.nulls(0)
    return any(isinstance(name, str) and NAME.fullmatch(name) for name in first.to_pylist())


def _with_shard(members: pa.Table) -> pa.Table:
    return members.append_column("shard", pa.array([""] * len(members), pa.string()))


def _as_synthchex(found: pa.Table, title: str) -> pa.Table:
    """The table with DICOM ids, its card, and how it is paired."""
    names = found["sample_id"].to_pylist()
    matches = [None if name is None else NAME.fullmatch(name) for name in names]
    ids = [
        match[1] if match else None if name is None else without_suffix(basename(name))
        for match, name in zip(matches, names, strict=True)
    ]
    odd = sum(match is None for match in matches)
    handed: dict[str, Any] = json.loads((found.schema.metadata or {}).get(METADATA_KEY, b"{}"))
    notes = handed["notes"]
    if odd:
        notes.append(f"{odd:,} images are not called SyntheticImg_<DICOM id>: their names are their ids")
    if len(found) != N_IMAGES:
        notes.append(f"{len(found):,} images, of {N_IMAGES:,} that the published set has")
    handed |= {"title": title, "card": SYNTHCHEX_CARD, "pairs": "same_id"}
    place = found.column_names.index("sample_id")
    found = found.set_column(place, "sample_id", pa.array(ids, pa.string()))
    return found.replace_schema_metadata({METADATA_KEY: json.dumps(handed).encode()})
