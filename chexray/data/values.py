"""Values of Arrow columns seen as text, as numbers or as codes, whatever type a table gave them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from chexray.storage import is_remote
from chexray.text import listed, quoted

_NO_CAST = (pa.ArrowException,)
_NEAREST_OF, _NEAREST_CHARS = 2_000, 200
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


_INSIDE = re.compile(r"(.+)#column=[^&#]+&row=\d+", re.DOTALL)


def file_of(uri: str) -> str:
    """The file that a uri names: `part.parquet` of `part.parquet#column=image&row=17`, others as they are."""
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


def fold(name: str) -> str:
    """A column or finding name without case, spaces and punctuation: "Pleural Effusion" and pleural_effusion agree."""
    return re.sub(r"[^0-9a-z]", "", name.lower())


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


def nearest(word: str, known: Sequence[str], *, shown: int = 30) -> str:
    """The end of an error: the nearest known word, or all of them (at most `shown`)."""
    # Comparing is quadratic in length, and a stranger's table may have 20,000 columns with names of any length.
    word, short = word[:_NEAREST_CHARS], [name for name in known[:_NEAREST_OF] if len(name) <= _NEAREST_CHARS]
    near = difflib.get_close_matches(word, short, n=1)
    if not near:  # case is the commonest typo of column names
        lowered = {name.lower(): name for name in short}
        near = [lowered[match] for match in difflib.get_close_matches(word.lower(), lowered, n=1)]
    return f"Did you mean {quoted(near[0])}?" if near else f"Known: {listed(known, shown)}."
