"""Which source reads a path, told from what lies there."""

from __future__ import annotations

from chexray.data.schema import IMAGE_SUFFIXES
from chexray.data.sources._tables import TABLE_SUFFIXES, suffix
from chexray.data.sources.parquet_images import find_files, has_images, is_glob
from chexray.errors import ManifestError, StorageError
from chexray.storage import Storage, absolute, basename
from chexray.text import shown


def infer(path: str, storage: Storage, key: str = "") -> str:
    """The source that reads `path`: "table", "folder" or "parquet_images". key: where the set's settings stand.

    Raises ManifestError when none does.
    """
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
