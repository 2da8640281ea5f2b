"""Sets given as a folder of image files."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import numpy as np
import pyarrow as pa

from chexray.data.keys import setting
from chexray.data.sources import _columns
from chexray.data.sources._metadata import below, is_metadata, read_metadata
from chexray.data.sources._splits import chooser, left_out, of_folders
from chexray.data.values import is_utf8
from chexray.errors import ManifestError, StorageError
from chexray.storage import Storage, absolute, basename
from chexray.text import printable, quoted, shown

MAX_PATTERNS = 1_000
PROBES = 8
"""Files without a suffix that are looked into, to tell whether all of them are DICOM."""


@dataclass(frozen=True)
class Folder:
    """Image files in a folder; metadata.csv or .jsonl in it or in a subfolder (column file_name) adds the rest.

    sample_id is the path below the folder. Where no file has the suffix of an image, DICOM files without one are read.
    """

    path: str
    """The folder."""
    pattern: str = "*.{png,jpg,jpeg,dcm,dicom,bmp,tif,tiff,webp}"
    """Files of the set, by name or by path below the folder, with `*`, `?` and `{a,b}`, in any case."""
    recursive: bool = True
    """Read subfolders too."""
    columns: dict[str, str | None] | None = None
    """Roles of the columns of metadata, as for a table."""
    split: str | None = None
    """Split to read, where subfolders are named after splits, such as `test`; `all` reads them as one set."""

    def __post_init__(self) -> None:
        _columns.check_columns(self.columns)

    def read(self, origin: str, storage: Storage) -> pa.Table:
        """The files as a source's table. Files that the metadata names and the folder lacks are rows too."""
        root, where = _columns.nameable(absolute(self.path)), shown(self.path)
        try:
            if not storage.is_dir(root):
                raise ManifestError(
                    f"{where}: is not a folder. Correct {setting(origin, 'path')}, or name a table's source."
                )
            listed = [entry.uri for entry in storage.list(root)]
        except StorageError as error:
            raise ManifestError(f"{where}: the folder cannot be listed ({error})") from error
        names = {below(uri, root): uri for uri in listed}
        patterns = expand_braces(self.pattern.lower())
        if len(patterns) >= MAX_PATTERNS:
            raise ManifestError(
                f"{where}: {quoted(self.pattern)} stands for too many patterns. Set {setting(origin, 'pattern')}."
            )
        metadata = [name for name in names if is_metadata(name) and (self.recursive or "/" not in name)]
        # Files of a hidden folder or name are an operating system's (._a.png, .DS_Store), not images.
        visible = [name for name in names if not re.search(r"(^|/)\.", name) and name not in metadata]
        files, notes = [name for name in visible if self._wanted(name, patterns)], []
        if not files and self.pattern == Folder.pattern:
            files = self._without_suffix({name: names[name] for name in visible}, where, storage)
            notes += [f"{len(files)} files without a suffix are read as DICOM"] if files else []
        if not files:
            found = f"found {len(visible)} other files" if visible else "the folder is empty"
            raise ManifestError(
                f"{where}: no file matches {quoted(self.pattern)}: {found}. Set {setting(origin, 'pattern')} or "
                f"{setting(origin, 'path')}."
            )
        if len(files) < len(visible):
            notes.append(
                f"{len(visible) - len(files)} files of the folder are not in the set (pattern {shown(self.pattern)})"
            )
        chosen = chooser(files, self.split, of_folders, where, origin)
        kept = [name for name in files if chosen(name)]
        if len(kept) < len(files):
            notes.append(left_out(len(files) - len(kept), str(self.split)))
        uris = [names[name] for name in kept]
        tables = [names[name] for name in metadata if "/" not in name or chosen(name) or not of_folders(name)]
        if tables:
            return self._joined(tables, root, uris, notes, chosen, origin, storage)
        ids, addresses, reasons = _addresses(uris, root)
        return _columns.standardise(
            pa.table({"file_name": ids}),
            _columns.Roles(image="file_name"),
            sample_id=ids,
            uri=addresses,
            where=self.path,
            origin=origin,
            notes=notes,
            reasons=reasons,
        )

    def _wanted(self, name: str, patterns: list[str]) -> bool:
        if not self.recursive and "/" in name:
            return False
        lowered = name.lower()
        last = basename(lowered)
        return any(fnmatchcase(lowered if "/" in pattern else last, pattern) for pattern in patterns)

    def _without_suffix(self, names: Mapping[str, str], where: str, storage: Storage) -> list[str]:
        """The files without a suffix, which scanners and archives write, if a few of them begin as DICOM; or []."""
        bare = [name for name in names if not re.search(r"\.[A-Za-z]\w*$|(^|/)DICOMDIR$", name)]
        bare = bare if self.recursive else [name for name in bare if "/" not in name]
        probes = [bare[place] for place in np.unique(np.linspace(0, len(bare) - 1, PROBES).astype(int))] if bare else []
        try:
            marks = [storage.read_range(names[name], 128, 4) for name in probes]
        except StorageError as error:
            raise ManifestError(f"{where}: the folder cannot be read ({error})") from error
        return bare if marks and all(mark == b"DICM" for mark in marks) else []

    def _joined(
        self,
        paths: list[str],
        root: str,
        uris: list[str],
        notes: list[str],
        chosen: Callable[[str], bool],
        origin: str,
        storage: Storage,
    ) -> pa.Table:
        """Files with the metadata row of their name; a full outer join, so that nothing disappears on either side."""
        table, column, row_of = read_metadata(paths, root, self.columns, chosen, origin, storage)
        where = paths[0] if len(paths) == 1 else shown(self.path)
        roles = _columns.detect(table.column_names, origin, self.columns, where, kinds=_columns.kinds_of(table))
        lacking = sum(uri not in row_of for uri in uris)
        if lacking:
            tables = basename(paths[0]) if len(paths) == 1 else f"{len(paths)} tables of metadata"
            notes = [*notes, f"{lacking} of {len(uris)} files have no row in {tables}"]
        listed = set(uris)
        everything = [*uris, *(uri for uri in row_of if uri not in listed)]
        index = np.array([row_of.get(uri, -1) for uri in everything])
        joined = table.take(pa.array(np.maximum(index, 0), mask=index < 0))
        ids, addresses, reasons = _addresses(everything, root)
        roles = replace(roles, sample_id=None, image=column)
        return _columns.standardise(
            joined, roles, sample_id=ids, uri=addresses, where=where, origin=origin, notes=notes, reasons=reasons
        )


