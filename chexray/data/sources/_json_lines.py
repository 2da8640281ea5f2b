"""JSON lines to Arrow. Python's json rather than Arrow's, which would turn text that looks like a date into one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from chexray.data.sources._bytes import MAX_COLUMNS
from chexray.data.values import is_utf8
from chexray.errors import ManifestError
from chexray.text import quoted

MAX_CELLS = 200_000_000
"""Rows times columns: lines with a new key each would take the square of their number."""
MAX_KEYS = 1_000
"""Distinct keys of the objects in one column; a column of more is kept as JSON text, for the same reason."""
MAX_KEY_CELLS = 50_000_000
MAX_DEPTH = 16
"""Lists and objects inside each other; deeper ones are kept as JSON text."""

_UNFIT = (pa.ArrowException, OverflowError, RecursionError, ValueError, TypeError)


def read_json_lines(where: str, data: bytes) -> pa.Table:
    """One row an object; values of several types, and numbers Arrow cannot hold, become their text.

    Raises ManifestError, with the line and never its text, for a line that is no object or repeats a key.
    """
    rows: list[dict[str, object]] = []
    names: dict[str, None] = {}
    for number, line in enumerate(data.splitlines(), start=1):
        if not line.strip():
            continue
        row = _object(line, where, number)
        names.update(dict.fromkeys(row))
        rows.append(row)
        if len(names) > MAX_COLUMNS or len(names) * len(rows) > MAX_CELLS:
            raise ManifestError(
                f"{where}: its lines have {len(names):,} different keys by line {number:,}, too many for a table. "
                "Give every line the same keys."
            )
    columns, fields = [], []
    for name in names:
        values = [row.get(name) for row in rows]
        columns.append(_column(values, where, name))
        fields.append(_name(name, where))
    return pa.Table.from_arrays(columns, names=fields)


class _Repeated(Exception):
    """An object has a key twice; nobody knows which one is meant."""


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _Repeated
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_without_repeats)


def _object(line: bytes, where: str, number: int) -> dict[str, object]:
    row, problem = None, "is not a JSON object. Expected one object an image and line"
    try:
        row = _DECODER.decode(str(line, "utf-8"))
    except _Repeated:
        problem = "has a key twice. Keep one of them"
    except (ValueError, RecursionError):  # no JSON, a number of over 4,300 digits, or nested beyond reason
        pass  # the error holds the line: it must not be kept, not even as a context
    if not isinstance(row, dict):
        raise ManifestError(f"{where}: line {number:,} {problem}.")
    return row


def _name(name: str, where: str) -> str:
    if not is_utf8(name):
        raise ManifestError(f"{where}: the key {quoted(name)} is not valid text. Write it as UTF-8.")
    return name


def _column(values: list[object], where: str, name: str) -> pa.Array:
    if not _would_explode(values):
        try:
            return pa.array(values)
        except _UNFIT:
            pass
    try:
        return pa.array([value if value is None or isinstance(value, str) else json.dumps(value) for value in values])
    except _UNFIT:
        pass
    stray = next((row for row, value in enumerate(values, start=1) if isinstance(value, str) and not is_utf8(value)), 0)
    if stray:
        raise ManifestError(
            f"{where}: {quoted(name)} of data row {stray:,} holds half a character (a lone surrogate, \\ud800 to "
            "\\udfff). Write the text again as UTF-8."
        )
    raise ManifestError(f"{where}: the values of {quoted(name)} fit no column. Write them as text, or leave them out.")


def _would_explode(values: Sequence[object]) -> bool:
    """Whether a column of these cells would have too many fields, one for each key of any object, or too deep ones."""
    waiting: list[tuple[int, Sequence[Any]]] = [(0, values)]
    n_keys = n_cells = 0
    while waiting:
        depth, cells = waiting.pop()
        objects = [cell for cell in cells if isinstance(cell, dict)]
        inner = [item for cell in cells if isinstance(cell, list) for item in cell if isinstance(item, dict | list)]
        if inner:
            waiting.append((depth + 1, inner))
        keys = set().union(*objects) if objects else set()
        n_keys += len(keys)
        n_cells += len(keys) * len(objects)
        if depth > MAX_DEPTH or n_keys > MAX_KEYS or n_cells > MAX_KEY_CELLS:
            return True
        for key in keys:
            below = [cell[key] for cell in objects if isinstance(cell.get(key), dict | list)]
            if below:
                waiting.append((depth + 1, below))
    return False
