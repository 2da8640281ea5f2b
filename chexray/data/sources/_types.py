"""Columns of any Arrow type made fit for what follows: each can be cut, sorted, shown as text and given to Python."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from chexray.errors import ManifestError
from chexray.text import quoted, shown

MAX_COLUMN_BYTES = (1 << 31) - 1
"""Arrow counts the text of one column in 31 bits."""

UNREADABLE = (pa.ArrowException, ValueError, TypeError, ArithmeticError, LookupError, NotImplementedError)
"""What Arrow and Python raise for values outside their types: text that is no UTF-8, the year 300,000, a time zone that
nobody knows. Their words may quote the value."""


def checked(table: pa.Table, where: str) -> pa.Table:
    """The table with every column in its ordinary type, see `plain`, and proven to be readable value by value.

    A column that Arrow can neither sort nor cut, or whose values Python lacks, becomes text. Raises ManifestError,
    naming the column, for one that is not even that.
    """
    columns = {name: _checked(table[name], name, where) for name in table.column_names}
    return pa.table(columns, metadata=table.schema.metadata)


def plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column in its ordinary type: dictionaries decoded, large and view strings as strings."""
    kind = column.type
    while pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        kind = pa.string()
    if kind == column.type:
        return column
    try:
        return column.cast(kind)
    except UNREADABLE:  # `checked` says what is wrong with it
        return column


def kind_of(kind: pa.DataType) -> str:
    """The name of a type for a message, without the fields of a struct: their names may come from cells."""
    return shown(str(kind).partition("<")[0], 60)


def holds_bytes(kind: pa.DataType) -> bool:
    """Whether the values are bytes, of any length and layout."""
    is_bytes = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
    return any(test(kind) for test in is_bytes)


def is_nested(kind: pa.DataType) -> bool:
    """Whether the values are lists, structs, maps or unions, which no id and no path is."""
    return pa.types.is_nested(kind) or pa.types.is_dictionary(kind)


def holds_pixels(kind: pa.DataType) -> bool:
    """Whether the values are lists of numbers, at any depth, as Hugging Face's Array3D writes an image."""
    while pa.types.is_nested(kind) and kind.num_fields == 1 and not pa.types.is_struct(kind):
        kind = kind.field(0).type
        if pa.types.is_integer(kind) or pa.types.is_floating(kind):
            return True
    return False


def _checked(column: pa.ChunkedArray, name: str, where: str) -> pa.ChunkedArray:
    column = plain(column)
    if column.nbytes > MAX_COLUMN_BYTES:
        raise ManifestError(f"{where}: column {quoted(name)} holds more than 2 GB. Split the set, or leave it out.")
    if _is_usable(column):
        return column
    text = _text(column)
    if text is None:
        raise ManifestError(
            f"{where}: column {quoted(name)} ({kind_of(column.type)}) holds values that cannot be read, such as text "
            "that is not UTF-8. Write it again as text or numbers, or leave it out."
        )
    return text


def _is_usable(column: pa.ChunkedArray) -> bool:
    leaves = list(_leaves(column.type))
    try:
        column.validate(full=True)  # also that text is UTF-8, at any depth
        if not (leaves == [column.type] and _is_simple(column.type)):
            column.take(pa.array([0] if len(column) else [], pa.int64()))
        # Python's dates and times end long before Arrow's.
        if pa.types.is_temporal(column.type) and not pa.types.is_interval(column.type):
            pc.call_function("min_max", [column]).as_py()
        elif any(pa.types.is_temporal(leaf) for leaf in leaves):
            column.to_pylist()
    except UNREADABLE:
        return False
    return True


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """The values as text, by Arrow where it can; None where nobody can."""
    ways = (
        lambda: column.cast(pa.string()),
        lambda: pa.chunked_array([pa.array([None if v is None else str(v) for v in column.to_pylist()], pa.string())]),
    )
    for way in ways:
        try:
            text = way()
            text.validate(full=True)
        except UNREADABLE:
            continue
        return text
    return None


def _leaves(kind: pa.DataType) -> Iterator[pa.DataType]:
    """The types at the bottom of a nested type; a type that is not nested is its own."""
    waiting = [kind]
    while waiting:
        kind = waiting.pop()
        if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
            waiting.append(kind.value_type)
        elif kind.num_fields:
            waiting += [kind.field(place).type for place in range(kind.num_fields)]
        else:
            yield kind


def _is_simple(kind: pa.DataType) -> bool:
    tests = ("boolean", "integer", "floating", "string", "binary", "large_binary", "null", "decimal", "temporal")
    return any(getattr(pa.types, f"is_{name}")(kind) for name in tests)
