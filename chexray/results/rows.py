"""The results of a run: one row, one number, never rounded. The schema, what it refuses, and its three files.

results.parquet is what programs read, results.csv what spreadsheets open, results.json what everything else parses.
All three hold the same rows and are read back to the same frame.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from chexray.storage.parquet import to_bytes
from chexray.text import first_line, quoted

if TYPE_CHECKING:
    import pandas as pd

FORMAT = "chexray.results/1"
SUITES = ("fidelity", "privacy", "utility")
STATUSES = ("ok", "too_few", "undefined", "failed")
DIRECTIONS = ("lower", "higher", "")

BEYOND = ("better", "worse", "")

ABSENT: dict[str, Any] = {"suite": "fidelity", "real_floor_std_error": None, "beyond_floor": ""}
"""What a row says in fields that the first results files did not have."""

_TEXT, _FLOAT, _INT = pa.string(), pa.float64(), pa.int64()

_FIELDS: tuple[tuple[str, pa.DataType, str], ...] = (
    ("suite", _TEXT, "The question it answers: fidelity, privacy, utility. Files older than this field hold fidelity."),
    ("metric", _TEXT, "What was measured: fid, kid, coverage ... A metric with several outputs gives a row for each."),
    ("value", _FLOAT, "The number, unrounded. Null if and only if status is not ok."),
    ("std_error", _FLOAT, "Standard error of value, in its units. Null where none is known."),
    ("ci_low", _FLOAT, "Lower end of the 95% interval."),
    ("ci_high", _FLOAT, "Upper end of the 95% interval."),
    ("std_error_method", _TEXT, "influence, jackknife, bootstrap ...; empty where there is no error."),
    ("better", _TEXT, "lower, higher, or empty where neither direction is better."),
    ("real_floor", _FLOAT, "What a perfect generator would get at the same n_real and n_synthetic."),
    ("real_floor_std_error", _FLOAT, "Standard error of real_floor, its extrapolation included. Null where unknown."),
    ("beyond_floor", _TEXT, "better or worse where value and real_floor differ beyond both errors, else empty."),
    ("encoder", _TEXT, "Registry name of the encoder whose features were read; empty for metrics without one."),
    (
        "encoder_revision",
        _TEXT,
        "Revision of the encoder: its weights' version and preprocessing, as the encoder says.",
    ),
    ("weights", _TEXT, "Weights as asked for: a hub id, a path, random:SEED, or empty for weight-free encoders."),
    ("weights_sha256", _TEXT, "What these weights held, in hex."),
    ("subset", _TEXT, "all, a finding (finding:Edema), or the value of a column (sex:F)."),
    ("n_real", _INT, "Real images that entered the number."),
    ("n_synthetic", _INT, "Synthetic images that entered the number."),
    ("n_rejected", _INT, "Images of both sides that could not be read or encoded; each is a row of rejects.parquet."),
    ("real_set", _TEXT, "The real set, as name@fingerprint of its manifest; without @ the name alone identifies it."),
    ("synthetic_set", _TEXT, "The synthetic set, likewise."),
    ("protocol", _TEXT, "Named preset the number was computed under: standard, chexgenbench."),
    ("params", _TEXT, "JSON object: the metric's parameters, and remarks such as bias_dominated and floor_method."),
    ("status", _TEXT, "ok, too_few (images), undefined (for these features), or failed."),
    ("reason", _TEXT, "Why value is null; may also qualify a number."),
    ("run_id", _TEXT, "The run that computed it."),
    ("seed", _INT, "Seed of everything random in it."),
    ("chexray_version", _TEXT, "Version that computed it."),
    ("created_at", _TEXT, "When, in ISO 8601, UTC."),
)
NULLABLE = ("value", "std_error", "ci_low", "ci_high", "real_floor", "real_floor_std_error")
SCHEMA = pa.schema(
    [pa.field(name, kind, nullable=name in NULLABLE, metadata={"description": what}) for name, kind, what in _FIELDS],
    metadata={"format": FORMAT},
)
"""The schema of results.parquet. Every field carries its description; texts are empty rather than null."""

FIELDS: dict[str, str] = {name: what for name, _, what in _FIELDS}
"""Field -> what it says."""


class _Writes(Protocol):
    def write(self, uri: str, data: bytes, /) -> Any: ...


def to_table(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Rows as an Arrow table of `SCHEMA`, in the order given. `params` may be a dict or its JSON text, `suite` absent.

    Raises ValueError, naming row and field, for a missing or unknown field, NaN or infinity, a null value without a
    reason or with status ok, an inverted interval, and anything else that would make a row say what is not so.
    """
    checked = [_checked(row, f"results row {position}") for position, row in enumerate(rows)]
    return pa.Table.from_pylist(checked, schema=SCHEMA)


