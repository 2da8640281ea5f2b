"""Reads results back: from a run folder or one of its files, on disk or behind a storage URI, to one data frame."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from chexray.errors import ConfigError, StorageError
from chexray.results.rows import ABSENT, FORMULA_STARTS, SCHEMA, to_table

if TYPE_CHECKING:
    import pandas as pd

FILES = ("results.parquet", "results.json", "results.csv")
"""The files of a run folder that hold its results, the exact and typed one first."""


class Reads(Protocol):
    """The two verbs of a storage that reading needs."""

    def exists(self, uri: str, /) -> bool: ...

    def read(self, uri: str, /) -> bytes: ...


def read_results(path_or_uri: str | Path, storage: Reads | None = None) -> pd.DataFrame:
    """The rows of a run as a frame with the columns of `SCHEMA`; null numbers are NaN, texts are never null.

    path_or_uri: the run folder, or its results.parquet, .json or .csv, on disk or s3://. storage: how to reach it;
    by default as the environment says. Raises StorageError when nothing is there, ConfigError when it is not results.
    """
    place = str(path_or_uri)
    if storage is None:
        from chexray.storage import Storage

        storage = Storage()
    name = _results_file(place.rstrip("/") or "/", storage)
    data = storage.read(name)
    try:
        # Checked again on the way in: spreadsheets and scripts rewrite these files.
        table = to_table(_PARSERS[name.rsplit(".", 1)[-1].lower()](data))
    except (ValueError, TypeError, KeyError, AttributeError, pa.ArrowException, csv.Error, RecursionError) as error:
        what = " ".join(str(error).split())[:300]
        raise ConfigError(
            f"{name}: not a chexray results file: {what}. Give a run folder or its results.parquet."
        ) from None
    return table.to_pandas()


def _results_file(place: str, storage: Reads) -> str:
    """`place` itself when it names a file, else the first of FILES in that folder."""
    if place.rsplit(".", 1)[-1].lower() in _PARSERS and storage.exists(place):
        return place
    for name in FILES:
        if storage.exists(f"{place}/{name}"):
            return f"{place}/{name}"
    local = Path(place)
    if "://" in place or not local.exists():
        raise StorageError(f"{place}: no results there. Give a run folder, or its results.parquet, .json or .csv.")
    if local.is_file():
        raise ConfigError(f"{place}: not a results file; those end in .parquet, .json or .csv.")
    runs = sorted(str(path.parent) for path in local.glob(f"*/{FILES[0]}"))
    if runs:
        more = f" and {len(runs) - 3} more" if len(runs) > 3 else ""
        raise StorageError(f"{place}: holds runs, not results. Give one of them: {', '.join(runs[:3])}{more}.")
    raise StorageError(f"{place}: a folder without {FILES[0]}. If a run was stopped there, run it again to finish it.")


def _from_parquet(data: bytes) -> list[dict[str, Any]]:
    return _known(pq.read_table(io.BytesIO(data)).to_pylist())


def _from_json(data: bytes) -> list[dict[str, Any]]:
    content = json.loads(data)
    if not isinstance(content, dict) or not isinstance(content.get("rows"), list):
        raise ValueError("the JSON has no list 'rows'")
    return _known(content["rows"])


def _from_csv(data: bytes) -> list[dict[str, Any]]:
    # utf-8-sig: spreadsheets put a byte order mark in front when they save.
    reader = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""))
    header = next(reader, [])
    lines = [line for line in reader if line]
    return _known(
        [{name: _cell(name, text) for name, text in zip(header, line, strict=True)} for line in lines], header
    )


def _known(rows: list[dict[str, Any]], header: list[str] | None = None) -> list[dict[str, Any]]:
    """Rows cut to the schema: a later version's further columns do not stop an earlier one from reading.

    Nor do the columns of ABSENT, which the first files lack, stop this one.
    """
    columns = header if header is not None else list(rows[0]) if rows else SCHEMA.names
    missing = [name for name in SCHEMA.names if name not in columns and name not in ABSENT]
    if missing:
        raise ValueError(f"it lacks {', '.join(missing[:5])}{' ...' if len(missing) > 5 else ''}")
    return [{name: {**ABSENT, **row}[name] for name in SCHEMA.names} for row in rows]


def _cell(name: str, text: str) -> Any:
    kind = SCHEMA.field(name).type if name in SCHEMA.names else pa.string()
    if kind == pa.string():
        guarded = text[:1] == "'" and text[1:2] in FORMULA_STARTS
        return text[1:] if guarded else text
    if text == "":
        return None
    return int(text) if kind == pa.int64() else float(text)


_PARSERS = {"parquet": _from_parquet, "json": _from_json, "csv": _from_csv}
