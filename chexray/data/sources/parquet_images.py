"""Sets given as Parquet files that hold the encoded images themselves."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import pyarrow as pa
import pyarrow.compute as pc

from chexray.data.images import embedded_uri
from chexray.data.keys import setting
from chexray.data.sources import _columns
from chexray.data.sources._names import no_such_column, refuse_repeats
from chexray.data.sources._splits import chooser, left_out, of_shards
from chexray.data.sources._types import checked, is_nested, kind_of, plain
from chexray.data.values import as_text, blank_to_null
from chexray.errors import ManifestError, StorageError
from chexray.storage import Storage, absolute, basename
from chexray.text import listed, quoted, shown

IMAGE_COLUMNS = ("image", "img", "image_bytes", "bytes", "png", "jpeg", "jpg")


@dataclass(frozen=True)
class ParquetImages:
    """Parquet with embedded PNG, JPEG or DICOM bytes: a binary column, or a {bytes, path} struct as `datasets` writes.

    Only columns other than the images are read here. sample_id is a column of ids or file names where there is one,
    otherwise file and row.
    """

    path: str
    """A file, a folder, or a pattern with `*` and `?`."""
    image_column: str | None = None
    """Column of the images. Default: recognised."""
    columns: dict[str, str | None] | None = None
    """Roles of the other columns, as for a table."""
    split: str | None = None
    """Split to read, where files are named after splits, such as `train`; `all` reads them as one set."""

    def __post_init__(self) -> None:
        _columns.check_columns(self.columns)

    def read(self, origin: str, storage: Storage) -> pa.Table:
        """The rows of all files, in the order of their names, as a source's table."""
        where = absolute(self.path)
        try:
            files = find_files(where, storage)
            if not files:
                raise ManifestError(f"{self.path}: no Parquet file is there. Correct {setting(origin, 'path')}.")
            start = len(_folder_of(where)) + 1
            below = {file: file[start:] or basename(file) for file in files}
            chosen = chooser(list(below.values()), self.split, of_shards, shown(self.path), origin)
            kept = [file for file in files if chosen(below[file])]
            parts = [self._part(_columns.nameable(file), origin, storage) for file in kept]
        except StorageError as error:
            raise ManifestError(f"{self.path}: cannot be read ({error})") from error
        table = _joined(parts, self.path)
        if not len(table):
            raise ManifestError(f"{self.path}: the Parquet files have no rows. Expected one row an image.")
        uri, place, inner = (table[name].combine_chunks() for name in (_URI, _PLACE, _INNER))
        table = checked(table.drop_columns([_URI, _PLACE, _INNER]), self.path)
        # The image column itself is not a path, and must not be looked for.
        roles = _columns.detect(table.column_names, origin, {"image": None, **(self.columns or {})}, self.path)
        ids = roles.sample_id or next((name for name in table.column_names if _names_a_file(name)), None)
        if ids is not None:
            sample_id = _columns.role_as_text(table[ids], ids, "sample_id", self.path, origin)
        else:
            unique = inner.null_count == 0 and len(inner.unique()) == len(inner)
            sample_id = inner if unique else place
        roles = replace(roles, sample_id=ids, image=None)
        notes = [left_out(len(files) - len(kept), str(self.split))] if len(kept) < len(files) else []
        return _columns.standardise(
            table, roles, sample_id=sample_id, uri=uri, where=self.path, origin=origin, notes=notes
        )

    def _part(self, file: str, origin: str, storage: Storage) -> pa.Table:
        """The columns of one file beside its images, with each image's address."""
        with storage.open_parquet(file) as parquet:
            schema = parquet.schema
            refuse_repeats(schema.names, shown(file))
            image = self.image_column or image_column(schema)
            if image is None or image not in schema.names:
                raise ManifestError(_no_images(file, image, schema, origin))
            if not _is_bytes(schema.field(image).type):
                raise ManifestError(
                    f"{file}: column {quoted(image)} is {kind_of(schema.field(image).type)}, expected binary or "
                    "{bytes, path}. Name another in " + f"{setting(origin, 'image_column')}."
                )
            wanted = [name for name in schema.names if name != image]
            is_struct = pa.types.is_struct(schema.field(image).type)
            has_path = is_struct and schema.field(image).type.get_field_index("path") >= 0
            table = parquet.read_bounded([*wanted, f"{image}.path"] if has_path else wanted)
            n = parquet.n_rows
        inner = pa.nulls(n, pa.string())
        if has_path:
            paths = checked(
                pa.table({"path": pc.call_function("struct_field", [table[image]], pc.StructFieldOptions("path"))}),
                shown(file),
            )["path"]
            inner = inner if is_nested(paths.type) else blank_to_null(as_text(paths))
            table = table.drop_columns([image])
        columns = {name: plain(table[name]) for name in table.column_names}
        columns[_URI] = pa.array([embedded_uri(file, image, row) for row in range(n)], pa.string())
        columns[_PLACE] = pa.array([f"{basename(file)}:{row}" for row in range(n)], pa.string())
        columns[_INNER] = inner
        return pa.table(columns)


