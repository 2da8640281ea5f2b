"""Tables in memory (pandas, Arrow, polars ..., or a list of rows) as Arrow tables of plain values."""

from __future__ import annotations

from os import PathLike, fspath
from typing import Any

import pyarrow as pa

from chexray.data.sources._names import refuse_repeats
from chexray.errors import ManifestError
from chexray.text import first_line, shown


def is_frame(value: Any) -> bool:
    """Whether a value is a table: a pandas DataFrame, or what offers Arrow its columns, as polars does."""
    return _is_pandas(value) or isinstance(value, pa.Table) or hasattr(value, "__arrow_c_stream__")


def as_arrow(value: Any, where: str) -> pa.Table:
    """The rows of a table; an index that has a name is a column. Raises ManifestError that begins with `where`."""
    try:
        if _is_pandas(value):
            named = [name for name in value.index.names if name is not None]
            value = value.reset_index(named) if named else value
            refuse_repeats([str(name) for name in value.columns], where)
            # Paths are no type of Arrow's; names of columns may be numbers.
            columns = {str(name): _without_paths(value[name]) for name in value.columns}
            return pa.table({name: pa.array(column, from_pandas=True) for name, column in columns.items()})
        if isinstance(value, list) and all(isinstance(row, dict) for row in value):
            return pa.Table.from_pylist([{key: _plain(cell) for key, cell in row.items()} for row in value])
        if isinstance(value, pa.Table) or hasattr(value, "__arrow_c_stream__"):
            return pa.table(value).replace_schema_metadata(None)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise ManifestError(
            f"{where} a table that cannot be read ({first_line(error, 100)}). Use plain values."
        ) from None
    raise ManifestError(f"{where} {shown(type(value).__name__, 60)}, expected a table of one row an image.")


def _is_pandas(value: Any) -> bool:
    return type(value).__name__ == "DataFrame" and type(value).__module__.startswith("pandas.")


def _without_paths(column: Any) -> Any:
    return column.map(_plain) if column.dtype == object else column


def _plain(value: Any) -> Any:
    return fspath(value) if isinstance(value, PathLike) else value