def to_json(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """UTF-8 JSON: {"format", "fields": {name: description}, "rows": [...]}, nulls as null."""
    content = {"format": FORMAT, "fields": FIELDS, "rows": to_table(rows).to_pylist()}
    return (json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def to_csv(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """UTF-8 CSV with a header line. Floats keep all digits, nulls are empty cells.

    Text that a spreadsheet would run as a formula (a set named "=cmd()") is written behind an apostrophe, which
    `read_results` takes off again. Numbers, negative ones too, are written as they are.
    """
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_MINIMAL)
    writer.writerow(SCHEMA.names)
    for row in to_table(rows).to_pylist():
        writer.writerow([_cell(row[name]) for name in SCHEMA.names])
    return out.getvalue().encode()


def write(directory: str, rows: Iterable[Mapping[str, Any]], storage: _Writes, stem: str = "results") -> None:
    """Writes <stem>.csv, <stem>.json and <stem>.parquet under `directory`. Raises as `to_table` does, first.

    Parquet goes last: it is what readers prefer, so its presence means that all three are there.
    """
    kept = to_table(rows)
    folder = str(directory).rstrip("/")
    plain = kept.to_pylist()
    storage.write(f"{folder}/{stem}.csv", to_csv(plain))
    storage.write(f"{folder}/{stem}.json", to_json(plain))
    storage.write(f"{folder}/{stem}.parquet", to_bytes(kept))


def read_results(path_or_uri: str | Path, storage: Any = None) -> pd.DataFrame:
    """The rows of a run as a frame with the columns of `SCHEMA`; see `chexray.results.reading.read_results`."""
    from chexray.results import reading

    return reading.read_results(path_or_uri, storage)


def to_records(rows: pd.DataFrame | Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows as dictionaries with None for null, from a frame (where null numbers are NaN) or from dictionaries."""
    if isinstance(rows, Iterable) and not hasattr(rows, "columns"):
        return [dict(row) for row in rows]
    frame: Any = rows
    return frame.astype(object).where(frame.notna(), None).to_dict("records")


def params_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row's params as a dict."""
    params = row.get("params") or {}
    return json.loads(params) if isinstance(params, str) else dict(params)


def suite_of(row: Mapping[str, Any]) -> str:
    """The row's suite; a row from before there were suites is of the first one, fidelity."""
    return row.get("suite") or ABSENT["suite"]


def bias_dominated(row: Mapping[str, Any]) -> bool:
    """Whether most of the row's number is bias at its n: its metric says that it may be, and it is not far above the
    floor, which a perfect generator of the same bias would get."""
    if row["value"] is None or not params_of(row).get("bias_dominated"):
        return False
    floor = row.get("real_floor")
    return floor is None or row.get("beyond_floor") != "worse" or row["value"] <= 2 * floor


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        return repr(value)
    return f"'{value}" if value[:1] in FORMULA_STARTS else value


FORMULA_STARTS = frozenset("=+-@\t\r\n＝＋－＠'")
"""First characters a spreadsheet may read as the start of a formula, and the apostrophe that guards against it."""


def _checked(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    row = {**ABSENT, **row}
    missing = [name for name in SCHEMA.names if name not in row]
    unknown = [name for name in row if name not in FIELDS]
    if missing or unknown:
        raise ValueError(f"{where}: missing fields {quoted(missing)}, unknown fields {quoted(unknown)}")
    checked = {field.name: _typed(field, row[field.name], where) for field in SCHEMA}
    _check_null(checked, where)
    allowed_texts = (("suite", SUITES), ("status", STATUSES), ("better", DIRECTIONS), ("beyond_floor", BEYOND))
    for name, allowed in allowed_texts:
        if checked[name] not in allowed:
            raise ValueError(f"{where}: {name} is {quoted(checked[name])}, not one of {', '.join(map(repr, allowed))}")
    low, high = checked["ci_low"], checked["ci_high"]
    if low is not None and high is not None and low > high:
        raise ValueError(f"{where}: the interval [{low}, {high}] is inverted")
    for name in ("std_error", "real_floor_std_error"):
        error = checked[name]
        if error is not None and error < 0:
            raise ValueError(f"{where}: {name} is {error}, below 0")
    negative = [name for name in ("n_real", "n_synthetic", "n_rejected") if checked[name] < 0]
    if negative:
        raise ValueError(f"{where}: {', '.join(negative)} below 0")
    _check_utc(checked["created_at"], where)
    return checked


def _typed(field: pa.Field, value: Any, where: str) -> Any:
    if field.name == "params":
        return _params_text(value, where)
    parse = _PARSERS[field.type]
    if value is None and field.nullable:
        return None
    try:
        return parse(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{where}: {field.name} is {quoted(value)}: {first_line(error)}") from None


def _float(value: Any) -> float:
    number = float(value)
    if isinstance(value, str) or not math.isfinite(number):
        raise ValueError("a number is finite, or null with a reason")
    return number


def _int(value: Any) -> int:
    if isinstance(value, bool | str) or int(value) != value:
        raise ValueError("not a whole number")
    if abs(value) >= 2**63:
        raise ValueError("more than 64 bits")
    return int(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("not text")
    # A file name that is not UTF-8 reaches Python with lone surrogates, which no file format here can hold.
    return value.encode("utf-8", "backslashreplace").decode()


_PARSERS: dict[pa.DataType, Callable[[Any], Any]] = {_TEXT: _text, _FLOAT: _float, _INT: _int}


def _params_text(value: Any, where: str) -> str:
    try:
        parsed = json.loads(value) if isinstance(value, str) else value
        text = json.dumps(parsed, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{where}: params is {quoted(value)}: {first_line(error)}") from None
    if not isinstance(parsed, Mapping):
        raise ValueError(f"{where}: params is {quoted(value)}: not a JSON object")
    return text


def _check_null(row: dict[str, Any], where: str) -> None:
    name, status, null = row["metric"], row["status"], row["value"] is None
    if null and (status == "ok" or not row["reason"].strip()):
        raise ValueError(
            f"{where}: {quoted(name)} is null with status {status!r} and reason {quoted(row['reason'])}; say why"
        )
    if not null and status != "ok":
        raise ValueError(
            f"{where}: {quoted(name)} has a value and status {status!r}; only null values have another status"
        )


def _check_utc(text: str, where: str) -> None:
    try:
        offset = datetime.fromisoformat(text).utcoffset()
    except ValueError:
        offset = None
    if offset != timedelta(0):
        raise ValueError(f"{where}: created_at is {quoted(text)}, not an ISO 8601 time in UTC")
