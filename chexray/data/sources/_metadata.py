"""The metadata.csv or .jsonl of a folder of images, also one in each subfolder: a row for each image it describes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa

from chexray.data.sources import _columns
from chexray.data.sources._places import Root, places_of
from chexray.data.sources._tables import TABLE_SUFFIXES, read_table, suffix
from chexray.data.values import blank_to_null, identified
from chexray.errors import ManifestError
from chexray.storage import Storage, basename, parent
from chexray.text import shown


def is_metadata(name: str) -> bool:
    """Whether a path below a folder is that of a table about its images; files of hidden folders are not."""
    last = basename(name).lower()
    return last.startswith("metadata.") and suffix(last) in TABLE_SUFFIXES and not f"/{name}".count("/.")


def read_metadata(
    paths: Sequence[str],
    root: str,
    columns: Mapping[str, str | None] | None,
    wanted: Callable[[str], bool],
    origin: str,
    storage: Storage,
) -> tuple[pa.Table, str, dict[str, int]]:
    """The rows of all tables, the column that names images, and {uri: its row}; rows of unwanted images are left out.

    Paths of images start from the folder of their table. Raises ManifestError for two tables in one folder, a row
    without an image, and two rows about one.
    """
    tables: list[pa.Table] = []
    row_of: dict[str, int] = {}
    places: list[tuple[str, int]] = []
    column = ""
    for path in paths:
        other = next((each for each in paths if each != path and parent(each) == parent(path)), None)
        if other:
            raise ManifestError(
                f"{shown(parent(path))}: holds both {shown(basename(path))} and {shown(basename(other))}. Keep one of "
                "them."
            )
        table = read_table(path, storage, lambda name: _columns.is_text(name, columns))
        column = _image_column(table, origin, columns, path)
        texts = _columns.role_as_text(table[column], column, "image", path, origin)
        here = Root(root, "", parent(path), parent(path), named=False)
        for row, uri in enumerate(places_of(path, here, blank_to_null(texts).to_pylist(), None)):
            if uri is None:
                raise ManifestError(
                    f"{path}: data row {row + 1} has no {shown(column, 60)}. Fill it, or remove the row."
                )
            if wanted(below(uri, root)) and row_of.setdefault(uri, len(places)) != len(places):
                first, earlier = places[row_of[uri]]
                both = f"data rows {earlier} and {row + 1} both describe"
                if first != path:
                    both = f"data row {row + 1} and {shown(first)} (row {earlier}) both describe"
                raise ManifestError(f"{path}: {both} {identified(below(uri, root))}. Remove one.")
            places.append((path, row + 1))
        tables.append(table.rename_columns([column if name == column else name for name in table.column_names]))
    try:
        return pa.concat_tables(tables, promote_options="permissive"), column, row_of
    except pa.ArrowException:
        pass
    raise ManifestError(f"{shown(root)}: its {len(tables)} metadata tables differ in columns. Give all one schema.")


def below(uri: str, root: str) -> str:
    return uri[len(root.rstrip("/")) + 1 :]


def _image_column(table: pa.Table, origin: str, columns: Mapping[str, str | None] | None, path: str) -> str:
    names = table.column_names
    roles = _columns.detect(names, origin, columns, path, kinds=_columns.kinds_of(table))
    column = "file_name" if "file_name" in names and not (columns or {}).get("image") else roles.image
    if column is None:
        raise _columns.no_image_column(names, origin, path)
    return column
