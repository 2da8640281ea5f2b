"""Columns of several tables that describe the same images, made one table; what contradicts itself is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from chexray.data.sources import _columns
from chexray.data.values import as_text
from chexray.spelling import fold

_ROLES = ("sample_id", "image", "subject_id", "prompt", "labels")


def roles_in(table: pa.Table, origin: str, columns: Mapping[str, str | None] | None, where: str) -> _columns.Roles:
    """The roles of a table that need not have every column that the config names: another one may have it."""
    given = {role: name if name in table.column_names else None for role, name in (columns or {}).items()}
    return _columns.detect(table.column_names, origin, given, where, kinds=_columns.kinds_of(table))


@dataclass
class Joined:
    """Columns, a row an image, null where no table says anything. Columns of one role, or of one name but for its
    spelling, are one column under the name that came first."""

    columns: dict[str, pa.ChunkedArray] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    def clash(self, table: pa.Table, roles: _columns.Roles) -> tuple[str, int]:
        """The first column of which images have another value here, and how many; ("", 0) for none."""
        for key, name in _keys(table, roles).items():
            if key in self.names and (n := _n_other(self.columns[self.names[key]], table[name])):
                return name, n
        return "", 0

    def add(self, table: pa.Table, roles: _columns.Roles) -> None:
        """Takes up a table; where both say something, the earlier one counts."""
        for key, name in _keys(table, roles).items():
            if key in self.names:
                ours = self.names[key]
                self.columns[ours] = _merged(self.columns[ours], table[name])
                continue
            free = name
            while free in self.columns:
                free += "_"
            self.names[key] = free
            self.columns[free] = table[name]


def _keys(table: pa.Table, roles: _columns.Roles) -> dict[str, str]:
    """{what a column is known by among tables: its name}. Columns of one table stay apart."""
    role_of = {getattr(roles, role): role for role in reversed(_ROLES)}
    keys: dict[str, str] = {}
    for name in table.column_names:
        key = f"role {role_of[name]}" if name in role_of else f"name {fold(name) or name}"
        keys[key if key not in keys else f"exactly {name}"] = name
    return keys


def _alike(one: pa.ChunkedArray, other: pa.ChunkedArray) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Both in one type: their own, else float64, else text."""
    if one.type == other.type:
        return one, other
    if pa.types.is_null(one.type) or pa.types.is_null(other.type):
        kind = other.type if pa.types.is_null(one.type) else one.type
        return one.cast(kind), other.cast(kind)
    if all(pa.types.is_integer(each.type) or pa.types.is_floating(each.type) for each in (one, other)):
        return one.cast(pa.float64(), safe=False), other.cast(pa.float64(), safe=False)
    return as_text(one), as_text(other)


def _merged(one: pa.ChunkedArray, other: pa.ChunkedArray) -> pa.ChunkedArray:
    one, other = _alike(one, other)
    if pa.types.is_nested(one.type):
        pairs = zip(one.to_pylist(), other.to_pylist(), strict=True)
        return pa.chunked_array([pa.array([b if a is None else a for a, b in pairs], one.type)])
    return pc.call_function("coalesce", [one, other])


def _n_other(one: pa.ChunkedArray, other: pa.ChunkedArray) -> int:
    """How many images have a value in both, and not the same."""
    one, other = _alike(one, other)
    both = np.flatnonzero(one.is_valid().to_numpy() & other.is_valid().to_numpy())
    if not len(both):
        return 0
    pairs = zip(one.take(pa.array(both)).to_pylist(), other.take(pa.array(both)).to_pylist(), strict=True)
    return sum(a != b and not (a != a and b != b) for a, b in pairs)
