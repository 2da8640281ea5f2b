"""A table file (CSV, TSV, Parquet, JSON lines; also gzipped) to Arrow, with ids and paths kept as written."""

from __future__ import annotations

import io
from collections.abc import Callable

import pyarrow as pa

from chexray.data.schema import METADATA_KEY
from chexray.data.sources._bytes import table_bytes, utf8
from chexray.data.sources._csv import read_csv
from chexray.data.sources._json_lines import read_json_lines
from chexray.data.sources._names import refuse_repeats
from chexray.data.sources._types import checked
from chexray.errors import ManifestError, StorageError
from chexray.storage import Storage, basename
from chexray.storage.parquet import ParquetFile
from chexray.text import shown

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson")


def suffix(path: str) -> str:
    """The lower-case suffix of a table, without .gz: ".csv" for A.CSV.gz."""
    name = basename(path).lower().removesuffix(".gz")
    return name[name.rfind(".") :] if "." in name else ""


def read_table(path: str, storage: Storage, is_text: Callable[[str], bool]) -> pa.Table:
    """All columns of a table file; those for which `is_text(name)` holds are strings, so that 00012 keeps its zeros.

    Other columns have the type their values show. Raises ManifestError for a file that is missing, empty or malformed,
    without showing its rows, which may be patients' text.
    """
    kind, where = suffix(path), shown(path)
    if kind not in TABLE_SUFFIXES:
        raise ManifestError(f"{where}: expected a table ({', '.join(TABLE_SUFFIXES)}, or .gz of one). Convert it.")
    return table_of(path, table_bytes(path, storage), is_text)


def table_of(path: str, data: bytes, is_text: Callable[[str], bool]) -> pa.Table:
    """The same of the file's content, not gzipped; its name says of which kind it is."""
    kind, where = suffix(path), shown(path)
    if kind != ".parquet":
        data = utf8(data, where)
    if not data.strip():
        raise ManifestError(f"{where}: the file is empty. Expected a table with a header and one row an image.")
    if kind == ".parquet":
        table = _parquet(where, data)
    elif kind in (".jsonl", ".ndjson"):
        table = read_json_lines(where, data)
    else:
        table = read_csv(where, data, "\t" if kind == ".tsv" else ",", is_text)
    refuse_repeats(table.column_names, where)
    if not len(table):
        raise ManifestError(f"{where}: the table has a header and no rows. Expected one row an image.")
    return checked(table, where)


def _parquet(path: str, data: bytes) -> pa.Table:
    try:
        file = ParquetFile(io.BytesIO(data), path)
        return file.read_bounded().replace_schema_metadata({METADATA_KEY: file.handed})
    except StorageError as error:
        raise ManifestError(str(error)) from None
