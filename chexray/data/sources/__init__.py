"""Where a set of images comes from: one module a kind of source, all giving the same table."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import pyarrow as pa

from chexray.errors import ManifestError, StorageError
from chexray.storage import Storage, absolute, basename
from chexray.text import shown


@runtime_checkable
class Source(Protocol):
    """A frozen dataclass whose fields are the keys a set may have in the config."""

    def read(self, origin: str, storage: Storage) -> pa.Table:
        """One row an image: sample_id and uri (absolute or s3://, or `file.parquet#column=image&row=17`), strings.

        Optional: subject_id and prompt (strings), labels (fixed-size list of 14 int8: 1, 0, -1, null). Then every
        further column of the input, unchanged. origin: "real" or "synthetic"; it decides which columns are looked for.
        Raises ManifestError: what, where, found against expected, what to do.
        """
        ...


def infer(path: str, storage: Storage, key: str = "") -> str:
    """The source that reads `path`: "table", "folder" or "parquet_images". key: where the set's settings stand.

    Raises ManifestError when none does.
    """
    from chexray.data.sources._tables import TABLE_SUFFIXES, suffix
    from chexray.data.sources.folder import IMAGE_SUFFIXES
    from chexray.data.sources.parquet_images import find_files, has_images, is_glob

    try:
        where = absolute(path)
        if is_glob(where):
            if any(file.lower().endswith(".parquet") for file in find_files(where, storage)):
                return "parquet_images"
            raise ManifestError(
                f"{shown(path)}: no Parquet file matches, and patterns name nothing else. Name a table, or a folder "
                f"with {_setting(key, 'pattern')}."
            )
        if storage.is_dir(where):
            names = [basename(entry.uri).lower() for entry in storage.list(where)]
            has_parquet, has_files = (any(n.endswith(s) for n in names) for s in (".parquet", IMAGE_SUFFIXES))
            return "parquet_images" if has_parquet and not has_files else "folder"
        if not storage.exists(where):
            raise ManifestError(
                f"{shown(path)}: there is no such file or folder. Correct the path, or create the file."
            )
        kind = suffix(where)
        if kind == ".parquet" and has_images(where, storage):
            return "parquet_images"
    except StorageError as error:
        raise ManifestError(f"{shown(path)}: cannot be read as a set ({error})") from error
    if kind in TABLE_SUFFIXES:
        return "table"
    is_image = where.lower().endswith(IMAGE_SUFFIXES)
    hint = "Name the folder that holds it" if is_image else f"Set {_setting(key, 'source')} to say what it is"
    raise ManifestError(f"{shown(path)}: expected a folder of images or a table ({', '.join(TABLE_SUFFIXES)}). {hint}.")


def _setting(key: str, name: str) -> str:
    return f"{key}.{name}" if key else f"`{name}`"
