"""The 14 CheXpert labels of an image: read by name, kept as given, and turned into groups by a named policy.

A manifest keeps what the labeller said: 1 positive, 0 negative, -1 uncertain, null not mentioned (Irvin et al. 2019).
What uncertain and not mentioned count as is decided later, by the run's `label_policy`, which every result records.
"""

from __future__ import annotations

import ast
import difflib
import json
import math
import re
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from chexray.errors import ConfigError, ManifestError
from chexray.findings import FINDINGS
from chexray.text import quoted

LABELS_TYPE = pa.list_(pa.int8(), len(FINDINGS))
"""Arrow type of the `labels` column: 14 int8 in the order of FINDINGS; a null list is an image nobody labelled."""

POLICIES = {"u_zeros": ("zeros", "zeros"), "u_ones": ("ones", "zeros"), "u_ignore": ("ignore", "ignore")}
"""Policy -> what uncertain findings and what unmentioned ones count as."""

_COUNTS_AS = {"zeros": 0, "ones": 1, "ignore": -1}

NOT_MENTIONED, UNLABELLED = -2, -3
"""Codes of `to_codes` beside 1, 0 and -1; they never leave numpy."""

MAX_CELL_CHARS = 4096
"""14 names and values take some 400 characters; a longer cell is another column, and is not parsed."""


def fold(name: str) -> str:
    """A column or finding name without case, spaces and punctuation: "Pleural Effusion" and pleural_effusion agree."""
    return re.sub(r"[^0-9a-z]", "", name.lower())


INDEX = {fold(name): index for index, name in enumerate(FINDINGS)}
"""Folded finding name -> its position in every label vector."""

# The common cases of a cell, answered without work: a table of 237,388 images holds 3.3 million of them.
_EXACT = {name: index for index, name in enumerate(FINDINGS)}
_USUAL = {1: 1, 0: 0, -1: -1, None: NOT_MENTIONED}
_NONE, _NAN = re.compile(r"\bNone\b"), re.compile(r"\bnan\b")
_WRAPPED = frozenset(
    [f"{kind}{size}" for kind in ("float", "int", "uint") for size in (8, 16, 32, 64, 128)]
    + ["bool", "bool_", "longdouble", "float", "int", "tensor", "array", "Tensor", "Array"]
)
"""What a number stands in when a mapping of NumPy 2 or torch is written with str(): np.float64(1.0), tensor(1.)."""
_NAMES = {"nan": None, "NaN": None, "True_": True, "False_": False}
_MAPPINGS = frozenset({"dict", "OrderedDict", "mappingproxy"})
MAX_DEPTH = 12
"""Brackets inside one another that are read; OrderedDict([('Edema', np.array([1.0]))]) has five."""


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


def from_column(column: pa.ChunkedArray, where: str) -> pa.Array:
    """`labels` from one column of mappings: text of a Python dict or of JSON, or structs, {finding: 1/0/-1/None/nan}.

    Findings are taken by name, never by their order, and one that is left out is not mentioned. An empty or NaN cell
    is an image without labels. Raises ManifestError, starting with `where`, for an unknown finding, another value, or a
    cell that is not a mapping.
    """
    encoded = column.cast(pa.string()) if pa.types.is_large_string(column.type) else column
    if not (pa.types.is_string(encoded.type) or pa.types.is_null(encoded.type)):
        cells = encoded.to_pylist()
        rows = [_codes(cell, where, row) for row, cell in enumerate(cells, start=1)]
        return from_codes(np.array(rows, dtype=np.int8).reshape(-1, len(FINDINGS)))
    if pa.types.is_null(encoded.type):
        return pa.nulls(len(column), LABELS_TYPE)
    # Far fewer distinct label dicts than rows: each is parsed once.
    dictionary = encoded.dictionary_encode("encode").combine_chunks()
    index = dictionary.indices.to_numpy()
    first_row = np.full(len(dictionary.dictionary), len(index), dtype=np.int64)
    np.minimum.at(first_row, index, np.arange(len(index)))
    rows = [
        _codes(_parse(cell, where, int(row) + 1), where, int(row) + 1)
        for cell, row in zip(dictionary.dictionary.to_pylist(), first_row, strict=True)
    ]
    return from_codes(np.array(rows, dtype=np.int8).reshape(-1, len(FINDINGS))[index])


def from_finding_columns(table: pa.Table, names: Mapping[str, str], where: str) -> pa.Array:
    """`labels` from one column a finding; `names` maps a finding to its column. Findings without a column are null.

    An image that is null in every one of these columns is one without labels. Raises ManifestError for other values.
    """
    codes = np.full((len(table), len(FINDINGS)), NOT_MENTIONED, dtype=np.int8)
    for finding, name in names.items():
        try:
            values = table[name].cast(pa.float64()).to_numpy()
        except pa.ArrowException:
            values = np.array([_number(value) for value in table[name].to_pylist()])
        known = np.isnan(values) | np.isin(values, (1, 0, -1))
        if not known.all():
            row = int(np.argmin(known))
            raise ManifestError(
                f"{where}: column {quoted(name)} of data row {row + 1} is {_kind(table[name][row].as_py())}, "
                "expected 1, 0, -1 or empty. Correct it, or leave labels out with columns: {labels: null}."
            )
        codes[:, INDEX[fold(finding)]] = np.where(np.isnan(values), NOT_MENTIONED, values).astype(np.int8)
    codes[(codes == NOT_MENTIONED).all(axis=1)] = UNLABELLED
    return from_codes(codes)


