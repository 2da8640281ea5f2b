"""Images found by their names: ids without a suffix, and files that are spread over folders."""

from __future__ import annotations

import posixpath
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from chexray.data.keys import root_setting, setting
from chexray.data.schema import IMAGE_SUFFIXES
from chexray.data.sources._names import without_suffix
from chexray.data.values import as_text, identified
from chexray.errors import ManifestError
from chexray.spelling import fold, suggestion
from chexray.storage import Storage
from chexray.text import quoted, shown

_FORMAT = re.compile(r"(.?[<>^]\d{1,3})?(\.\d{1,3})?")
_FIELD = re.compile(r"[^{}!:.\[\]]+")


@dataclass(frozen=True)
class Index:
    """The images below a folder, from one listing. names: {file name, and the same without suffix: uris}."""

    root: str
    files: frozenset[str]
    names: Mapping[str, Sequence[str]]

    @classmethod
    def of(cls, root: str, storage: Storage) -> Index:
        uris = [entry.uri for entry in storage.list(root) if entry.uri.lower().endswith(IMAGE_SUFFIXES)]
        names: dict[str, list[str]] = {}
        for uri in uris:
            name = posixpath.basename(uri)
            if "/." not in uri[len(root) :]:  # an operating system's, or another tool's
                names.setdefault(name, []).append(uri)
                names.setdefault(without_suffix(name), []).append(uri)
        return cls(root, frozenset(uris), names)

    def named(self, image: str) -> Sequence[str]:
        """The files that a cell may mean: those of its whole name before those of its stem, and of these the ones on
        whose way most folders in a row are those that the cell names."""
        name = posixpath.basename(image)
        found = self.names.get(name) or self.names.get(without_suffix(name)) or ()
        if len(found) < 2:
            return found
        folders = posixpath.dirname(image).split("/")
        agree = [_agreeing(posixpath.dirname(uri).split("/"), folders) for uri in found]
        return [uri for uri, n in zip(found, agree, strict=True) if n == max(agree)]


def _agreeing(ours: list[str], theirs: list[str]) -> int:
    """How many folders are the same, counted from the file upwards."""
    pairs = zip(reversed(ours), reversed(theirs), strict=False)
    return next((n for n, (one, other) in enumerate(pairs) if one != other), min(len(ours), len(theirs)))


def look_up(
    path: str,
    index: Index,
    images: Sequence[str | None],
    direct: Sequence[str | None],
    table: pa.Table,
    column: str | None,
    origin: str,
    *,
    by_name: bool = False,
) -> tuple[list[str | None], str]:
    """The uri of each image: its path where a file is there, else the one file of its name, else its path again; and a
    line that counts the images of which a file of the name lies only where the table's folders contradict, "" for none.

    column: which names the images. by_name: whether the config asks for names alone, which folders then contradict only
    where several paths of the table end in one name. Raises ManifestError for a name that two files have, with the
    column that would tell them apart where there is one.
    """
    shared = _shared_names(images)
    uris, searched = list(direct), [row for row, place in enumerate(direct) if place not in index.files]
    refused = []
    for row in searched:
        image = images[row]
        if image is None:
            continue
        named = index.named(image)
        alone = (by_name and posixpath.basename(image) not in shared) or (origin == "real" and _is_unique(image))
        found = [uri for uri in named if (alone and len(named) == 1) or _may_be(image, uri[len(index.root) :])]
        if len(found) > 1:
            raise _several(path, index, row, image, found, table, column, origin)
        uris[row] = found[0] if found else direct[row]
        refused += [row] if named and not found else []
    taken = [row for row in _contested(images, uris, direct, searched) if not _is_alone(images[row], origin)]
    for row in taken:
        uris[row] = direct[row]
    return uris, _elsewhere([*refused, *taken], images, origin)


def _may_be(image: str, below: str) -> bool:
    """Whether no folder that a cell names contradicts the way to a file below the root.

    Folders before those of the disk may differ, as of another machine; the disk may have more folders on the way. Where
    both name a folder at one level, patient2 is not patient3.
    """
    theirs, ours = _folders(image), _folders(below)
    rest = iter(ours)
    return all(folder in rest for folder in theirs) or _agreeing(ours, theirs) == len(ours)


def _folders(path: str) -> list[str]:
    return [step for step in posixpath.dirname(path).split("/") if step not in ("", ".")]


_UNIQUE_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4,12}){3,}|[0-9a-f]{32,64}|[0-2](\.\d+){5,}", re.IGNORECASE)


def _is_unique(image: str) -> bool:
    """Whether a name can belong to one image of the world only, as an id of MIMIC-CXR, an MD5 or a DICOM UID."""
    return _UNIQUE_ID.fullmatch(without_suffix(posixpath.basename(image))) is not None