def _addresses(uris: list[str], root: str) -> tuple[pa.Array, pa.Array, dict[str, str]]:
    """Ids (the path below the folder), uris, and {id: reason} for files whose name is not UTF-8.

    No table can hold such a name: its id shows the strange bytes as escapes and its uri is null, so that it is counted.
    """
    odd = {uri for uri in uris if not is_utf8(uri)}
    ids = [printable(below(uri, root)) if uri in odd else below(uri, root) for uri in uris]
    reasons = {
        name: "the file's name is not UTF-8: rename it" for name, uri in zip(ids, uris, strict=True) if uri in odd
    }
    addresses = [None if uri in odd else uri for uri in uris]
    return pa.array(ids, pa.string()), pa.array(addresses, pa.string()), reasons


def expand_braces(pattern: str) -> list[str]:
    """`*.{png,jpg}` to [`*.png`, `*.jpg`]; at most MAX_PATTERNS, since every pair of braces multiplies them."""
    match = re.search(r"\{([^{}]*)\}", pattern)
    if not match:
        return [pattern]
    front, back = pattern[: match.start()], pattern[match.end() :]
    found: list[str] = []
    for choice in match[1].split(","):
        if len(found) < MAX_PATTERNS:
            found += expand_braces(front + choice + back)
    return found[:MAX_PATTERNS]
