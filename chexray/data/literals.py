"""Cells that hold a Python or JSON value as text, read without running anything."""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Sequence
from typing import Any

MAX_CELL_CHARS = 4096
"""14 names and values take some 400 characters; a longer cell is another column, and is not parsed."""
UNREADABLE = object()
"""What `literal` gives for text that is no value."""

_NONE, _NAN = re.compile(r"\bNone\b"), re.compile(r"\bnan\b")
_WRAPPED = frozenset(
    [f"{kind}{size}" for kind in ("float", "int", "uint") for size in (8, 16, 32, 64, 128)]
    + ["bool", "bool_", "longdouble", "float", "int", "tensor", "array", "Tensor", "Array"]
)
"""What a number stands in when a mapping of NumPy 2 or torch is written with str(): np.float64(1.0), tensor(1.)."""
_NAMES = {"nan": None, "NaN": None, "True_": True, "False_": False}
_MAPPINGS = frozenset({"dict", "OrderedDict", "mappingproxy", "Counter", "defaultdict"})
_CLASS = re.compile(r"<class '[\w.]+'>, ")
MAX_DEPTH = 12
"""Brackets inside one another that are read; OrderedDict([('Edema', np.array([1.0]))]) has five."""


class Repeating(dict[Any, Any]):
    """A mapping that was written with a key twice. pairs: all that was written, of which a dict keeps the last."""

    def __init__(self, pairs: Sequence[tuple[Any, Any]]) -> None:
        super().__init__(pairs)
        self.pairs = list(pairs)


def _mapping(pairs: Sequence[tuple[Any, Any]]) -> dict[Any, Any]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else Repeating(pairs)


def literal(cell: str) -> Any:
    """The value of a cell: a mapping, a list, a number or text, None for an empty cell; UNREADABLE for other text.

    A mapping in which a key stands twice is a Repeating.
    """
    if cell.strip().lower() in ("", "nan", "none", "null"):
        return None
    if len(cell) > MAX_CELL_CHARS:
        return UNREADABLE
    text = cell.replace("'", '"')
    try:
        # json is some ten times faster than ast, and reads what upstream writes once the quotes are its own.
        return json.loads(_NONE.sub("null", _NAN.sub("NaN", text)), object_pairs_hook=_mapping)
    except (ValueError, RecursionError):
        pass
    try:
        with warnings.catch_warnings(action="ignore"):  # those of the parser quote the cell
            return _literal(ast.parse(_CLASS.sub("", cell.strip()), mode="eval").body)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):  # TypeError: {[]: 1}
        return UNREADABLE


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
        return _mapping([*zip(keys, [_literal(value, depth + 1) for value in node.values], strict=True)])
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
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
        return values[0] if isinstance(values[0], dict) else _mapping([(key, value) for key, value in values[0]])
    raise ValueError("a call that is neither a number nor a mapping")


def _last_name(node: ast.expr) -> str:
    """`float64` of np.float64; "" of what is no plain name."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
