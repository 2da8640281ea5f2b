"""The folder that holds all images of a table whose paths are absolute."""

from __future__ import annotations

import os

from chexray.data.sources import _columns
from chexray.data.sources._tables import TABLE_SUFFIXES, read_table, suffix
from chexray.data.sources._types import holds_bytes, is_nested
from chexray.storage import Storage, absolute, is_remote
from chexray.storage.uris import local_path, split


def root_of_absolute_paths(path: str, origin: str, storage: Storage) -> str | None:
    """The deepest folder that holds every image of the table `path`; None where its paths are relative, where it is
    no table of paths, or where only the root of the file system or a whole bucket holds them all.

    Raises ManifestError for a table that cannot be read.
    """
    where = absolute(path)
    if suffix(where) not in TABLE_SUFFIXES or storage.is_dir(where):
        return None
    table = read_table(where, storage, lambda name: _columns.is_text(name, None))
    column = _columns.detect(table.column_names, origin, None, where).image
    if column is None or holds_bytes(table[column].type) or is_nested(table[column].type):
        return None
    images = [image for image in _columns.blank_to_null(_columns.as_text(table[column])).to_pylist() if image]
    if not images or not all(image.startswith(("/", "file://", "s3://", "s3a://")) for image in images):
        return None
    if len({is_remote(image) for image in images}) > 1:
        return None
    if not is_remote(images[0]):
        folder = os.path.commonpath([os.path.dirname(os.path.normpath(local_path(image))) for image in images])
        return None if folder == "/" else folder
    places = [split(image) for image in images]
    if len({front for front, _ in places}) > 1:
        return None
    folder = os.path.commonpath([os.path.dirname(below) for _, below in places])
    return f"{places[0][0]}{folder}" if folder.strip("/") else None
