"""The names of a table's columns in messages: near ones and the first few, none where the header is a patient's row."""

from __future__ import annotations

import re
from collections.abc import Sequence

from chexray.data.schema import IMAGE_SUFFIXES
from chexray.data.values import is_id_like
from chexray.errors import ManifestError
from chexray.spelling import nearest
from chexray.text import listed, quoted

NO_HEADER = "a first line that looks like a row of data. Give the table a header with the names of its columns"

_NAME_CHARS = 100
# A file or its address, a sentence, or a mapping: no published table calls a column so.
_OF_A_ROW = re.compile(r"[\n\t{}]|[,;:.] |\.$|\.\./|://|\.(png|jpe?g|dcm|dicom|bmp|tiff?|webp)$", re.IGNORECASE)


def without_suffix(name: str) -> str:
    """The name without the suffix of an image. Only a known one at the very end goes: ids hold points of their own."""
    suffix = next((end for end in IMAGE_SUFFIXES if name.lower().endswith(end)), "")
    return name[: len(name) - len(suffix)]


def is_row(names: Sequence[str]) -> bool:
    """Whether these names are the first row of a table without a header, and so a patient's: not to be shown."""
    return any(len(name) > _NAME_CHARS or _OF_A_ROW.search(name) for name in names)


def no_such_column(wanted: str, names: Sequence[str]) -> str:
    """The end of an error about a missing column: the nearest name, where one is near, and the first of all."""
    if is_row(names):
        return f"Found {NO_HEADER}."
    near = nearest(wanted, names)
    return f"{f'Did you mean {quoted(near)}? ' if near else ''}Columns: {listed(names)}."


def refuse_repeats(names: Sequence[str], where: str) -> None:
    """Raises ManifestError when two columns have one name."""
    first: dict[str, int] = {}
    for place, name in enumerate(names):
        if first.setdefault(name, place) != place:
            if is_row(names):
                raise ManifestError(f"{where}: two columns have one name; found {NO_HEADER}.")
            called = f"are called {quoted(name)}" if is_id_like(name) else "have one name"
            raise ManifestError(
                f"{where}: two columns {called}, number {first[name] + 1:,} and {place + 1:,}. Rename one of them."
            )
