"""A table file (CSV, TSV, Parquet, JSON lines; also gzipped) to Arrow, with ids and paths kept as written."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from chexray.errors import ManifestError, StorageError
from chexray.storage import Storage, basename

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson")

NULLS = (*pa_csv.ConvertOptions().null_values, "None")
"""Cells of a CSV that mean nothing is there; "None" is what Python's csv module writes for it."""


def suffix(path: str) -> str:
    """The lower-case suffix of a table, without .gz: ".csv" for A.CSV.gz."""
    name = basename(path).lower().removesuffix(".gz")
    return name[name.rfind(".") :] if "." in name else ""


def read_table(path: str, storage: Storage, is_text: Callable[[str], bool]) -> pa.Table:
    """All columns of a table file; those for which `is_text(name)` holds are strings, so that 00012 keeps its zeros.

    Other columns have the type their values show. Raises ManifestError for a file that is missing, empty or malformed,
    without showing its rows, which may be patients' text.
    """
    kind = suffix(path)
    if kind not in TABLE_SUFFIXES:
        raise ManifestError(f"{path}: expected a table ({', '.join(TABLE_SUFFIXES)}, or .gz of one). Convert it.")
    try:
        data = storage.read(path)
    except StorageError as error:
        raise ManifestError(f"{path}: the table cannot be read ({error})") from error
    if path.lower().endswith(".gz"):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise ManifestError(f"{path}: is not a whole gzip file ({error}). Write it again.") from None
    if not data.strip(b"\xef\xbb\xbf \t\r\n"):
        raise ManifestError(f"{path}: the file is empty. Expected a table with a header and one row an image.")
    if kind == ".parquet":
        table = _parquet(path, data)
    elif kind in (".jsonl", ".ndjson"):
        table = _json_lines(path, data)
    else:
        table = _csv(path, data, "\t" if kind == ".tsv" else ",", is_text)
    if len(set(table.column_names)) < table.num_columns:
        twice = max(table.column_names, key=table.column_names.count)
        raise ManifestError(f"{path}: two columns are called {twice!r}. Rename one of them.")
    if not len(table):
        raise ManifestError(f"{path}: the table has a header and no rows. Expected one row an image.")
    return pa.table({name: plain(table[name]) for name in table.column_names})


def plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column in its ordinary type: dictionaries decoded, large and view strings as strings."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        kind = pa.string()
    return column if kind == column.type else column.cast(kind)


def _csv(path: str, data: bytes, delimiter: str, is_text: Callable[[str], bool]) -> pa.Table:
    try:
        text = io.StringIO(data[: 1 << 20].decode("utf-8-sig", errors="ignore"), newline="")
        names = next(csv.reader(text, delimiter=delimiter))
    except (csv.Error, StopIteration) as error:
        raise ManifestError(f"{path}: the header cannot be read ({error}). Give it one line of names.") from None
    bad: list[pa_csv.InvalidRow] = []

    def stop(row: pa_csv.InvalidRow) -> str:
        bad.append(row)
        return "error"

    # One block: types are then inferred from every row, and a prompt may hold line breaks.
    read = pa_csv.ReadOptions(use_threads=False, block_size=min(len(data) + 1, 1 << 30))
    parse = pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=stop)
    convert = pa_csv.ConvertOptions(
        column_types={name: pa.string() for name in names if is_text(name)},
        null_values=list(NULLS),
        strings_can_be_null=True,
    )
    try:
        table = pa_csv.read_csv(io.BytesIO(data), read_options=read, parse_options=parse, convert_options=convert)
    except pa.ArrowInvalid as error:
        if bad:
            row = bad[0]
            line = "a row" if row.number is None else f"data row {row.number - 1}"
            raise ManifestError(
                f"{path}: {line} has {row.actual_columns} cells, the header has {row.expected_columns} columns. Quote "
                "text that holds the delimiter, and check that the file is whole."
            ) from None
        if "utf8" not in str(error).lower():
            raise ManifestError(f"{path}: is not a readable CSV ({str(error).splitlines()[0][:120]}).") from None
        table = None
    # Arrow takes a column of other text for one of bytes.
    if table is None or any(pa.types.is_binary(kind) for kind in table.schema.types):
        raise ManifestError(f"{path}: the table is not UTF-8 text. Save it again as UTF-8.")
    return table


def _parquet(path: str, data: bytes) -> pa.Table:
    try:
        return pq.read_table(pa.BufferReader(data))
    except (pa.ArrowException, OSError) as error:
        raise ManifestError(f"{path}: is not a readable Parquet file ({str(error)[:120]}). Write it again.") from None


def _json_lines(path: str, data: bytes) -> pa.Table:
    """Python's json rather than Arrow's: Arrow would turn text that looks like a date into one."""
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:  # also covers text that is not UTF-8
            row = None
        if not isinstance(row, dict):
            raise ManifestError(f"{path}: line {number} is not a JSON object. Expected one object an image and line.")
        rows.append(row)
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {}
    for name in names:
        values = [row.get(name) for row in rows]
        try:
            columns[name] = pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError):  # values of several types: their text is all they share
            columns[name] = pa.array([v if v is None or isinstance(v, str) else json.dumps(v) for v in values])
    return pa.table(columns)
