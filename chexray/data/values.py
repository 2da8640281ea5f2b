"""Values of Arrow columns seen as text, as numbers or as codes, whatever type a table gave them."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa

from chexray.storage import is_remote
from chexray.text import quoted

_NO_CAST = (pa.ArrowException,)
# Neither blanks nor the signs that text and rows are made of: an id or a path of a published data set has none.
_IDENTIFIER = re.compile(r"""[^\s,;|{}<>"']{1,200}""")


def is_utf8(text: str) -> bool:
    """Whether Arrow can hold the text: a file name may have bytes, and JSON half a character, that are no text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def may_exist(uri: str) -> bool:
    """Whether a file could be called so. A name longer than any system allows is a missing file, not a failing disk."""
    whole, step = len(uri.encode()), max(map(len, uri.encode().split(b"/")))
    return whole <= (1024 if is_remote(uri) else 4095) and (step <= 255 or is_remote(uri))


_INSIDE = re.compile(r"(.+)#(?:column=[^&#]+&row=\d+|member=[^&#]*&at=[0-9a-f:]+)", re.DOTALL)


def file_of(uri: str) -> str:
    """The file that a uri names: `part.parquet` of `part.parquet#column=image&row=17`, `a.zip` of
    `a.zip#member=x.png&at=...`, others as they are."""
    found = _INSIDE.fullmatch(uri)
    return found[1] if found else uri


def is_id_like(text: object) -> bool:
    """Whether a cell may be an id or a path and is no text: no blank, at most 200 characters."""
    return isinstance(text, str) and _IDENTIFIER.fullmatch(text) is not None


def identified(value: object) -> str:
    """An id or a path of a row for a message; anything else, which may be a patient's text, only by its length.

    The column may have been chosen by mistake. Messages also give the row, which finds the cell.
    """
    if value is None:
        return "nothing"
    return quoted(value) if is_id_like(value) else f"a text of {len(str(value)):,} characters"


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
    except _NO_CAST:  # bytes that are no text, and nested values, as Python writes them
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


def blank_to_null(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Text with empty and blank cells as null: two images without a prompt do not share one."""
    texts = [text if text and text.strip() else None for text in column.to_pylist()]
    return pa.chunked_array([pa.array(texts, pa.string())])
