"""The 14 CheXpert labels of an image: read by name, kept as given, and turned into groups by a named policy.

A manifest keeps what the labeller said: 1 positive, 0 negative, -1 uncertain, null not mentioned (Irvin et al. 2019).
What uncertain and not mentioned count as is decided later, by the run's `label_policy`, which every result records.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from chexray.data.finding_lists import is_known_word, read_lists, read_words
from chexray.data.literals import Repeating, literal
from chexray.errors import ConfigError, ManifestError
from chexray.findings import FINDINGS
from chexray.spelling import fold, nearest, suggestion
from chexray.text import listed, quoted

LABELS_TYPE = pa.list_(pa.int8(), len(FINDINGS))
"""Arrow type of the `labels` column: 14 int8 in the order of FINDINGS; a null list is an image nobody labelled."""

POLICIES = {"u_zeros": ("zeros", "zeros"), "u_ones": ("ones", "zeros"), "u_ignore": ("ignore", "ignore")}
"""Policy -> what uncertain findings and what unmentioned ones count as."""

_COUNTS_AS = {"zeros": 0, "ones": 1, "ignore": -1}

NOT_MENTIONED, UNLABELLED = -2, -3
"""Codes of `to_codes` beside 1, 0 and -1; they never leave numpy."""

INDEX = {fold(name): index for index, name in enumerate(FINDINGS)}
"""Folded finding name -> its position in every label vector."""

# The common cases of a cell, answered without work: a table of 237,388 images holds 3.3 million of them.
_EXACT = {name: index for index, name in enumerate(FINDINGS)}
_USUAL = {1: 1, 0: 0, -1: -1, None: NOT_MENTIONED}


class NoLabels(ManifestError):
    """A column called labels holds something else, such as class numbers: a set without labels may still be used."""


def apply(labels: pa.Array | pa.ChunkedArray, policy: str = "u_zeros") -> np.ndarray:
    """The `labels` column as (n, 14) int8 under `policy`: 1 positive, 0 negative, -1 in neither group.

    u_zeros: uncertain and not mentioned count as negative, as in upstream CheXGenBench (U-Zeros of Irvin et al. 2019).
    u_ones: uncertain counts as positive, not mentioned as negative (U-Ones).
    u_ignore: uncertain and not mentioned are in neither group (U-Ignore).
    An image without any labels is in neither group under every policy. The policy is recorded in the results.
    Raises ConfigError for another name.
    """
    if policy not in POLICIES:
        raise ConfigError(f"label_policy: {quoted(policy)} is not one of {', '.join(POLICIES)}.")
    return targets(labels, *POLICIES[policy])


def targets(labels: pa.Array | pa.ChunkedArray, uncertain: str, unmentioned: str) -> np.ndarray:
    """The same with a word for each: what -1 and what a finding nobody mentioned count as, "zeros", "ones" or "ignore".

    (n, 14) int8: 1, 0, or -1 where the label is to be left out of loss and scores.
    """
    codes = to_codes(labels)
    out = codes.copy()
    out[codes == -1] = _COUNTS_AS[uncertain]
    out[codes == NOT_MENTIONED] = _COUNTS_AS[unmentioned]
    out[codes == UNLABELLED] = -1
    return out


def to_codes(labels: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """The `labels` column as (n, 14) int8: 1, 0, -1, NOT_MENTIONED for a null, UNLABELLED for a null list."""
    array = labels.combine_chunks() if isinstance(labels, pa.ChunkedArray) else labels
    codes = np.full((len(array), len(FINDINGS)), UNLABELLED, dtype=np.int8)
    labelled = array.is_valid().to_numpy(zero_copy_only=False)
    values = pc.fill_null(array.drop_null().flatten(), NOT_MENTIONED).to_numpy(zero_copy_only=False)
    codes[labelled] = values.reshape(-1, len(FINDINGS))
    return codes


def from_codes(codes: np.ndarray) -> pa.Array:
    """The `labels` column of (n, 14) int8 codes; the inverse of `to_codes`."""
    flat = np.ascontiguousarray(codes, dtype=np.int8).reshape(-1)
    values = pa.array(flat, type=pa.int8(), mask=flat < -1)
    unlabelled = pa.array((codes == UNLABELLED).all(axis=1))
    return pa.FixedSizeListArray.from_arrays(values, type=LABELS_TYPE, mask=unlabelled)


def from_column(column: pa.ChunkedArray, where: str, key: str = "columns.labels", *, lists: bool = True) -> pa.Array:
    """`labels` from one column of mappings: text of a Python dict or of JSON, or structs, {finding: 1/0/-1/None/nan}.

    Findings are taken by name, never by their order, and one that is left out is not mentioned. One that is named twice
    must have one value. An empty or NaN cell
    is an image without labels. lists: a column of lists of findings, or of `Edema|Fracture`, says what is positive,
    and the rest is not mentioned. key: the setting that names the column, for messages.
    Raises NoLabels, starting with `where`, for a column without a mapping, and ManifestError for an unknown finding,
    another value, and a cell that is no mapping beside others that are.
    """
    encoded = column.cast(pa.string()) if pa.types.is_large_string(column.type) else column
    if pa.types.is_null(encoded.type):
        return pa.nulls(len(column), LABELS_TYPE)
    index = first = np.arange(len(encoded))
    cells: list[Any]
    if pa.types.is_string(encoded.type):
        # Far fewer distinct label dicts than rows: each is parsed once.
        dictionary = encoded.dictionary_encode("encode").combine_chunks()
        index, cells = dictionary.indices.to_numpy(), dictionary.dictionary.to_pylist()
        first = np.full(len(cells), len(index), dtype=np.int64)
        np.minimum.at(first, index, np.arange(len(index)))
    else:
        cells = encoded.to_pylist()
    named = read_lists(cells) if lists else None
    if named is not None:
        codes = [_positive(places) for places in named]
    else:
        codes = [
            _codes(_read(cell, cells, where, row, key), where, row, key)
            for cell, row in zip(cells, (first + 1).tolist(), strict=True)
        ]
    return from_codes(np.array(codes, dtype=np.int8).reshape(-1, len(FINDINGS))[index])


def are_mappings(column: pa.ChunkedArray) -> bool:
    """Whether the cells say themselves what each finding is, as a filtered table has them."""
    first = next((cell for cell in column.slice(0, 1000).to_pylist() if cell), None)
    return isinstance(first, Mapping) or _may_map(first)


def from_words(column: pa.ChunkedArray, name: str) -> tuple[pa.Array, str]:
    """`labels` from a column that lists findings in words, and a line that counts those which are none of the 14.

    A finding that is listed is positive, the rest is not mentioned. name: of the column, in which every word stays.
    """
    cells = column.to_pylist()
    named, others = read_words(cells)
    codes = np.array([_positive(places) for places in named], dtype=np.int8).reshape(-1, len(FINDINGS))
    if not others:
        return from_codes(codes), ""
    counts = Counter(others)
    # A cell may hold a patient's name: only words of published tables are shown.
    often = [f"{word} ({n:,})" for word, n in counts.most_common() if is_known_word(word)][:4]
    return from_codes(codes), (
        f"{len(counts):,} words of column {quoted(name, 60)}, {len(others):,} times in all, are none of the 14 "
        f"findings and count for none{f': {listed(often)}' if often else ''}"
    )


def _positive(places: list[int] | None) -> list[int]:
    """The codes of an image with the findings of these places; of one nobody labelled for None."""
    if places is None:
        return [UNLABELLED] * len(FINDINGS)
    return [1 if place in places else NOT_MENTIONED for place in range(len(FINDINGS))]


def _read(cell: object, cells: list[object], where: str, row: int, key: str) -> Mapping[Any, Any] | None:
    """One cell to a mapping, or None when it is empty."""
    value = literal(cell) if isinstance(cell, str) else cell
    if value is None or isinstance(value, Mapping) or (isinstance(value, float) and math.isnan(value)):
        return value if isinstance(value, Mapping) else None
    # The cell is not shown: a column chosen by mistake may hold report text.
    found = f"({len(cell)} characters) are" if isinstance(cell, str) else f"are a {type(cell).__name__},"
    kind = ManifestError if any(isinstance(each, Mapping) or _may_map(each) for each in cells) else NoLabels
    raise kind(
        f"{where}: the labels of data row {row} {found} not a mapping of finding to 1, 0, -1 or None, such as "
        f"{{'Edema': 1.0, 'Fracture': None}}: labels are read by name. Name the right column in {key}, or set it to "
        "null for no labels."
    )


def _may_map(cell: object) -> bool:
    return isinstance(cell, str) and re.match(r"\s*(\{|(\w+\.)*\w*([dD]ict|mappingproxy|Counter)\()", cell) is not None


def from_finding_columns(
    table: pa.Table, names: Mapping[str, str], where: str, key: str = "columns.labels"
) -> pa.Array:
    """`labels` from one column a finding; `names` maps a finding to its column. Findings without a column are null.

    An image that is null in every one of these columns is one without labels. A further column of the same name in
    another spelling fills what is empty. Raises ManifestError for other values, and where two columns differ.
    """
    codes = np.full((len(table), len(FINDINGS)), NOT_MENTIONED, dtype=np.int8)
    for finding, name in names.items():
        place = INDEX[fold(finding)]
        alike = [other for other in table.column_names if other != name and fold(other) == fold(name)]
        for column in (name, *alike):
            found, said = _column_codes(table, column, where, key), codes[:, place]
            differ = (found != said) & (found != NOT_MENTIONED) & (said != NOT_MENTIONED)
            if differ.any():
                raise ManifestError(
                    f"{where}: columns {quoted(name, 60)} and {quoted(column, 60)} are both {FINDINGS[place]} and "
                    f"differ in {int(differ.sum()):,} rows, first in data row {int(np.argmax(differ)) + 1}. Rename "
                    f"one, or set {key} to null for no labels."
                )
            codes[:, place] = np.where(found == NOT_MENTIONED, said, found)
    codes[(codes == NOT_MENTIONED).all(axis=1)] = UNLABELLED
    return from_codes(codes)


def _column_codes(table: pa.Table, name: str, where: str, key: str) -> np.ndarray:
    """(n,) int8 of a column of numbers: 1, 0, -1, and NOT_MENTIONED for an empty cell."""
    try:
        values = table[name].cast(pa.float64()).to_numpy()
    except pa.ArrowException:
        values = np.array([_number(value) for value in table[name].to_pylist()])
    known = np.isnan(values) | np.isin(values, (1, 0, -1))
    if not known.all():
        row = int(np.argmin(known))
        raise ManifestError(
            f"{where}: column {quoted(name)} of data row {row + 1} is {_kind(table[name][row].as_py())}, "
            f"expected 1, 0, -1 or empty. Correct it, or set {key} to null for no labels."
        )
    return np.where(np.isnan(values), NOT_MENTIONED, values).astype(np.int8)


def _codes(cell: Mapping[Any, object] | None, where: str, row: int, key: str) -> list[int]:
    """One mapping to 14 codes."""
    if cell is None:
        return [UNLABELLED] * len(FINDINGS)
    codes = [NOT_MENTIONED] * len(FINDINGS)
    for name, value in cell.pairs if isinstance(cell, Repeating) else cell.items():
        index = _EXACT.get(name)
        if index is None and isinstance(name, str):
            index = INDEX.get(fold(name))
        if index is None:
            raise ManifestError(
                f"{where}: the labels of data row {row} name {_unknown(name)} Correct it, or set {key} to another "
                "column or to null."
            )
        code = _code(value, index, where, row, key)
        if codes[index] not in (NOT_MENTIONED, code) and code != NOT_MENTIONED:
            raise ManifestError(
                f"{where}: the labels of data row {row} say two things of {FINDINGS[index]}: {codes[index]} and "
                f"{code}. Keep one, or set {key} to another column or to null."
            )
        codes[index] = codes[index] if code == NOT_MENTIONED else code
    return codes


def _code(value: object, index: int, where: str, row: int, key: str) -> int:
    """1, 0, -1, or NOT_MENTIONED for what is empty."""
    if value is None or isinstance(value, float | int):
        code = _USUAL.get(value)
        if code is not None:
            return code
    number = _number(value)
    if math.isnan(number):
        return NOT_MENTIONED
    if number not in (1.0, 0.0, -1.0):
        raise ManifestError(
            f"{where}: {FINDINGS[index]} of data row {row} is {_kind(value)}, expected 1, 0, -1 or "
            f"None. Correct the cell, or set {key} to null for no labels."
        )
    return int(number)


def _unknown(name: object) -> str:
    """The end of an error about a finding: the name itself only when it is nearly one, since a key may be any text."""
    text = name if isinstance(name, str) and len(name) <= 60 else ""
    hint = suggestion(text, FINDINGS)
    if nearest(text, FINDINGS, cutoff=0.75):
        return f"the finding {quoted(name)}. {hint}"
    length = f"of {len(name):,} characters" if isinstance(name, str) else "that is no text"
    return f"an unknown finding {length}. {hint}"


def _kind(value: object) -> str:
    """What a cell is, for a message that must not repeat it: a column chosen by mistake may hold anything."""
    if isinstance(value, str):
        return f"a text of {len(value):,} characters"
    return "another number" if isinstance(value, int | float) else f"a {type(value).__name__}"


def _number(value: Any) -> float:
    """A label value as a number: NaN for what is empty, infinity for what is none."""
    if value is None or (isinstance(value, str) and value.strip().lower() in ("", "nan", "none", "null")):
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):  # OverflowError: whole numbers of 400 digits
        return math.inf
