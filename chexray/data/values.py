"""Values of Arrow columns seen as text, as numbers or as codes, whatever type a table gave them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

_NO_CAST = (pa.ArrowInvalid, pa.ArrowNotImplementedError)


def as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Values as strings; whole floats without a point, so that 1 in one table and 1.0 in another are one value."""
    if pa.types.is_floating(column.type):
        numbers = column.cast(pa.float64()).to_numpy()
        nulls = np.isnan(numbers)
        known = numbers[~nulls]
        if (known == np.floor(known)).all() and (np.abs(known) < 2**53).all():
            whole = pa.array(np.where(nulls, 0, numbers).astype(np.int64), mask=nulls)
            return pa.chunked_array([whole.cast(pa.string())])
        column = pa.chunked_array([pa.array(numbers, mask=nulls)])
    try:
        return column.cast(pa.string())
    except _NO_CAST:
        return pa.chunked_array([pa.array([None if v is None else str(v) for v in column.to_pylist()], pa.string())])


def as_numbers(column: pa.ChunkedArray) -> np.ndarray | None:
    """Values as float64 with NaN for null, or None when the column is not one of numbers."""
    if pa.types.is_boolean(column.type):
        return None
    try:
        return column.cast(pa.float64()).to_numpy()
    except _NO_CAST:
        return None


def codes(column: pa.ChunkedArray) -> np.ndarray:
    """Equal int32 for equal values, in order of appearance; null is a value of its own. Lists and structs included."""
    try:
        encoded = column.dictionary_encode("encode")
    except _NO_CAST:
        texts = pa.chunked_array([pa.array([repr(value) for value in column.to_pylist()], pa.string())])
        encoded = texts.dictionary_encode()
    return encoded.combine_chunks().indices.to_numpy()


def is_identifier(name: str) -> bool:
    """Whether a column name says that its values are identifiers: id, patientID, study_id, StudyInstanceUID."""
    return re.search(r"(?i)(^|[_\s-])u?id$", name) is not None or re.search(r"[a-z](ID|Id|UID)$", name) is not None


def nearest(word: str, known: Sequence[str], *, shown: int = 30) -> str:
    """The end of an error: the nearest known word, or all of them (at most `shown`)."""
    near = difflib.get_close_matches(word, known, n=1)
    if not near:  # case is the commonest typo of column names
        lowered = {name.lower(): name for name in known}
        near = [lowered[match] for match in difflib.get_close_matches(word.lower(), lowered, n=1)]
    more = f" and {len(known) - shown} more" if len(known) > shown else ""
    return f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known[:shown])}{more}."
