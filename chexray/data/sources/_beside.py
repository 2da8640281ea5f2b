"""The tables that describe the images of archives: inside of them, or beside one, found by what they name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from chexray.data.containers.addresses import split_member
from chexray.data.rejects import Reject
from chexray.data.sources import _columns
from chexray.data.sources._bytes import MAX_TABLE_BYTES, inflated
from chexray.data.sources._joining import Joined, roles_in
from chexray.data.sources._naming import COUNTS, Named, rows_of
from chexray.data.sources._tables import TABLE_SUFFIXES, read_table, suffix, table_of
from chexray.errors import ManifestError, StorageError
from chexray.spelling import plural
from chexray.storage import Storage, absolute, basename, is_remote, join, parent
from chexray.storage.uris import local_path
from chexray.text import quoted, shown

MOST_TABLES = 20
"""Tables of an archive, or beside it, that are tried; further ones are counted in a note."""
MOST_NOTES = 5
_SPARE_BYTES = 1 << 20


@dataclass(frozen=True)
class Part:
    """A table that names images. named: its row of each image. own: (n,) bool, those of the archive that it lies in.
    table: its own columns and rows."""

    name: str
    table: pa.Table
    roles: _columns.Roles
    named: Named
    own: np.ndarray

    @property
    def has(self) -> np.ndarray:
        """(n,) bool: the images that it describes."""
        return self.named.index >= 0

    def aligned(self) -> pa.Table:
        """One row an image, null where it has none."""
        index = self.named.index
        return self.table.take(pa.array(np.maximum(index, 0), mask=index < 0))

    def says(self) -> str:
        n, of = int(self.has.sum()), len(self.has)
        return "; ".join([f"{shown(self.name)} describes {n:,} of {of:,} images", *self.named.notes()])


@dataclass(frozen=True)
class Found:
    """parts: tables that name images, those of most images first. n_inside: tables in the archives. notes: lines to
    show the user."""

    parts: tuple[Part, ...]
    n_inside: int
    notes: tuple[str, ...]


@dataclass
class _Search:
    """Tries tables, and keeps why one is not used."""

    images: pa.Table
    columns: Mapping[str, str | None] | None
    origin: str
    storage: Storage

    def __post_init__(self) -> None:
        self.parts: list[Part] = []
        self.notes: list[str] = []
        self.errors: list[ManifestError] = []
        self.every = self.images["name"].combine_chunks()
        coded = self.images["shard"].combine_chunks().dictionary_encode()
        self.codes, self.shards = coded.indices.to_numpy(), coded.dictionary.to_pylist()

    def is_text(self, name: str) -> bool:
        return _columns.is_text(name, self.columns)

    def try_table(self, name: str, table: pa.Table, shard: str | None, *, wanted: bool) -> None:
        """Keeps the table if it names images: those of its own archive, else any. wanted: say so if it names none."""
        roles = roles_in(table, self.origin, self.columns, shown(name))
        if (image := (self.columns or {}).get("image")) and wanted and image not in table.column_names:
            self.errors.append(_missing(table, self.columns, self.origin, name))
        named, own = None, np.zeros(len(self.every), bool)
        if roles.image is not None:
            named, own = self._named(table[roles.image], shard)
        if named is not None and (named.index >= 0).any():
            self.parts.append(Part(name, table, roles, named, own))
        elif named is not None and (named.elsewhere or named.unclear):
            self.notes.append("; ".join([f"{shown(name)} is not used", *named.notes()]))
        elif wanted:
            self.notes.append(f"{shown(name)} names none of the images and is not used")

    def _named(self, column: pa.ChunkedArray, shard: str | None) -> tuple[Named, np.ndarray]:
        """What a table names of its own archive and then of others, and which images are of its own."""
        place = self.shards.index(shard) if shard in self.shards else -1
        own = np.flatnonzero(self.codes == place)
        of_own = rows_of(self.every.take(pa.array(own)), column)
        index = np.full(len(self.every), -1, np.int64)
        index[own] = of_own.index
        if len(own) < len(self.every) and (of_own.absent or of_own.elsewhere):
            whole = rows_of(self.every, column)
            return replace(whole, index=np.where(index < 0, whole.index, index)), index >= 0
        return replace(of_own, index=index), index >= 0

    def inside(self, archive: str, shard: str, rows: list[dict[str, object]], label: str) -> None:
        """Tries the tables of one archive."""
        for row in rows[:MOST_TABLES]:
            name = f"{label}{row['name']}"
            try:
                self.try_table(name, table_of(*_member(archive, row, self.storage), self.is_text), shard, wanted=True)
            except ManifestError as error:  # another table may describe the images
                self.errors.append(error)
                self.notes.append(f"{shown(name)} is not used: {error}")
        if len(rows) > MOST_TABLES:
            self.notes.append(f"not read: {plural(len(rows) - MOST_TABLES, 'further table')} of {shown(archive)}")

    def beside(self, archive: str) -> None:
        """Tries the tables in the folder of the archive, which need not be about its images."""
        for path in _beside(archive, self.storage, self.notes):
            try:
                self.try_table(basename(path), read_table(path, self.storage, self.is_text), None, wanted=False)
            except ManifestError as error:
                self.notes.append(f"{shown(basename(path))} beside the archive is not used: {error}")


def find_tables(
    archives: Mapping[str, str],
    members: pa.Table,
    images: pa.Table,
    given: str | None,
    columns: Mapping[str, str | None] | None,
    origin: str,
    storage: Storage,
    *,
    chosen: np.ndarray | None = None,
    beside: bool = False,
) -> Found:
    """The tables that name images of the archives.

    archives: {shard: path}. members: other files; images; both with name, shard, and uri. given: the table that the
    config names, and then no other is looked for. chosen: (n,) bool, the images of the split, which alone are rows of
    what is found. beside: without a table inside, look in the folder of the archive.
    Raises ManifestError for a table in an archive that cannot be read, if no other one describes images.
    """
    search = _Search(images, columns, origin, storage)
    n_inside = 0
    if given is not None:
        search.try_table(basename(given), read_table(absolute(given), storage, search.is_text), None, wanted=True)
    else:
        is_table = [suffix(name) in TABLE_SUFFIXES for name in members["name"].to_pylist()]
        inside: dict[str, list[dict[str, object]]] = {}
        for row in members.filter(pa.array(is_table, pa.bool_())).to_pylist():
            inside.setdefault(row["shard"], []).append(row)
        for shard, rows in inside.items():
            search.inside(archives[shard], shard, rows, f"{shard}: " if len(archives) > 1 else "")
        n_inside = sum(map(len, inside.values()))
        if beside and not n_inside:
            for archive in archives.values():
                search.beside(archive)
    if search.errors and not search.parts:
        raise search.errors[0]
    parts = _of_chosen(search.parts, np.ones(len(images), bool) if chosen is None else chosen)
    if not parts and given is None and not n_inside and beside:
        search.notes.append("no table of prompts and labels is in the archive or beside it")
    return Found(tuple(parts), n_inside, tuple(search.notes))


def _of_chosen(parts: list[Part], chosen: np.ndarray) -> list[Part]:
    """The tables with the chosen images alone, those of most images first. A table does not describe what one in the
    image's own archive does."""
    owned = np.any([part.own for part in parts], axis=0) if parts else chosen
    found = []
    for part in parts:
        index = np.where(owned & ~part.own, -1, part.named.index)[chosen]
        if (index >= 0).any():
            found.append(replace(part, named=replace(part.named, index=index), own=part.own[chosen]))
    return sorted(found, key=lambda part: -int(part.has.sum()))