def _parse(cell: str | None, where: str, row: int) -> Any:
    """One text cell to a mapping, or None when it is empty."""
    if cell is None or cell.strip().lower() in ("", "nan", "none", "null"):
        return None
    if len(cell) <= MAX_CELL_CHARS:
        text = cell.replace("'", '"')
        try:
            # json is some ten times faster than ast, and reads what upstream writes once the quotes are its own.
            return json.loads(_NONE.sub("null", _NAN.sub("NaN", text)))
        except (ValueError, RecursionError):
            pass
        try:
            with warnings.catch_warnings(action="ignore"):  # those of the parser quote the cell
                return _literal(ast.parse(cell.strip(), mode="eval").body)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):  # TypeError: {[]: 1}
            pass
    # The cell is not shown: a column chosen by mistake may hold report text.
    raise ManifestError(
        f"{where}: the labels of data row {row} ({len(cell)} characters) are not a mapping such as "
        "{'Edema': 1.0, 'Fracture': None}. Name the right column in columns: {labels: ...}, or null for no labels."
    )


def _literal(node: ast.expr, depth: int = 0) -> Any:
    """What a mapping as Python writes it stands for: literals, and numbers and mappings inside the names of their
    types. Nothing is looked up or called: the names are compared with two lists. Raises ValueError for anything else.
    """
    if depth > MAX_DEPTH:
        raise ValueError("too deep")
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name | ast.Attribute) and _last_name(node) in _NAMES:
        return _NAMES[_last_name(node)]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        value = _literal(node.operand, depth + 1)
        if not isinstance(value, int | float):
            raise ValueError("a sign before what is no number")
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.Dict) and all(key is not None for key in node.keys):
        keys = [_literal(key, depth + 1) for key in node.keys if key is not None]
        return dict(zip(keys, [_literal(value, depth + 1) for value in node.values], strict=True))
    if isinstance(node, ast.List | ast.Tuple):
        return [_literal(item, depth + 1) for item in node.elts]
    if isinstance(node, ast.Call):
        return _unwrapped(node, depth)
    raise ValueError("no literal")


def _unwrapped(node: ast.Call, depth: int) -> Any:
    """The number in np.float64(1.0), tensor([1.], device='cuda:0') or array(1.0); the mapping in OrderedDict(...)."""
    name = _last_name(node.func)
    values = [_literal(value, depth + 1) for value in node.args]
    if name == "str_" and len(values) == 1 and isinstance(values[0], str):
        return values[0]
    if name in _WRAPPED and len(values) == 1:
        value = values[0]
        if name == "float" and isinstance(value, str) and value.lower() == "nan":
            return None
        while isinstance(value, list) and len(value) == 1:
            value = value[0]
        if value is None or isinstance(value, int | float):
            return value
    if name in _MAPPINGS and len(values) == 1 and not node.keywords:
        return values[0] if isinstance(values[0], dict) else dict(values[0])
    raise ValueError("a call that is neither a number nor a mapping")


def _last_name(node: ast.expr) -> str:
    """`float64` of np.float64; "" of what is no plain name."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _codes(cell: Any, where: str, row: int) -> list[int]:
    """One mapping to 14 codes."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return [UNLABELLED] * len(FINDINGS)
    if not isinstance(cell, Mapping):
        raise ManifestError(
            f"{where}: the labels of data row {row} are a {type(cell).__name__}, expected a mapping of finding "
            "to 1, 0, -1 or None: labels are read by name, never by position. Name another in columns: {labels: ...}."
        )
    codes = [NOT_MENTIONED] * len(FINDINGS)
    for name, value in cell.items():
        index = _EXACT.get(name)
        if index is None and isinstance(name, str):
            index = INDEX.get(fold(name))
        if index is None:
            raise ManifestError(f"{where}: the labels of data row {row} name {_unknown(name)}")
        if value is None or isinstance(value, float | int):
            code = _USUAL.get(value)
            if code is not None:
                codes[index] = code
                continue
        number = _number(value)
        if math.isnan(number):
            continue
        if number not in (1.0, 0.0, -1.0):
            raise ManifestError(
                f"{where}: {FINDINGS[index]} of data row {row} is {_kind(value)}, expected 1, 0, -1 or "
                "None. Correct the cell."
            )
        codes[index] = int(number)
    return codes


def _unknown(name: object) -> str:
    """The end of an error about a finding: the name itself only when it is nearly one, since a key may be any text."""
    text = name.lower() if isinstance(name, str) and len(name) <= 60 else ""
    folded = {finding.lower(): finding for finding in FINDINGS}
    near = difflib.get_close_matches(text, folded, n=1, cutoff=0.5)
    hint = f"Did you mean {quoted(folded[near[0]])}?" if near else f"Known: {', '.join(FINDINGS)}."
    if near and difflib.SequenceMatcher(None, text, near[0]).ratio() >= 0.75:
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
