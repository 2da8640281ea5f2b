"""What a run's folder says about the images it judged, checked: the folder may be damaged, or anybody's.

Verdicts decide which images are given on, so that a column of another type, a missing name or a text that is none is an
error and never a guess.
"""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

from chexray.errors import ConfigError
from chexray.storage import Storage, join
from chexray.text import listed, shown

MAX_CONFIG_BYTES = 1_000_000
MAX_ABOUT_BYTES = 20_000_000
"""Size of run.json; that of a run with a thousand notes takes 200 kB."""

VERDICTS = pa.schema(
    [
        pa.field("synthetic_set", pa.string(), nullable=False),
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("flagged", pa.bool_()),
        pa.field("reasons", pa.list_(pa.string())),
    ]
)
"""Columns of verdicts.parquet that are read here; flagged is null where no part of the suite could judge the image."""

REJECTS = pa.schema(
    [
        pa.field("set", pa.string(), nullable=False), pa.field("sample_id", pa.string()),
        pa.field("stage", pa.string()), pa.field("code", pa.string()), pa.field("detail", pa.string()),
    ]
)  # fmt: skip
"""The same of rejects.parquet."""


def read_small(uri: str, storage: Storage, limit: int) -> bytes:
    """A file of a run's folder. Raises ConfigError when it is larger than any run writes it, StorageError otherwise."""
    found = storage.stat([uri])[0]
    if found is not None and found.size > limit:
        raise ConfigError(f"{shown(uri)}: larger than {limit:,} bytes, which no run writes. Give the folder of a run.")
    return storage.read(uri)


def read_fingerprints(run: str, storage: Storage) -> dict[str, str]:
    """{synthetic set: its fingerprint} of a run's run.json. Raises ConfigError where it does not say so."""
    return {item["name"]: item["fingerprint"] for item in _sets(run, storage) if item["origin"] == "synthetic"}


def read_counts(run: str, storage: Storage) -> dict[str, tuple[int, int]]:
    """{set: (images evaluated, images rejected)} of a run's run.json. Raises ConfigError where it does not say so."""
    counts = {item["name"]: (item.get("n_evaluated"), item.get("n_rejected")) for item in _sets(run, storage)}
    if not all(isinstance(n, int) and n >= 0 for pair in counts.values() for n in pair):
        raise ConfigError(f"{shown(join(run, 'run.json'))}: does not count the images of its sets. Evaluate again.")
    return counts


def _sets(run: str, storage: Storage) -> list[Any]:
    uri = join(run, "run.json")
    try:
        about = json.loads(read_small(uri, storage, MAX_ABOUT_BYTES))
    except (ValueError, RecursionError):
        about = None
    sets: Any = about.get("sets") if isinstance(about, dict) else None
    if not isinstance(sets, list) or not all(_is_set(item) for item in sets):
        raise ConfigError(f"{shown(uri)}: does not name the sets of a run. It is damaged: evaluate again.")
    return sets


def read_table(uri: str, schema: pa.Schema, storage: Storage) -> pa.Table:
    """The columns of `schema` of a run's Parquet file. Raises ConfigError for one that is missing or of another type,
    for nulls where names must be, and for text that is not UTF-8."""
    table = storage.read_parquet(uri)
    columns = {}
    for field in schema:
        found = table.schema.get_all_field_indices(field.name)
        if len(found) != 1:
            names = listed(schema.names)
            raise ConfigError(f"{shown(uri)}: has {len(found)} columns {field.name}, expected one of each: {names}.")
        column = table.column(found[0])
        try:
            if not _fits(column.type, field.type):
                raise pa.ArrowInvalid("type")
            column.validate(full=True)
            columns[field.name] = column.cast(field.type)
        except pa.ArrowException:
            what = shown(column.type, 60)
            raise ConfigError(
                f"{shown(uri)}: column {field.name} is {what} or damaged, expected {field.type}. Evaluate again."
            ) from None
        if not field.nullable and column.null_count:
            raise ConfigError(f"{shown(uri)}: {column.null_count} rows have no {field.name}. Evaluate again.")
    return pa.table(columns)


def _is_set(item: object) -> bool:
    return isinstance(item, dict) and all(isinstance(item.get(key), str) for key in ("name", "fingerprint", "origin"))


def _fits(kind: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether a column's type is the wanted one but for how Arrow stores it. An empty table's may be null."""
    if pa.types.is_dictionary(kind):
        return _fits(kind.value_type, wanted)
    if pa.types.is_null(kind):
        return True
    if pa.types.is_list(wanted):
        is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
        return is_list and _fits(kind.value_type, wanted.value_type)
    if pa.types.is_string(wanted):
        return pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return kind == wanted
