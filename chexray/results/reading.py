"""Reads results back: from a run folder or one of its files, on disk or behind a storage URI, to one data frame."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from chexray.errors import ConfigError, StorageError
from chexray.outputs import check_declared
from chexray.results.legacy import ABSENT, upgraded
from chexray.results.params import check_params
from chexray.results.rows import FORMULA_STARTS, SCHEMA, params_of, to_table
from chexray.storage import Storage
from chexray.storage.parquet import ParquetFile
from chexray.text import first_line, listed, shown

if TYPE_CHECKING:
    import pandas as pd

FILES = ("results.parquet", "results.json", "results.csv")
"""The files of a run folder that hold its results, the exact and typed one first."""


def read_results(path_or_uri: str | Path, storage: Storage | None = None) -> pd.DataFrame:
    """The rows of a run as a frame with the columns of `SCHEMA`; null numbers are NaN, texts are never null.

    path_or_uri: the run folder, or its results.parquet, .json or .csv, on disk or s3://. storage: how to reach it;
    by default as the environment says. Raises StorageError when nothing is there, ConfigError when it is not results.
    """
    place = str(path_or_uri)
    if re.search(r"://?[^/]*@", place):
        raise ConfigError("the location of results holds a user or password. Put credentials in the environment.")
    storage = storage or Storage()
    name = _results_file(place.rstrip("/") or "/", storage)
    data = storage.read(name)
    try:
        # Checked again on the way in: spreadsheets and scripts rewrite these files.
        table = to_table(_PARSERS[name.rsplit(".", 1)[-1].lower()](data))
        for position, row in enumerate(table.select(["method", "about", "suite"]).to_pylist()):
            check_params(params_of(row), row["suite"], f"results row {position}")
        for text in table["declared"].unique().to_pylist():
            check_declared(text)
    except pa.ArrowException:  # its text may quote what the file holds
        raise ConfigError(f"{shown(name)}: not a chexray results file. Give a run folder.") from None
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, csv.Error, RecursionError) as error:
        what = first_line(error, 300)
        raise ConfigError(
            f"{shown(name)}: not a chexray results file: {what}. Give a run folder or its results.parquet."
        ) from None
    return table.to_pandas()


def _results_file(place: str, storage: Storage) -> str:
    """`place` itself when it names a file, else the first of FILES in that folder."""
    if place.rsplit(".", 1)[-1].lower() in _PARSERS and storage.exists(place):
        return place
    for name in FILES:
        if storage.exists(f"{place}/{name}"):
            return f"{place}/{name}"
    local = Path(place)
    if "://" in place or not local.exists():
        raise StorageError(
            f"{shown(place)}: no results there. Give a run folder, or its results.parquet, .json or .csv."
        )
    if local.is_file():
        raise ConfigError(f"{shown(place)}: not a results file; those end in .parquet, .json or .csv.")
    runs = sorted(str(path.parent) for path in local.glob(f"*/{FILES[0]}"))
    if runs:
        raise StorageError(f"{shown(place)}: holds runs, not results. Give one of them: {listed(runs, 3)}.")
    raise StorageError(
        f"{shown(place)}: a folder without {FILES[0]}. If a run was stopped there, run it again to finish it."
    )


def _from_parquet(data: bytes) -> list[dict[str, Any]]:
    try:
        table = ParquetFile(io.BytesIO(data), "the file").read_bounded()
    except StorageError as error:
        raise ValueError(str(error)) from None
    return _known(table.to_pylist())


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

    Nor do files of version 0.1 stop this one.
    """
    columns = header if header is not None else list(rows[0]) if rows else SCHEMA.names
    optional = {*ABSENT, "declared", *(("method", "about") if "params" in columns else ())}
    missing = [name for name in SCHEMA.names if name not in columns and name not in optional]
    if missing:
        raise ValueError(f"it lacks {listed(missing, 5)}")
    return [{name: row[name] for name in SCHEMA.names} for row in map(upgraded, rows)]


def _cell(name: str, text: str) -> str | int | float | None:
    kind = SCHEMA.field(name).type if name in SCHEMA.names else pa.string()
    if kind == pa.string():
        guarded = text[:1] == "'" and text[1:2] in FORMULA_STARTS
        return text[1:] if guarded else text
    if text == "":
        return None
    return int(text) if kind == pa.int64() else float(text)


_PARSERS = {"parquet": _from_parquet, "json": _from_json, "csv": _from_csv}
