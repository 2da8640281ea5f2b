"""CSV and TSV to Arrow, with ids and paths kept as written. No word of a parser is shown: it may quote a row."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from contextlib import suppress

import pyarrow as pa
import pyarrow.csv as pa_csv

from chexray.data.sources._bytes import MAX_COLUMNS
from chexray.data.sources._names import is_row
from chexray.errors import ManifestError

NULLS = (*pa_csv.ConvertOptions().null_values, "None")
"""Cells of a CSV that mean nothing is there; "None" is what Python's csv module writes for it."""

_HEADER_BYTES = 1 << 24
_SEPARATOR = re.compile(rb'\A\s*"?sep=."?[ ;,\t]*\r?\n', re.IGNORECASE)
"""The first line of a CSV that Excel is told its delimiter by."""
_DELIMITERS = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a vertical bar"}


def read_csv(where: str, data: bytes, delimiter: str, is_text: Callable[[str], bool]) -> pa.Table:
    """The table of CSV text, which must be UTF-8 without a byte order mark. Raises ManifestError without its cells.

    delimiter: what is expected; another one is taken where the header has one column by it and several by the other.
    """
    data = _SEPARATOR.sub(b"", data, count=1)
    names, delimiter = _header(where, data, delimiter)
    if _padded(data, delimiter, len(names)):
        data = _unpadded(data, delimiter)
        names = [name.strip() for name in names]
    bad: list[tuple[int | None, int, int]] = []

    def stop(row: pa_csv.InvalidRow) -> str:
        bad.append((row.number, row.actual_columns, row.expected_columns))
        return "error"

    # One block: types are then inferred from every row, and a prompt may hold line breaks.
    read = pa_csv.ReadOptions(use_threads=False, block_size=len(data) + 1)
    parse = pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=stop)
    convert = pa_csv.ConvertOptions(
        column_types={name: pa.string() for name in names if is_text(name)},
        null_values=list(NULLS),
        strings_can_be_null=True,
    )
    table = None
    # What Arrow says may hold a row, also as the context of another error: it is said below in words of our own.
    with suppress(pa.ArrowException):
        table = pa_csv.read_csv(io.BytesIO(data), read_options=read, parse_options=parse, convert_options=convert)
    if table is None and bad:
        number, found, expected = bad[0]
        line = "a row" if number is None else f"data row {number - 1:,}"
        raise ManifestError(
            f"{where}: {line} has {found:,} cells, the header has {expected:,} columns. Quote text that holds the "
            "delimiter, and check that the file is whole."
        )
    if table is None or _swallowed(table, data):
        raise ManifestError(f"{where}: is not a readable CSV: a quote that is opened is never closed. Close it.")
    return table


def _first_rows(data: bytes, delimiter: str, n: int) -> list[list[str]]:
    """The first lines that are not empty; fewer where the text is no CSV."""
    text = io.StringIO(data[:_HEADER_BYTES].decode(errors="ignore"), newline="")
    rows: list[list[str]] = []
    with suppress(csv.Error):
        for row in csv.reader(text, delimiter=delimiter):
            rows += [row] if row else []
            if len(rows) == n:
                break
    return rows


def _padded(data: bytes, delimiter: str, n_columns: int) -> bool:
    """Whether a blank follows every delimiter of the header or of the first row."""
    rows = [row[1:] for row in _first_rows(data, delimiter, 2)]
    return n_columns > 1 and any(row and all(cell.startswith(" ") for cell in row) for row in rows)


def _unpadded(data: bytes, delimiter: str) -> bytes:
    """The text without blanks after delimiters, where Arrow would take quotes for text."""
    out = io.StringIO(newline="")
    source = io.StringIO(data.decode(), newline="")
    try:
        csv.writer(out, delimiter=delimiter, lineterminator="\n").writerows(
            csv.reader(source, delimiter=delimiter, skipinitialspace=True)
        )
    except csv.Error:
        return data
    return out.getvalue().encode()


def _header(where: str, data: bytes, delimiter: str) -> tuple[list[str], str]:
    """The names in the first line that is not empty, and what stands between them."""
    names = next(iter(_first_rows(data, delimiter, 1)), [])
    if len(names) == 1:
        others = {sign: next(iter(_first_rows(data, sign, 1)), []) for sign in _DELIMITERS if sign != delimiter}
        sign, most = max(others.items(), key=lambda item: len(item[1]))
        names, delimiter = (most, sign) if len(most) > 1 and not is_row(most) else (names, delimiter)
    if not names:
        raise ManifestError(f"{where}: the header cannot be read. Give the table one line of short names.")
    if len(names) > MAX_COLUMNS:
        raise ManifestError(f"{where}: has {len(names):,} columns, at most {MAX_COLUMNS:,} are read. Leave some out.")
    other = next((sign for sign in _DELIMITERS if sign != delimiter and sign in names[0]), None)
    if len(names) == 1 and other:
        raise ManifestError(
            f"{where}: has one column, and {_DELIMITERS[other]} in its name: the delimiter seems to be "
            f"{_DELIMITERS[other]}, expected {_DELIMITERS[delimiter]}. Save it with that."
        )
    return names, delimiter


def _swallowed(table: pa.Table, data: bytes) -> bool:
    """Whether the last cell took in the lines after it: to Arrow a quote may end with the file, and rows are lost."""
    if not len(table) or data.count(b'"') % 2 == 0:
        return False
    last = table.column(table.num_columns - 1)[-1].as_py()
    return isinstance(last, str) and ("\n" in last or "\r" in last)
