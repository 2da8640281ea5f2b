"""Sets given as zip or tar archives of images, WebDataset shards among them; nothing is unpacked."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import translate
from itertools import chain, count

import numpy as np
import pyarrow as pa

from chexray.data.containers.listing import Directory, matches
from chexray.data.keys import setting
from chexray.data.sources import _columns
from chexray.data.sources._archives import ARCHIVE_SUFFIXES, PACKED, read_directories, safe_id
from chexray.data.sources._beside import find_tables, join_tables
from chexray.data.sources._joining import Joined, roles_in
from chexray.data.sources._patterns import find_files, folder_of, missing_shards
from chexray.data.sources._sidecars import read_sidecars
from chexray.data.sources._splits import chooser, left_out, of_folders, of_shards
from chexray.data.sources.folder import MAX_PATTERNS, expand_braces
from chexray.errors import ManifestError, StorageError
from chexray.spelling import plural
from chexray.storage import Storage, absolute, basename
from chexray.text import listed, quoted, shown


@dataclass(frozen=True)
class Archive:
    """Images in a .zip or .tar, or in several: a folder of them, or shards as WebDataset writes them.

    sample_id is the path of the image in its archive, with the archive in front where two hold one path. Members
    NAME.txt (prompt), NAME.cls and NAME.json (columns) describe the image NAME.png of the same archive. So do tables in
    the archives that name the images.
    """

    path: str
    """An archive, a folder, or a pattern with `*`, `?` and `{000..010}`."""
    pattern: str = "*.{png,jpg,jpeg,dcm,dicom,bmp,tif,tiff,webp}"
    """Members that are images of the set, by name or by path in the archive, with `*`, `?` and `{a,b}`, in any case."""
    columns: dict[str, str | None] | None = None
    """Roles of the columns of sidecar members or of the table in the archive, as for a table."""
    table_path: str | None = None
    """Table that describes the images, in place of sidecar members and of tables in the archive."""
    split: str | None = None
    """Split to read, where archives, or folders in them, are named after splits, such as `train`; `all` reads them as
    one set."""

    def __post_init__(self) -> None:
        _columns.check_columns(self.columns)

    def read(self, origin: str, storage: Storage) -> pa.Table:
        """The images of all archives, in the order of the archives' names, as a source's table."""
        where, at = absolute(self.path), shown(self.path)
        try:
            files = [_columns.nameable(file) for file in find_files(where, storage, ARCHIVE_SUFFIXES)]
            if not files:
                raise ManifestError(f"{at}: no .zip or .tar is there. Correct {setting(origin, 'path')}.")
            directories = read_directories(files, storage)
            start = len(folder_of(where)) + 1
            members = _joined(directories, _shards(files, start))
            every = self._images(members, at, origin)
            chosen, notes = self._of_split(every, at, origin)
            images = every.filter(pa.array(chosen))
            notes = [*missing_shards(files, where), *_notes(directories, len(members), at), *notes]
            n_others = len(members) - len(every)
            archives = dict(zip(_shards(files, start), files, strict=True))
            table, column, more = self._described(archives, members, every, chosen, n_others, origin, storage)
        except StorageError as error:
            raise ManifestError(f"{at}: cannot be read ({error})") from error
        given = {"sample_id": None, **(self.columns or {}), "image": column}
        roles = _columns.detect(table.column_names, origin, given, at, kinds=_columns.kinds_of(table))
        ids = _ids(images)
        if roles.sample_id is not None:
            ids = _columns.role_as_text(table[roles.sample_id], roles.sample_id, "sample_id", at, origin)
        return _columns.standardise(
            table, roles, sample_id=ids, uri=images["uri"], where=self.path, origin=origin, notes=[*notes, *more]
        )

    def _described(
        self, archives: Mapping[str, str], members: pa.Table, every: pa.Table, chosen: np.ndarray, n_others: int,
        origin: str, storage: Storage,
    ) -> tuple[pa.Table, str, list[str]]:  # fmt: skip
        """What sidecars and tables say of the chosen ones of the images, one row each; the column of their names; and
        lines on what was not used. archives: {shard: path}."""
        at, images = shown(self.path), every.filter(pa.array(chosen))
        joined, used, notes = Joined(), 0, []
        if self.table_path is None:
            columns, used, notes = read_sidecars(members, images, at, storage)
            if columns:
                sidecars = pa.table(columns)
                joined.add(sidecars, roles_in(sidecars, origin, {**(self.columns or {}), "image": None}, at))
        found = find_tables(archives, members, every, self.table_path, self.columns, origin, storage, chosen=chosen)
        joined, more = join_tables(found, at, joined)
        column = joined.names.get("role image", "")
        if not column:
            known = ("file_name", "member", "file_name_in_archive")
            numbered = (f"file_name_in_archive_{n}" for n in count(2))
            column = next(each for each in chain(known, numbered) if each not in joined.columns)
            joined.columns[column] = images["name"]
        return pa.table(joined.columns), column, [*notes, *_left(n_others - used - found.n_inside), *more]

    def _images(self, members: pa.Table, at: str, origin: str) -> pa.Table:
        """The members that are images: name, uri, size and shard."""
        patterns = expand_braces(self.pattern.lower())
        if len(patterns) >= MAX_PATTERNS:
            raise ManifestError(
                f"{at}: {quoted(self.pattern)} stands for too many patterns. Set {setting(origin, 'pattern')}."
            )
        wanted = re.compile("|".join(translate(each if "/" in each else f"*/{each}") for each in patterns))
        names = members["name"].to_pylist()
        images = members.filter(pa.array([wanted.match(f"/{name.lower()}") is not None for name in names], pa.bool_()))
        if not len(images):
            raise ManifestError(f"{at}: {_without_images(names, self.pattern, origin)}")
        return images

    def _of_split(self, images: pa.Table, at: str, origin: str) -> tuple[np.ndarray, list[str]]:
        """(n,) bool: the images of the split that the config names, by the name of their archive or of a folder."""
        pairs = zip(images["shard"].to_pylist(), images["name"].to_pylist(), strict=True)
        folders = [f"{shard}\n{name[: name.rfind('/') + 1]}" for shard, name in pairs]

        def split_of(folder: str) -> str:
            shard, _, inner = folder.partition("\n")
            return of_shards(shard) or of_folders(inner)

        chosen = chooser(list(dict.fromkeys(folders)), self.split, split_of, at, origin)
        kept = {folder: chosen(folder) for folder in dict.fromkeys(folders)}
        of_split = np.array([kept[folder] for folder in folders], bool)
        lost = len(images) - int(of_split.sum())
        return of_split, [left_out(lost, str(self.split))] if lost else []


def _shards(files: Sequence[str], start: int) -> list[str]:
    """What each archive is called in the set: its path from `start` on."""
    return [file[start:] or basename(file) for file in files]


def _joined(directories: Sequence[Directory], shards: Sequence[str]) -> pa.Table:
    """The members of all archives, with the name of each archive as `shard`."""
    parts = [
        directory.table.append_column("shard", pa.array([shard] * len(directory.table), pa.string()))
        for directory, shard in zip(directories, shards, strict=True)
    ]
    return pa.concat_tables(parts).combine_chunks()


def _notes(directories: Sequence[Directory], n: int, at: str) -> list[str]:
    """Lines on what the archives hold beside images. Raises ManifestError where every member is encrypted."""
    encrypted = sum(directory.encrypted for directory in directories)
    if encrypted and encrypted == n:
        raise ManifestError(
            f"{at}: all it holds, {plural(n, 'member')}, is encrypted. Unpack it with its password, and name the "
            "folder."
        )
    notes = [f"encrypted and not readable: {plural(encrypted, 'member')}"] if encrypted else []
    notes += dict.fromkeys(note for directory in directories for note in directory.notes)
    counts: dict[str, int] = {}
    for directory in directories:
        for what, number in directory.left_out.items():
            counts[what] = counts.get(what, 0) + number
    return [*notes, *(f"{number:,} left out: {what}" for what, number in counts.items())]


def _left(n: int) -> list[str]:
    return [f"not in the set: {plural(n, 'other member')}"] if n > 0 else []


def _without_images(names: Sequence[str], pattern: str, origin: str) -> str:
    """Why an archive gives no images, and the next move."""
    inner = [name for name in names if name.lower().endswith(ARCHIVE_SUFFIXES) or PACKED.search(name)]
    if inner:
        return (
            f"holds {plural(len(inner), 'archive')}, such as {shown(inner[0])}, and no image. Archives inside archives "
            "are not read: unpack the outer one, and name the folder."
        )
    found = f"{plural(len(names), 'other file')}, such as {listed(names, 2)}" if names else "no file"
    return f"no member matches {quoted(pattern)}: found {found}. Set {setting(origin, 'pattern')}."


def _ids(images: pa.Table) -> pa.Array:
    """The path of each image in its archive as an id, with its archive in front where two archives hold one path."""
    names = images["name"].combine_chunks()
    if matches(names, r"^/|\\|(^|/)\.{0,2}(/|$)|[^\x20-\x7e]").any():
        names = pa.array([safe_id(name) for name in names.to_pylist()], pa.string())
    if len(names.unique()) == len(names) or len(images["shard"].unique()) == 1:
        return names
    pairs = zip(images["shard"].to_pylist(), names.to_pylist(), strict=True)
    return pa.array([f"{safe_id(shard)}/{name}" for shard, name in pairs], pa.string())