def join_tables(found: Found, at: str, into: Joined | None = None) -> tuple[Joined, list[str]]:
    """The tables as one, with a row an image, and lines on what each of them describes.

    Tables of different images are joined, and so are those that agree. Of others the one that names more images counts.
    into: what sidecars say of the images. Raises ManifestError where none of two that contradict each other is the
    larger one.
    """
    joined = Joined() if into is None else into
    from_sidecars = Joined(dict(joined.columns), dict(joined.names))
    used: list[Part] = []
    notes = list(found.notes)
    covered = np.zeros(len(found.parts[0].has) if found.parts else 0, bool)
    for part in found.parts:
        rows = part.aligned()
        column, n_other = from_sidecars.clash(rows, part.roles)
        if n_other:
            raise ManifestError(
                f"{at}: {plural(n_other, 'image')} with another {quoted(column, 60)} in sidecar members than in "
                f"{shown(part.name)}. Name the table that counts in `table_path`, or leave out one of the two."
            )
        twice = covered & part.has
        over = [one for one in used if (one.has & part.has).any()] if twice.any() else []
        column, n_other = joined.clash(rows, part.roles) if over else ("", 0)
        if n_other:
            if any(one.has.sum() == part.has.sum() for one in over):
                raise ManifestError(
                    f"{at}: {shown(over[0].name)} and {shown(part.name)} describe the same images and differ in column "
                    f"{quoted(column, 60)} of {plural(n_other, 'image')}. Name the one that counts in `table_path`."
                )
            notes.append(
                f"{shown(part.name)} is not used: it contradicts {shown(over[0].name)}, which names more images, in "
                f"column {quoted(column, 60)} of {plural(n_other, 'image')}"
            )
            continue
        joined.add(rows, part.roles)
        used.append(part)
        covered |= part.has
    return joined, [*notes, *_said(used, covered)]


