"""Which source reads a path, told from what lies there."""

from __future__ import annotations

from chexray.data.schema import IMAGE_SUFFIXES
from chexray.data.sources._archives import ARCHIVE_SUFFIXES, PACKED
from chexray.data.sources._patterns import find_files, is_glob
from chexray.data.sources._peer_rows import tables_in
from chexray.data.sources._tables import TABLE_SUFFIXES, suffix
from chexray.data.sources.parquet_images import has_images
from chexray.data.sources.synthchex import archive_in, is_synthchex
from chexray.errors import ManifestError, StorageError
from chexray.storage import Storage, absolute
from chexray.text import shown


def infer(path: str, storage: Storage, key: str = "") -> str:
    """The source that reads `path`: "table", "folder", "parquet_images", "archive" or "synthchex". key: where the set's
    settings stand.

    Raises ManifestError when none does.
    """
    try:
        where = absolute(path)
        if is_glob(where):
            return _of_pattern(path, where, storage, key)
        if storage.is_dir(where):
            return _of_folder(where, storage)
        if not storage.exists(where):
            raise ManifestError(
                f"{shown(path)}: there is no such file or folder. Correct the path, or create the file."
            )
        kind = suffix(where)
        if is_synthchex(where, storage):
            return "synthchex"
        if where.lower().endswith(ARCHIVE_SUFFIXES):
            return "archive"
        if kind == ".parquet" and has_images(where, storage):
            return "parquet_images"
    except StorageError as error:
        raise ManifestError(f"{shown(path)}: cannot be read as a set ({error})") from error
    if kind in TABLE_SUFFIXES:
        return "table"
    if PACKED.search(where):
        raise ManifestError(
            f"{shown(path)}: is an archive of which no part can be read by itself. Unpack it and name the folder, or "
            "write its files as .zip or .tar."
        )
    is_image = where.lower().endswith(IMAGE_SUFFIXES)
    hint = "Name the folder that holds it" if is_image else f"Set {_setting(key, 'source')} to say what it is"
    raise ManifestError(f"{shown(path)}: expected a folder of images or a table ({', '.join(TABLE_SUFFIXES)}). {hint}.")


def _of_pattern(path: str, where: str, storage: Storage, key: str) -> str:
    kinds = (("parquet_images", ".parquet"), ("archive", ARCHIVE_SUFFIXES))
    files = find_files(where, storage, (".parquet", *ARCHIVE_SUFFIXES))
    for kind, ends in kinds:
        if any(file.lower().endswith(ends) for file in files):
            return "synthchex" if is_synthchex(files[0], storage) else kind
    raise ManifestError(
        f"{shown(path)}: no Parquet file matches, nor .zip nor .tar, and patterns name nothing else. Name a table, or "
        f"a folder with {_setting(key, 'pattern')}."
    )


def _of_folder(where: str, storage: Storage) -> str:
    if tables_in(where, storage):
        return "table"
    if (archive := archive_in(where, storage)) and is_synthchex(archive, storage):
        return "synthchex"
    names = [entry.uri for entry in storage.list(where)]
    kinds = (("folder", IMAGE_SUFFIXES), ("parquet_images", ".parquet"), ("archive", ARCHIVE_SUFFIXES))
    found = [(kind, [name for name in names if name.lower().endswith(ends)]) for kind, ends in kinds]
    kind, files = next(((kind, files) for kind, files in found if files), ("folder", []))
    return "synthchex" if kind == "parquet_images" and is_synthchex(files[0], storage) else kind


def _setting(key: str, name: str) -> str:
    return f"{key}.{name}" if key else f"`{name}`"
