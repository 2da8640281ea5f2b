"""Tables in memory (pandas, Arrow, polars ..., or a list of rows) as Arrow tables of plain values."""

from __future__ import annotations

from os import PathLike, fspath
from typing import Any

import pyarrow as pa

from chexray.data.sources._names import refuse_repeats
from chexray.errors import ManifestError
from chexray.text import quoted, shown


def is_frame(value: object) -> bool:
    """Whether a value is a table: a pandas DataFrame, or what offers Arrow its columns, as polars does."""
    return _is_pandas(value) or isinstance(value, pa.Table) or hasattr(value, "__arrow_c_stream__")


def as_arrow(value: Any, where: str) -> pa.Table:
    """The rows of a table; an index that has a name is a column. Raises ManifestError that begins with `where`, and
    repeats no value."""
    if _is_pandas(value):
        named = [name for name in value.index.names if name is not None]
        value = value.reset_index(named) if named else value
        refuse_repeats([str(name) for name in value.columns], where)
        # Names of columns may be numbers.
        return pa.table(
            {str(name): _column(value[name], f"{where} column {quoted(str(name))}") for name in value.columns}
        )
    if isinstance(value, list) and all(isinstance(row, dict) for row in value):
        names = list(dict.fromkeys(str(name) for row in value for name in row))
        return pa.table({name: _column([row.get(name) for row in value], f"{where} {quoted(name)}") for name in names})
    if isinstance(value, pa.Table) or hasattr(value, "__arrow_c_stream__"):
        try:
            return pa.table(value).replace_schema_metadata(None)
        except (pa.ArrowException, TypeError, ValueError):
            raise ManifestError(f"{where} {shown(type(value).__name__, 60)} that Arrow cannot read.") from None
    raise ManifestError(f"{where} {shown(type(value).__name__, 60)}, expected a table of one row an image.")


def _column(values: Any, where: str) -> pa.Array:
    """A column of plain values; paths become text."""
    try:
        if isinstance(values, list) or values.dtype == object:
            values = [fspath(each) if isinstance(each, PathLike) else each for each in values]
        return pa.array(values, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        raise ManifestError(f"{where} whose values are no texts, numbers or dates of one kind. Convert it.") from None


def _is_pandas(value: object) -> bool:
    return type(value).__name__ == "DataFrame" and type(value).__module__.partition(".")[0] == "pandas"
