"""The folder that holds all images of a table whose paths are absolute."""

from __future__ import annotations

from chexray.data.sources import _columns
from chexray.data.sources._tables import TABLE_SUFFIXES, read_table, suffix
from chexray.data.sources._types import holds_bytes, is_nested
from chexray.data.values import as_text, blank_to_null
from chexray.storage import Storage, absolute
from chexray.storage.uris import folder_of_cells, split


def root_of_absolute_paths(path: str, origin: str, storage: Storage) -> str | None:
    """The deepest folder that holds every image of the table `path`; None where its paths are relative, where it is
    no table of paths, where only the root of the file system or a whole bucket holds them all, or where they are
    addresses of servers, which nobody but the user names.

    Raises ManifestError for a table that cannot be read.
    """
    where = absolute(path)
    if suffix(where) not in TABLE_SUFFIXES or storage.is_dir(where):
        return None
    table = read_table(where, storage, lambda name: _columns.is_text(name, None))
    column = _columns.detect(table.column_names, origin, None, where).image
    if column is None or holds_bytes(table[column].type) or is_nested(table[column].type):
        return None
    images = [image for image in blank_to_null(as_text(table[column])).to_pylist() if image]
    folder = folder_of_cells(images)
    return folder if folder and split(folder)[1] else None
