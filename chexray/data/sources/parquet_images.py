"""Sets given as Parquet files that hold the encoded images themselves."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from chexray.data.containers import array3d
from chexray.data.containers.addresses import embedded_uri
from chexray.data.containers.order import MOST
from chexray.data.keys import setting
from chexray.data.sources import _columns
from chexray.data.sources._names import no_such_column, refuse_repeats
from chexray.data.sources._patterns import find_files, folder_of, missing_shards
from chexray.data.sources._peer_rows import with_groups
from chexray.data.sources._peers import recognise
from chexray.data.sources._splits import chooser, left_out, of_shards
from chexray.data.sources._types import checked, is_nested, kind_of, plain
from chexray.data.values import as_text, blank_to_null
from chexray.errors import ManifestError, StorageError
from chexray.storage import Storage, absolute, basename
from chexray.text import listed, quoted, shown

READERS = 8
"""Files whose footers are read at once."""
LARGE_GROUP = 1_000
"""Images of a row group, as older versions of Hugging Face datasets wrote them, beyond which reading it is slow."""
IMAGE_COLUMNS = ("image", "img", "image_bytes", "bytes", "png", "jpeg", "jpg")


@dataclass(frozen=True)
class ParquetImages:
    """Parquet that holds the images: PNG, JPEG or DICOM bytes, the {bytes, path} struct that `datasets` writes, or
    pixels as nested lists (Array3D, Array2D).

    Only columns other than the images are read here. sample_id is a column of ids or file names where there is one,
    otherwise file and row.
    """

    path: str
    """A file, a folder, or a pattern with `*`, `?` and `{000..010}`."""
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
            files = find_files(where, storage, (".parquet",))
            if not files:
                raise ManifestError(f"{shown(self.path)}: no Parquet file is there. Correct {setting(origin, 'path')}.")
            start = len(folder_of(where)) + 1
            below = {file: file[start:] or basename(file) for file in files}
            chosen = chooser(list(below.values()), self.split, of_shards, shown(self.path), origin)
            kept = [file for file in files if chosen(below[file])]
            with ThreadPoolExecutor(READERS) as pool:
                parts = list(pool.map(lambda file: self._part(_columns.nameable(file), origin, storage), kept))
        except StorageError as error:
            raise ManifestError(f"{shown(self.path)}: cannot be read ({error})") from error
        table = _joined([part for part, _ in parts], self.path)
        if not len(table):
            raise ManifestError(f"{shown(self.path)}: the Parquet files have no rows. Expected one row an image.")
        uri, place, inner = (table[name].combine_chunks() for name in (_URI, _PLACE, _INNER))
        table = checked(table.drop_columns([_URI, _PLACE, _INNER]), self.path)
        # The image column itself is not a path, and must not be looked for.
        named = {"image": None, **(self.columns or {})}
        kinds, peer = _columns.kinds_of(table), recognise([*table.column_names, *IMAGE_COLUMNS])
        roles = _columns.detect(table.column_names, origin, named, self.path, kinds=kinds, peer=peer)
        title, groups = "", {}
        if peer is not None:
            title, (table, groups) = peer.title, with_groups(table, peer)
        ids = roles.sample_id or next((name for name in table.column_names if _names_a_file(name)), None)
        if ids is not None:
            sample_id = _columns.role_as_text(table[ids], ids, "sample_id", self.path, origin)
        else:
            unique = inner.null_count == 0 and len(inner.unique()) == len(inner)
            sample_id = inner if unique else place
        roles = replace(roles, sample_id=ids, image=None, groups=groups)
        notes = [left_out(len(files) - len(kept), str(self.split))] if len(kept) < len(files) else []
        notes += missing_shards(kept, where)
        if (most := max(n for _, n in parts)) > LARGE_GROUP:
            notes.append(
                f"row groups of up to {most:,} images, of which each is read as a whole for every {MOST} images: write "
                "about 100 images a row group to read faster"
            )
        return _columns.standardise(
            table, roles, sample_id=sample_id, uri=uri, where=self.path, origin=origin, notes=notes, title=title
        )

    def _part(self, file: str, origin: str, storage: Storage) -> tuple[pa.Table, int]:
        """The columns of one file beside its images, with each image's address, and the rows of its largest group."""
        with storage.open_parquet(file) as parquet:
            schema = parquet.schema
            refuse_repeats(schema.names, shown(file))
            image = self.image_column or image_column(schema)
            if image is None or image not in schema.names:
                raise ManifestError(_no_images(file, image, schema, origin))
            if why := _unfit(schema.field(image).type, parquet.described.get(image)):
                raise ManifestError(
                    f"{shown(file)}: column {quoted(image)} {why}. Name another in {setting(origin, 'image_column')}."
                )
            wanted = [name for name in schema.names if name != image]
            is_struct = pa.types.is_struct(schema.field(image).type)
            has_path = is_struct and schema.field(image).type.get_field_index("path") >= 0
            table = parquet.read_bounded([*wanted, f"{image}.path"] if has_path else wanted)
            n, most = parquet.n_rows, max(parquet.group_rows, default=0)
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
        return pa.table(columns), most


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


def image_column(schema: pa.Schema) -> str | None:
    """The column of a schema that holds images: a known name first, then the only one with bytes, or else, where no
    text names image files, with lists of lists of numbers."""
    encoded = [name for name in schema.names if _is_bytes(schema.field(name).type)]
    pixels = [name for name in schema.names if array3d.depth_of(schema.field(name).type) > 1]
    known = [name for wanted in IMAGE_COLUMNS for name in (*encoded, *pixels) if name.lower() == wanted]
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    named = [f.name for f in schema if _columns.names_an_image(f.name) and any(test(f.type) for test in texts)]
    holders = encoded or ([] if named else pixels)
    return known[0] if known else holders[0] if len(holders) == 1 else None


def _unfit(kind: pa.DataType, described: object) -> str:
    """Why a column holds no images, "" where it may. described: what Hugging Face metadata say of it."""
    if array3d.depth_of(kind) > 1:
        return array3d.unfit(kind, described)
    return "" if _is_bytes(kind) else f"is {kind_of(kind)}, expected binary, {{bytes, path}} or nested lists of pixels"


def has_images(path: str, storage: Storage) -> bool:
    """Whether a Parquet file holds images, in one column or, where none names a file, in several; reads its footer
    only."""
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