def _said(used: list[Part], covered: np.ndarray) -> list[str]:
    """What the tables that are used describe, in one line where they are many, as in a set of shards."""
    if len(used) <= MOST_NOTES:
        return [part.says() for part in used]
    counts = {name: sum(getattr(part.named, name) for part in used) for name in COUNTS}
    says = f"{len(used):,} tables describe {int(covered.sum()):,} of {len(covered):,} images"
    return ["; ".join([says, *Named(used[0].named.index, **counts).notes()])]


def _missing(table: pa.Table, columns: Mapping[str, str | None] | None, origin: str, name: str) -> ManifestError:
    """The error for a column of images that the config names and this table lacks."""
    try:
        _columns.detect(table.column_names, origin, columns, shown(name))
    except ManifestError as error:
        return error
    return ManifestError(f"{shown(name)}: has not all columns that the config names. Correct them.")


def _member(archive: str, row: dict[str, object], storage: Storage) -> tuple[str, bytes]:
    """(name, content) of a table in the archive, inflated. Raises ManifestError for one that is too long or damaged."""
    name = str(row["name"])
    where = f"{shown(archive)}: {shown(name)}"
    member = split_member(str(row["uri"]))
    if member is None or member.largest > MAX_TABLE_BYTES:
        raise ManifestError(f"{where} has more than {MAX_TABLE_BYTES:,} bytes. Unpack it, and name it in `table_path`.")
    if member.largest > 2 * member.size + _SPARE_BYTES:  # packing makes nothing much longer
        raise ManifestError(
            f"{where} takes {member.largest:,} bytes in the archive for {member.size:,} of its own. Write it again."
        )
    data = member.unpack(memoryview(storage.read_range(archive, member.start, member.end - member.start)))
    if isinstance(data, Reject):
        raise ManifestError(f"{where} cannot be read: {data.detail}. Unpack it, and name it in `table_path`.")
    if name.lower().endswith(".gz"):
        data = inflated(data, where)
    return name, data


def _beside(archive: str, storage: Storage, notes: list[str]) -> list[str]:
    """The tables in the folder of the archive, those of folders below it left out. notes: takes up why none is seen."""
    folder = parent(archive)
    if is_remote(folder):
        try:
            names = [entry.uri[len(folder.rstrip("/")) + 1 :] for entry in storage.list(folder)]
        except StorageError as error:  # reading one object needs no right to list, and a web server lists nothing
            if error.transient:
                raise
            notes.append("the folder of the archive cannot be listed: a table beside it must be named in table_path")
            return []
        names = [name for name in names if "/" not in name]
    else:
        with os.scandir(local_path(folder)) as entries:
            names = [entry.name for entry in entries if entry.is_file()]
    kinds = [kind for kind in TABLE_SUFFIXES if kind != ".parquet"]
    tables = [join(folder, name) for name in sorted(names) if suffix(name) in kinds]
    if len(tables) > MOST_TABLES:
        notes.append(f"not read: {plural(len(tables) - MOST_TABLES, 'further table')} beside the archive")
    return tables[:MOST_TABLES]