# Names no table has: columns that travel with each part until all are joined.
_URI, _PLACE, _INNER = "\0uri", "\0place", "\0inner"


def _joined(parts: list[pa.Table], where: str) -> pa.Table:
    """The rows of all files. Raises ManifestError, without Arrow's words, when their columns do not fit together."""
    try:
        return pa.concat_tables(parts, promote_options="permissive")
    except pa.ArrowException:
        pass
    kinds: dict[str, pa.DataType] = {}
    unlike = ""
    for field in (field for part in parts for field in part.schema):
        if not unlike and kinds.setdefault(field.name, field.type) != field.type:
            unlike = (
                f": {quoted(field.name)} is {kind_of(kinds[field.name])} in one and {kind_of(field.type)} in another"
            )
    raise ManifestError(f"{where}: its {len(parts)} files differ in columns{unlike}. Give all one schema.")


def is_glob(path: str) -> bool:
    """Whether a path is a pattern."""
    return "*" in path or "?" in path


def find_files(where: str, storage: Storage) -> list[str]:
    """The Parquet files a path stands for, sorted; [] when there are none."""
    if is_glob(where):
        depth = where.count("/")
        found = [entry.uri for entry in storage.list(_folder_of(where) or "/")]
        # A star stands for a part of one name, as in a shell; ** for any folders.
        return [f for f in found if fnmatchcase(f, where) and ("**" in where or f.count("/") == depth)]
    if storage.is_dir(where):
        return [entry.uri for entry in storage.list(where) if entry.uri.lower().endswith(".parquet")]
    return [where] if storage.exists(where) else []


def _folder_of(where: str) -> str:
    """The folder below which the files of a path are."""
    if not is_glob(where):
        return where.rstrip("/")
    fixed = where[: min(where.find(sign) for sign in "*?" if sign in where)]
    return fixed[: fixed.rfind("/")]


def image_column(schema: pa.Schema) -> str | None:
    """The column of a schema that holds encoded images: a known name first, then the only one with bytes."""
    holders = [name for name in schema.names if _is_bytes(schema.field(name).type)]
    known = [name for wanted in IMAGE_COLUMNS for name in holders if name.lower() == wanted]
    return known[0] if known else holders[0] if len(holders) == 1 else None


def has_images(path: str, storage: Storage) -> bool:
    """Whether a Parquet file holds encoded images, in one column or, where none names a file, in several; reads its
    footer only."""
    with storage.open_parquet(path) as parquet:
        schema = parquet.schema
    several = any(_is_bytes(field.type) for field in schema) and not any(map(_columns.names_an_image, schema.names))
    return several or image_column(schema) is not None


def _is_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _is_bytes(kind.field(index).type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def _names_a_file(name: str) -> bool:
    return name.lower() in ("image_filename", "filename", "file_name", "image_path", "path", "img_savename")


def _no_images(file: str, image: str | None, schema: pa.Schema, origin: str) -> str:
    if image is not None:
        found = no_such_column(image, schema.names)
        return f"{file}: has no column {quoted(image)}, named in {setting(origin, 'image_column')}. {found}"
    return (
        f"{file}: no column, or more than one, holds image bytes. Columns: {listed(schema.names)}. "
        f"Name it in {setting(origin, 'image_column')}, or set {setting(origin, 'source')}: table when images are "
        "separate files."
    )
