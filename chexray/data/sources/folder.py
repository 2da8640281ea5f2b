"""Sets given as a folder of image files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
import pyarrow as pa

from chexray.data.sources import _columns
from chexray.data.sources._names import IMAGE_SUFFIXES as IMAGE_SUFFIXES
from chexray.data.sources._tables import TABLE_SUFFIXES, read_table, suffix
from chexray.data.sources.table import resolve
from chexray.data.values import identified, is_utf8
from chexray.errors import ManifestError, StorageError
from chexray.storage import Storage, absolute, basename
from chexray.text import printable, quoted, shown

MAX_PATTERNS = 1_000


@dataclass(frozen=True)
class Folder:
    """Image files in a folder; a metadata.csv or .jsonl in it (column file_name) adds prompts, labels and the rest.

    path: the folder. pattern: which files, by name or by path below the folder, with *, ? and {a,b}, in any case.
    recursive: look into subfolders too. columns: roles of the metadata's columns, as for a table.
    sample_id is the path below the folder.
    """

    path: str
    pattern: str = "*.{png,jpg,jpeg,dcm,dicom,bmp,tif,tiff,webp}"
    recursive: bool = True
    columns: dict[str, str | None] | None = None

    def __post_init__(self) -> None:
        _columns.check_columns(self.columns)

    def read(self, origin: str, storage: Storage) -> pa.Table:
        """The files as a source's table. Files that the metadata names and the folder lacks are rows too."""
        root, where = _columns.nameable(absolute(self.path)), shown(self.path)
        try:
            if not storage.is_dir(root):
                raise ManifestError(f"{where}: is not a folder. Correct {origin}.path, or name a table's source.")
            listed = [entry.uri for entry in storage.list(root)]
        except StorageError as error:
            raise ManifestError(f"{where}: the folder cannot be listed ({error})") from error
        start = len(root.rstrip("/")) + 1
        below = [uri[start:] for uri in listed]
        metadata = [name for name in below if "/" not in name and _is_metadata(name)]
        patterns = expand_braces(self.pattern.lower())
        if len(patterns) >= MAX_PATTERNS:
            raise ManifestError(f"{where}: {quoted(self.pattern)} stands for too many patterns. Set {origin}.pattern.")
        # Files of a hidden folder or name are an operating system's (._a.png, .DS_Store), not images.
        visible = [name for name in below if not re.search(r"(^|/)\.", name) and name not in metadata]
        files = [name for name in visible if self._wanted(name, patterns)]
        if not files:
            found = f"found {len(visible)} other files" if visible else "the folder is empty"
            raise ManifestError(
                f"{where}: no file matches {quoted(self.pattern)}: {found}. Set {origin}.pattern or {origin}.path."
            )
        notes = []
        if len(files) < len(visible):
            notes.append(
                f"{len(visible) - len(files)} files of the folder are not in the set (pattern {shown(self.pattern)})"
            )
        if len(metadata) > 1:
            raise ManifestError(f"{where}: holds both {shown(metadata[0])} and {shown(metadata[1])}. Keep one of them.")
        names = {uri[start:]: uri for uri in listed}
        uris = [names[name] for name in files]
        if not metadata:
            ids, addresses, reasons = _addresses(uris, start)
            return _columns.standardise(
                pa.table({"file_name": ids}),
                _columns.Roles(image="file_name"),
                sample_id=ids,
                uri=addresses,
                where=self.path,
                notes=notes,
                reasons=reasons,
            )
        return self._joined(names[metadata[0]], root, uris, start, notes, origin, storage)

    def _wanted(self, name: str, patterns: list[str]) -> bool:
        if not self.recursive and "/" in name:
            return False
        lowered = name.lower()
        last = basename(lowered)
        return any(fnmatchcase(lowered if "/" in pattern else last, pattern) for pattern in patterns)

    def _joined(
        self, path: str, root: str, uris: list[str], start: int, notes: list[str], origin: str, storage: Storage
    ) -> pa.Table:
        """Files with the metadata row of their name; a full outer join, so that nothing disappears on either side."""
        table = read_table(path, storage, lambda name: _columns.is_text(name, self.columns))
        roles = _columns.detect(table.column_names, origin, self.columns, path)
        by_default = "file_name" in table.column_names and not (self.columns or {}).get("image")
        column = "file_name" if by_default else roles.image
        if column is None:
            raise _columns.no_image_column(table.column_names, origin, path)
        texts = _columns.role_as_text(table[column], column, "image", path, origin)
        named = resolve(_columns.blank_to_null(texts).to_pylist(), root, path, origin)
        row_of: dict[str, int] = {}
        for row, uri in enumerate(named):
            if uri is None:
                raise ManifestError(
                    f"{path}: data row {row + 1} has no {shown(column, 60)}. Fill it, or remove the row."
                )
            if row_of.setdefault(uri, row) != row:
                raise ManifestError(
                    f"{path}: data rows {row_of[uri] + 1} and {row + 1} both describe {identified(uri[start:])}. "
                    "Remove one."
                )
        lacking = sum(uri not in row_of for uri in uris)
        if lacking:
            notes = [*notes, f"{lacking} of {len(uris)} files have no row in {basename(path)}"]
        listed = set(uris)
        everything = [*uris, *(uri for uri in row_of if uri not in listed)]
        index = np.array([row_of.get(uri, -1) for uri in everything])
        joined = table.take(pa.array(np.maximum(index, 0), mask=index < 0))
        ids, addresses, reasons = _addresses(everything, start)
        roles = _columns.Roles(None, column, roles.subject_id, roles.prompt, roles.labels, roles.findings)
        return _columns.standardise(
            joined, roles, sample_id=ids, uri=addresses, where=path, notes=notes, reasons=reasons
        )


def _addresses(uris: list[str], start: int) -> tuple[pa.Array, pa.Array, dict[str, str]]:
    """Ids (the path below the folder), uris, and {id: reason} for files whose name is not UTF-8.

    No table can hold such a name: its id shows the strange bytes as escapes and its uri is null, so that it is counted.
    """
    odd = {uri for uri in uris if not is_utf8(uri)}
    ids = [printable(uri[start:]) if uri in odd else uri[start:] for uri in uris]
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


def _is_metadata(name: str) -> bool:
    return name.lower().startswith("metadata.") and suffix(name) in TABLE_SUFFIXES