def _is_alone(image: str | None, origin: str) -> bool:
    return image is not None and origin == "real" and _is_unique(image)


def _shared_names(images: Sequence[str | None]) -> set[str]:
    """The file names that rows with different folders have."""
    first: dict[str, list[str]] = {}
    known = [image for image in images if image is not None]
    return {
        name for image in known
        if first.setdefault(name := posixpath.basename(image), _folders(image)) != _folders(image)
    }  # fmt: skip


def _contested(
    images: Sequence[str | None], uris: Sequence[str | None], direct: Sequence[str | None], searched: Sequence[int]
) -> list[int]:
    """The rows that would share a file with a row that names other folders: all but those that agree best with it."""
    claims: dict[str, dict[tuple[str, ...], list[int]]] = {}
    for row in searched:
        image, uri = images[row], uris[row]
        if image is not None and uri is not None and uri != direct[row] and _folders(image):
            claims.setdefault(uri, {}).setdefault(tuple(_folders(image)), []).append(row)
    at_its_path = set(direct) & set(claims)
    lost: list[int] = []
    for uri, rows in claims.items():
        agree = {folders: _agreeing(_folders(uri), list(folders)) for folders in rows}
        best = [folders for folders, n in agree.items() if n == max(agree.values())]
        kept = best[0] if len(best) == 1 and uri not in at_its_path else None
        lost += [row for folders, each in rows.items() if folders != kept for row in each]
    return lost


def _elsewhere(rows: Sequence[int], images: Sequence[str | None], origin: str) -> str:
    if not rows:
        return ""
    row = min(rows)
    return (
        f"{len(rows):,} images are not found where the table says: files of their names lie only in other folders, and "
        f"may be of other patients (first data row {row + 1}: {identified(images[row])}). If they are meant, set "
        f"{root_setting(origin)} to the folder that the paths of the table start from"
    )


def _several(
    path: str,
    index: Index,
    row: int,
    image: str,
    found: Sequence[str],
    table: pa.Table,
    column: str | None,
    origin: str,
) -> ManifestError:
    one, two = (shown(uri[len(index.root) :].lstrip("/")) for uri in found[:2])
    folder = _column_of_folders(table, row, found)
    template = f'"{{{folder or "FOLDER"}}}/{{{shown(column or "NAME", 60)}}}"'
    return ManifestError(
        f"{path}: data row {row + 1} names {identified(image)}, and {len(found)} files are called so: {one} and {two}. "
        f"Say which by a column of folders in {setting(origin, 'image_template')}, such as {template}."
    )


def _column_of_folders(table: pa.Table, row: int, uris: Sequence[str]) -> str:
    """The column whose cell is a folder of one of the files and not of the others; "" where none is."""
    steps = [set(uri.split("/")[:-1]) for uri in uris]
    for name in table.column_names:
        cell = as_text(pa.chunked_array([table[name].slice(row, 1).combine_chunks()]))[0].as_py()
        if cell and sum(cell.strip("/").split("/")[-1] in each for each in steps) == 1:
            return name
    return ""


def fields_of(template: str, origin: str) -> list[tuple[str, str | None, str]]:
    """[(text, column, format)] of a template such as `p{subject_id:.2}/{id}.jpg`: only names, widths and lengths."""
    try:
        parsed = [(text, name, form or "", kind) for text, name, form, kind in string.Formatter().parse(template)]
    except ValueError:
        parsed = [("", "{", "", None)]
    for _, name, form, kind in parsed:
        if name is not None and (not _FIELD.fullmatch(name) or not _FORMAT.fullmatch(form) or kind):
            raise ManifestError(
                f"{setting(origin, 'image_template')}: {quoted(template)} is not understood. Write columns in braces, "
                'such as "files/p{subject_id:.2}/{id}.jpg" (.2: the first two signs; 0>8: zeros to 8 signs).'
            )
    return [(text, name, form) for text, name, form, _ in parsed]


def filled(template: str, table: pa.Table, roles: Mapping[str, str | None], origin: str, path: str) -> list[str | None]:
    """The path of each row by the template, None where a cell is empty. A field is a column, or a role such as `id`."""
    known = {fold(name): name for name in reversed(table.column_names)}
    parts = []
    for text, field, form in fields_of(template, origin):
        if field is None:
            parts.append([text] * len(table))
            continue
        name = field if field in table.column_names else known.get(fold(field)) or roles.get(field)
        if name is None:
            raise ManifestError(
                f"{path}: has no column {quoted(field)}, named in {setting(origin, 'image_template')}. "
                f"{suggestion(field, table.column_names)}"
            )
        cells = as_text(table[name]).to_pylist()
        parts.append([None if cell in (None, "") else f"{text}{format(cell, form)}" for cell in cells])
    rows = zip(*parts, strict=True)
    return [None if None in row else "".join(cell for cell in row if cell) for row in rows]
