"""A set of images as one Arrow table, checked before anything runs; what cannot be used is a reject with a reason.

Every row given ends in exactly one of three places: `table`, `rejects` (something is wrong with it) or `excluded`
(left out on purpose, counted by reason).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from chexray.data.keys import root_setting, setting
from chexray.data.labels import LABELS_TYPE, to_codes
from chexray.data.schema import COLUMNS, METADATA_KEY, REJECT_SCHEMA, Source
from chexray.data.values import codes, file_of, identified, may_exist
from chexray.errors import ManifestError
from chexray.storage import Storage, is_s3
from chexray.text import quoted, shown

if TYPE_CHECKING:
    from chexray.data.depth import Depth
    from chexray.data.looks import Looks


@dataclass(frozen=True)
class Manifest:
    """One set of images: `table` is sorted by sample_id and holds COLUMNS, then every further column of the source.

    origin: "real" or "synthetic". n_rows: rows the source gave = table + rejects + excluded.
    excluded: reason -> rows left out on purpose. notes: lines to show the user.
    roles: reserved column -> the source's own column it was read from. depth: what black and white are in its images of
    more than 8 bits. looks: what a sample of it looks like; both are None until `chexray.data.looks.look_at` looked.
    etags: {uri: size and ETag} of images on S3, equal for equal files wherever they lie.
    key: where the set's settings stand in the config. images: below which folder its images are, and why there, for a
    set whose table names them. unread_labels: why a column called labels was not read, "" where none was left.
    title: what published table or data set it is. card: what must be known of it wherever its numbers stand.
    pairs: how its images are paired with real ones where the config says "auto", "" for the usual order.
    """

    name: str
    origin: str
    table: pa.Table
    rejects: pa.Table
    n_rows: int
    excluded: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    roles: dict[str, str] = field(default_factory=dict)
    depth: Depth | None = None
    looks: Looks | None = None
    etags: dict[str, str] = field(default_factory=dict, compare=False, repr=False)
    key: str = ""
    images: str = ""
    unread_labels: str = ""
    title: str = ""
    card: str = ""
    pairs: str = ""

    def setting(self, name: str) -> str:
        """The key of one of the set's settings, such as `heldout.columns.labels`."""
        return setting(self.key or self.origin, name)

    @property
    def name_labels(self) -> str:
        """The next move for a set without labels where they are needed."""
        hint = f"Name their column in {self.setting('columns.labels')}"
        return f"{hint}: {self.unread_labels}." if self.unread_labels else f"{hint}."

    @property
    def repeated(self) -> set[str]:
        """Columns that a standard one repeats: `Patient Gender` where `sex` was read from it."""
        return {name for role, name in self.roles.items() if role != name and role in self.table.column_names}

    @property
    def read_as(self) -> str:
        """`NIH ChestX-ray14 table: Finding Labels -> findings, Patient ID -> subject_id`; "" without columns."""
        words = {"uri": "image", "labels": "findings"}
        one_each = [name for role, name in self.roles.items() if role.startswith("labels.")]
        said = [
            f"{shown(name, 40)} -> {words.get(role, role)}"
            for role, name in self.roles.items()
            if not role.startswith("labels.")
        ]
        if not self.title and set(self.roles) <= {"uri"}:  # a folder's files
            return ""
        if one_each:
            said.append(f"{len(one_each)} columns -> findings")
        return f"{self.title or 'columns'}: {', '.join(said)}" if said else self.title

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits over the values of every column: an image changed in place, or a label, gives another."""
        digest = hashlib.blake2b(digest_size=8)
        for name in sorted(self.table.column_names):
            column = self.table[name]
            digest.update(f"{name}:{column.type}:{len(column)};".encode())
            _digest_column(digest, column)
        return digest.hexdigest()


def load(
    name: str, origin: str, source: Source, storage: Storage, *, on_duplicate: str = "error", limit: int | None = None
) -> Manifest:
    """The manifest of a source: read, then `build`."""
    return build(name, origin, source.read(origin, storage), storage, on_duplicate=on_duplicate, limit=limit)


def build(
    name: str, origin: str, table: pa.Table, storage: Storage, *, on_duplicate: str = "error", limit: int | None = None
) -> Manifest:
    """The manifest of a source's table, with every image looked up and keyed by its path, size and version.

    Images that do not exist become rejects; when more than half are missing the root is wrong, and that is an error.
    on_duplicate: "error", or "first" to keep the first row of each sample_id.
    limit: keep that many rows, those whose sample_id hashes lowest: a table sorted by class keeps them all.
    Raises ManifestError for an empty set, null or duplicate sample_ids, and missing images as above.
    """
    if on_duplicate not in ("error", "first"):
        raise ManifestError(f"{setting(origin, 'on_duplicate')}: {quoted(on_duplicate)} is not one of error, first.")
    n_rows, excluded = len(table), {}
    if not n_rows:
        raise ManifestError(f"{origin} set {quoted(name)} has no rows. Give it at least one image.")
    given = json.loads((table.schema.metadata or {}).get(METADATA_KEY, b"{}"))
    notes = list(given.get("notes", []))
    where = shown(given.get("path") or f"{origin} set {name!r}")
    table = _with_columns(table)
    table = _unique(where, origin, table, on_duplicate)
    if len(table) < n_rows:
        excluded["duplicate_sample_id"] = n_rows - len(table)
    if limit is not None and limit < len(table):
        excluded["limit"] = len(table) - limit
        table = table.take(lowest_hashes(table["sample_id"].to_pylist(), limit))
    table, rejects, etags = _look_up(name, where, origin, table, storage, given)
    n_shared = len(table) - len(table["image_key"].unique())
    if n_shared:
        notes.append(f"{n_shared} rows name an image that another row names too; each row counts")
    return Manifest(
        name, str(origin), table, rejects, n_rows, excluded, tuple(notes), given.get("roles", {}), etags=etags,
        key=getattr(origin, "key", origin), images=given.get("images", ""), title=given.get("title", ""),
        unread_labels=given.get("unread_labels", ""), card=given.get("card", ""), pairs=given.get("pairs", ""),
    )  # fmt: skip


def image_key(uri: str, size: int, version: str) -> str:
    """32 hex digits that identify one image in one state; features are stored under it."""
    return hashlib.blake2b(f"{uri}|{size}|{version}".encode(), digest_size=16).hexdigest()


def deep_key(key: str, depth: str) -> str:
    """The key of the same image decoded by a depth."""
    return hashlib.blake2b(f"{key}|{depth}".encode(), digest_size=16).hexdigest()


def _with_columns(table: pa.Table) -> pa.Table:
    """The table with the reserved columns first, in their order and type, then the others; not sorted yet."""
    columns: dict[str, pa.Array | pa.ChunkedArray] = {}
    for name, kind in COLUMNS.items():
        if name == "row":
            columns[name] = pa.array(np.arange(len(table)))
        elif name in table.column_names:
            columns[name] = table[name].cast(kind)
        else:
            columns[name] = pa.nulls(len(table), kind)
    further = {name: table[name] for name in table.column_names if name not in columns}
    return pa.table({**columns, **further})


def _unique(where: str, origin: str, table: pa.Table, on_duplicate: str) -> pa.Table:
    """The table sorted by sample_id, one row each."""
    ids = table["sample_id"]
    if ids.null_count:
        row = pc.index(ids.is_null(), True).as_py() + 1
        raise ManifestError(
            f"{where}: {ids.null_count} of {len(ids)} rows have no sample_id, first data row {row}. "
            f"Fill it, or name another column in {setting(origin, 'columns.sample_id')}."
        )
    table = table.sort_by([("sample_id", "ascending"), ("row", "ascending")]).combine_chunks()
    ids = table["sample_id"]
    same = codes(ids)
    repeated = np.append(False, same[1:] == same[:-1])
    if not repeated.any():
        return table
    if on_duplicate == "error":
        rows = table["row"].to_numpy()
        # The duplicate met first when reading the file, not the first in sorted order.
        second = np.flatnonzero(repeated)[np.argmin(rows[repeated])]
        raise ManifestError(
            f"{where}: {int(repeated.sum())} of {len(ids)} sample_ids repeat, first "
            f"{identified(ids[second].as_py())} (data rows {rows[second - 1] + 1} and {rows[second] + 1}). Name a "
            f"unique column in {setting(origin, 'columns.sample_id')}, or keep the first of each with "
            f"{setting(origin, 'on_duplicate')}: first."
        )
    return table.filter(pa.array(~repeated))


def lowest_hashes(ids: list[str], limit: int) -> np.ndarray:
    """Positions, ascending, of the `limit` ids with the lowest hash."""
    hashes = np.array([hashlib.blake2b(i.encode(), digest_size=8).digest() for i in ids])
    return np.sort(np.argsort(hashes, kind="stable")[:limit])


def _look_up(
    name: str, where: str, origin: str, table: pa.Table, storage: Storage, given: Mapping[str, Any]
) -> tuple[pa.Table, pa.Table, dict[str, str]]:
    """The rows whose image exists, with `image_key` filled in, the rejects for the others, and the ETags of the images.

    given: by the source; its reasons are {sample_id: why there is no uri}, where it is not that the row names none.
    """
    reasons = given.get("reasons") or {}
    uris = table["uri"].to_pylist()
    files = [None if uri is None else file_of(uri) for uri in uris]
    distinct = [file for file in dict.fromkeys(files) if file is not None and may_exist(file)]
    stats = dict(zip(distinct, storage.stat(distinct), strict=True))
    found = [None if file is None else stats.get(file) for file in files]
    missing = np.array([stat is None for stat in found])
    n_missing = int(missing.sum())
    if 2 * n_missing > len(table):
        raise _mostly_missing(where, origin, table, np.flatnonzero(missing), given)
    keys = [None if s is None else image_key(str(uri), s.size, s.version) for uri, s in zip(uris, found, strict=True)]
    table = table.set_column(table.column_names.index("image_key"), "image_key", pa.array(keys, pa.string()))
    lost = table.filter(pa.array(missing))
    why = [
        ("no_path", reasons.get(sample_id, "the row names no image"))
        if uri is None
        else ("not_found", "there is no such file")
        for sample_id, uri in zip(lost["sample_id"].to_pylist(), lost["uri"].to_pylist(), strict=True)
    ]
    rejects = pa.table(
        {
            "set": pa.array([name] * n_missing, pa.string()),
            "sample_id": lost["sample_id"],
            "uri": lost["uri"],
            "image_key": lost["image_key"],
            "stage": pa.array(["manifest"] * n_missing, pa.string()),
            "code": pa.array([code for code, _ in why], pa.string()),
            "detail": pa.array([detail for _, detail in why], pa.string()),
            "transient": pa.array([False] * n_missing),
        },
        schema=REJECT_SCHEMA,
    )
    etags = {
        str(uri): f"{stat.size} {stat.version}"
        for uri, file, stat in zip(uris, files, found, strict=True)
        if stat is not None and file is not None and uri == file and is_s3(file)
    }
    return table.filter(pa.array(~missing)).combine_chunks(), rejects, etags


def _mostly_missing(
    where: str, origin: str, table: pa.Table, missing: np.ndarray, given: Mapping[str, Any]
) -> ManifestError:
    """The error for a set of which more than half is not there: the root or the column is wrong."""
    rows = table["row"].to_numpy()
    named = [place for place in missing if table["uri"][int(place)].is_valid]
    if not named:
        first = int(missing[np.argmin(rows[missing])])
        why = (given.get("reasons") or {}).get(table["sample_id"][first].as_py(), "the row names no image")
        return ManifestError(
            f"{where}: {len(missing)} of {len(table)} rows have no image, first data row {rows[first] + 1}: {why}. "
            f"Correct them, or name the right column in {setting(origin, 'columns.image')}."
        )
    first = int(min(named, key=lambda place: rows[place]))
    has_root = given.get("images") != ""
    move = (
        f"Set {root_setting(origin)} to the folder that holds them" if has_root else "Copy them, or remove these rows"
    )
    return ManifestError(
        f"{where}: {len(missing)} of {len(table)} rows name an image that does not exist, first "
        f"{identified(table['uri'][first].as_py())} (data row {rows[first] + 1}). {move}."
    )


def _digest_column(digest: Any, column: pa.ChunkedArray) -> None:
    """Feeds the values of a column, not its memory layout: equal tables agree however they were chunked or sliced."""
    if pa.types.is_fixed_size_list(column.type) and column.type == LABELS_TYPE:
        digest.update(to_codes(column).tobytes())
        return
    try:
        texts = column.cast(pa.string())
    except pa.ArrowException:
        texts = pa.chunked_array([pa.array([v if v is None else repr(v) for v in column.to_pylist()], pa.string())])
    digest.update(texts.is_valid().to_numpy().tobytes())
    chunks = [chunk for chunk in texts.fill_null("").chunks if len(chunk)]
    offsets = [np.frombuffer(c.buffers()[1], np.int32)[c.offset : c.offset + len(c) + 1] for c in chunks]
    for offset in offsets:
        digest.update(np.diff(offset).tobytes())
    for chunk, offset in zip(chunks, offsets, strict=True):
        if offset[-1] > offset[0]:
            digest.update(memoryview(chunk.buffers()[2])[offset[0] : offset[-1]])
