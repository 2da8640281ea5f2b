"""The Arrow extension types that a Parquet file names, and what is read of them.

An extension type is a name in a file's schema that a library of the reading process may have registered, and its code
then turns stored bytes into objects: `ray.data.arrow_pickled_object` unpickles them. So the names are read from the
footer before Arrow sees the file, and all but those of INERT refuse it; inert columns are read as their storage.
"""

from __future__ import annotations

import binascii
import io
import re
from typing import BinaryIO

import pyarrow as pa

from chexray.storage.uris import StorageFailure
from chexray.text import quoted, shown

INERT = frozenset(
    [
        *(f"arrow.{name}" for name in ("bool8", "fixed_shape_tensor", "json", "opaque", "uuid")),
        *("arrow.variable_shape_tensor", "arrow.timestamp_with_offset", "arrow.parquet.variant"),
        *(f"datasets.features.features.Array{n}DExtensionType" for n in (2, 3, 4, 5)),
    ]
)
"""Extension types that are read, as their storage: Arrow's canonical ones and the arrays of Hugging Face datasets."""


_MAGIC, _TAIL = b"PAR1", 8
_KEY, _HIDDEN_KEY = b"ARROW:extension:name", b"XRROW:extension:name"
_BASE64 = re.compile(rb"[A-Za-z0-9+/]{64,}")


def refuse_extensions(names: list[str], where: str) -> None:
    foreign = [name for name in names if name not in INERT]
    if foreign:
        raise StorageFailure(
            f"{where} is refused: it has a column of the Arrow extension type {quoted(foreign[0])}, which may run code "
            "when it is read. Write that column with a plain type (bytes, text or numbers).",
            code="refused",
        )


def names_in_footer(source: BinaryIO) -> list[str]:
    """Names of extension types in every Arrow schema of the footer, whatever place and order its writer gave it."""
    size = source.seek(0, io.SEEK_END)
    source.seek(max(0, size - _TAIL))
    tail = source.read(_TAIL)
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != _MAGIC or length > size - _TAIL:
        raise pa.ArrowInvalid("no Parquet footer")
    source.seek(size - _TAIL - length)
    footer = source.read(length)
    names: list[str] = []
    for run in _BASE64.finditer(footer):
        # The text before the schema may look like base64 too, so that it starts at any of four places.
        for start in range(4):
            decoded = _decoded(run[0][start:])
            if _KEY in decoded:
                begin = decoded.find(b"\xff\xff\xff\xff")
                # Before the schema stands its length, of which at most four digits look like base64. A marker further
                # on belongs to a schema inside this one, whose own form, before Arrow 0.15, has none.
                names += _names_in_message(decoded[begin:]) if begin in (0, 3) else ["unknown"]
    return names


def _decoded(run: bytes) -> bytes:
    """What a run of base64 characters holds, up to the last whole byte."""
    rest = len(run) % 4
    return binascii.a2b_base64(run[: len(run) - (rest == 1)] + b"==="[: (4 - rest) % 4 if rest > 1 else 0])


def _names_in_message(message: bytes) -> list[str]:
    """The names in an encapsulated Arrow schema, whose key is spelled otherwise first, so that Arrow acts on none."""
    try:
        schema = pa.ipc.read_schema(pa.py_buffer(message.replace(_KEY, _HIDDEN_KEY)))
    except Exception:
        return ["unknown"]  # it names one, and cannot be understood
    return names_in_schema(schema)


def names_in_schema(schema: pa.Schema) -> list[str]:
    names: list[str] = []
    waiting = list(schema)
    while waiting:
        field = waiting.pop()
        metadata = field.metadata or {}
        names += [shown(metadata[key].decode(errors="replace")) for key in (_KEY, _HIDDEN_KEY) if key in metadata]
        kind = field.type
        while isinstance(kind, pa.BaseExtensionType) or pa.types.is_dictionary(kind):
            if isinstance(kind, pa.BaseExtensionType):
                names.append(kind.extension_name)
                kind = kind.storage_type
            else:
                kind = kind.value_type
        waiting += [kind.field(i) for i in range(kind.num_fields)]
    return names


def as_storage(table: pa.Table) -> pa.Table:
    """The table with inert extension types replaced by what they store, and without the schema's metadata."""
    if not any(_has_extension(field.type) for field in table.schema):
        return table.replace_schema_metadata(None)
    columns = {}
    for place, field in enumerate(table.schema):
        column = table.column(place)
        columns[field.name] = column.cast(storage_type(field.type)) if _has_extension(field.type) else column
    return pa.table(columns)


def _has_extension(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.BaseExtensionType):
        return True
    if pa.types.is_dictionary(kind):
        return _has_extension(kind.value_type)
    return any(_has_extension(kind.field(i).type) for i in range(kind.num_fields))


def storage_type(kind: pa.DataType) -> pa.DataType:
    """The type with every extension type in it replaced by its storage."""
    if isinstance(kind, pa.BaseExtensionType):
        return storage_type(kind.storage_type)
    if not _has_extension(kind):
        return kind
    if pa.types.is_dictionary(kind):
        return storage_type(kind.value_type)
    inner = [kind.field(i).with_type(storage_type(kind.field(i).type)) for i in range(kind.num_fields)]
    if pa.types.is_struct(kind):
        return pa.struct(inner)
    if pa.types.is_map(kind):
        return pa.map_(storage_type(kind.key_type), storage_type(kind.item_type))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(inner[0], kind.list_size)
    return pa.large_list(inner[0]) if pa.types.is_large_list(kind) else pa.list_(inner[0])
