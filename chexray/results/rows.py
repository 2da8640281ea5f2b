"""The results of a run: one row, one number, never rounded. The schema, what it refuses, and its three files.

results.parquet is what programs read, results.csv what spreadsheets open, results.json what everything else parses.
All three hold the same rows and are read back to the same frame.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from chexray.results.legacy import ABSENT, upgraded
from chexray.storage import Storage
from chexray.storage.parquet import to_bytes
from chexray.suite_names import SUITES
from chexray.text import first_line, quoted

if TYPE_CHECKING:
    import pandas as pd

Row = Mapping[str, Any]
"""One number of the results, by field."""

FORMAT = "chexray.results/2"
STATUSES = ("ok", "too_few", "undefined", "failed")
DIRECTIONS = ("lower", "higher", "")

BEYOND = ("better", "worse", "")

_TEXT, _FLOAT, _INT = pa.string(), pa.float64(), pa.int64()

_FIELDS: tuple[tuple[str, pa.DataType, str], ...] = (
    ("suite", _TEXT, "fidelity, privacy or utility. Files older than this field hold fidelity."),
    ("metric", _TEXT, "The number's name. A metric with several numbers gives a row for each."),
    ("value", _FLOAT, "The number, unrounded. Null if and only if status is not ok."),
    ("std_error", _FLOAT, "Standard error of value, in its units. Null where none is known."),
    ("ci_low", _FLOAT, "Lower end of the 95% interval."),
    ("ci_high", _FLOAT, "Upper end of the 95% interval."),
    ("std_error_method", _TEXT, "influence, jackknife, bootstrap ...; empty where there is no error."),
    ("better", _TEXT, "lower, higher, or empty where neither direction is better."),
    ("real_floor", _FLOAT, "What other real images would get at the same n_real and n_synthetic."),
    ("real_floor_std_error", _FLOAT, "Standard error of real_floor, extrapolation included. Null where unknown."),
    ("beyond_floor", _TEXT, "better or worse where value and real_floor differ beyond both errors, else empty."),
    ("encoder", _TEXT, "Registry name of the encoder whose features were read; empty for metrics without one."),
    ("encoder_revision", _TEXT, "Preprocessing and revision of the encoder, as the encoder says."),
    ("weights", _TEXT, "Weights as asked for: a hub id, a path, random:SEED, or empty for weight-free encoders."),
    ("weights_sha256", _TEXT, "SHA-256 of the weights, in hex."),
    ("subset", _TEXT, "all, a finding (finding:Edema), or the value of a column (sex:F)."),
    ("n_real", _INT, "Real images that entered the number."),
    ("n_synthetic", _INT, "Synthetic images that entered the number."),
    ("n_rejected", _INT, "Images of both sides that could not be read or encoded; each is a row of rejects.parquet."),
    ("real_set", _TEXT, "The real set, as name@fingerprint of its manifest; without @ the name alone identifies it."),
    ("synthetic_set", _TEXT, "The synthetic set, likewise; empty where none entered the number."),
    ("protocol", _TEXT, "Preset of settings that the number was computed under: standard or chexgenbench."),
    ("method", _TEXT, "JSON object: what two numbers must share to be compared, such as k, alpha or a recipe."),
    ("about", _TEXT, "JSON object: how this number came out, such as counts, p_value, floor_method and notes."),
    ("status", _TEXT, "ok, too_few (images), undefined (for these features), or failed."),
    ("reason", _TEXT, "Why value is null; may also qualify a number."),
    ("run_id", _TEXT, "The run that computed it."),
    ("seed", _INT, "Seed of all random choices behind the number."),
    ("chexray_version", _TEXT, "Version of chexray that computed it."),
    ("created_at", _TEXT, "When it was computed, in ISO 8601, UTC."),
    ("declared", _TEXT, "JSON object: what its metric declares of every such number, such as moves_with and says."),
)
NULLABLE = ("value", "std_error", "ci_low", "ci_high", "real_floor", "real_floor_std_error")
SCHEMA = pa.schema(
    [pa.field(name, kind, nullable=name in NULLABLE, metadata={"description": what}) for name, kind, what in _FIELDS],
    metadata={"format": FORMAT},
)
"""The schema of results.parquet. Every field carries its description; texts are empty rather than null."""

FIELDS: dict[str, str] = {name: what for name, _, what in _FIELDS}
"""Field -> what it says."""


def to_table(rows: Iterable[Row]) -> pa.Table:
    """Rows as an Arrow table of `SCHEMA`, in the order given. `method`, `about` and `declared` may be dicts or JSON.

    Rows of version 0.1, with `params`, are taken as well; see `chexray.results.legacy`.

    Raises ValueError, naming row and field, for a missing or unknown field, NaN or infinity, a null value without a
    reason or with status ok, an inverted interval, and anything else that would make a row say what is not so.
    """
    checked = [_checked(row, f"results row {position}") for position, row in enumerate(rows)]
    return pa.Table.from_pylist(checked, schema=SCHEMA)


def to_json(rows: Iterable[Row]) -> bytes:
    """UTF-8 JSON: {"format", "fields": {name: description}, "rows": [...]}, nulls as null."""
    content = {"format": FORMAT, "fields": FIELDS, "rows": to_table(rows).to_pylist()}
    return (json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def to_csv(rows: Iterable[Row]) -> bytes:
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


def write(directory: str, rows: Iterable[Row], storage: Storage, stem: str = "results") -> None:
    """Writes <stem>.csv, <stem>.json and <stem>.parquet under `directory`. Raises as `to_table` does, first.

    Parquet goes last: it is what readers prefer, so its presence means that all three are there.
    """
    kept = to_table(rows)
    folder = str(directory).rstrip("/")
    plain = kept.to_pylist()
    storage.write(f"{folder}/{stem}.csv", to_csv(plain))
    storage.write(f"{folder}/{stem}.json", to_json(plain))
    storage.write(f"{folder}/{stem}.parquet", to_bytes(kept))


def to_records(rows: pd.DataFrame | Iterable[Row]) -> list[dict[str, Any]]:
    """Rows as dictionaries with None for null, from a frame (where null numbers are NaN) or from dictionaries."""
    if isinstance(rows, Iterable) and not hasattr(rows, "columns"):
        return [upgraded(row) for row in rows]
    frame: Any = rows
    return [upgraded(row) for row in frame.astype(object).where(frame.notna(), None).to_dict("records")]


def params_of(row: Row) -> dict[str, Any]:
    """All that the row says of its number: its method, and how it came out."""
    return method_of(row) | _object(row.get("about"))


def method_of(row: Row) -> dict[str, Any]:
    """What another row must share with this one to be compared."""
    return _object(row.get("method"))


def _object(value: Any) -> dict[str, Any]:
    return json.loads(value or "{}") if value is None or isinstance(value, str) else dict(value)


def suite_of(row: Row) -> str:
    """The row's suite; a row from before there were suites is of the first one, fidelity."""
    return row.get("suite") or ABSENT["suite"]


def bias_dominated(row: Row) -> bool:
    """Whether most of the row's number is bias at its n: its metric says that it may be, and it is not far above the
    floor, which a perfect generator of the same bias would get."""
    if row["value"] is None or not params_of(row).get("bias_dominated"):
        return False
    floor = row.get("real_floor")
    return floor is None or row.get("beyond_floor") != "worse" or row["value"] <= 2 * floor


def _cell(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        return repr(value)
    return f"'{value}" if value[:1] in FORMULA_STARTS else value


FORMULA_STARTS = frozenset("=+-@\t\r\n＝＋－＠'")
"""First characters a spreadsheet may read as the start of a formula, and the apostrophe that guards against it."""


def _checked(row: Row, where: str) -> dict[str, Any]:
    row = upgraded(row)
    missing = [name for name in SCHEMA.names if name not in row]
    unknown = [name for name in row if name not in FIELDS]
    if missing or unknown:
        raise ValueError(f"{where}: missing fields {quoted(missing)}, unknown fields {quoted(unknown)}")
    checked = {field.name: _typed(field, row[field.name], where) for field in SCHEMA}
    if wrong := next(_objections(checked), ""):
        raise ValueError(f"{where}: {wrong}")
    return checked


def _objections(row: dict[str, Any]) -> Iterator[str]:
    """What a row says that cannot be so."""
    name, status = quoted(row["metric"]), row["status"]
    if row["value"] is None and (status == "ok" or not row["reason"].strip()):
        yield f"{name} is null with status {status!r} and reason {quoted(row['reason'])}; say why"
    if row["value"] is not None and status != "ok":
        yield f"{name} has a value and status {status!r}; only null values have another status"
    for field, allowed in _ALLOWED.items():
        if row[field] not in allowed:
            yield f"{field} is {quoted(row[field])}, not one of {', '.join(map(repr, allowed))}"
    low, high = row["ci_low"], row["ci_high"]
    if low is not None and high is not None and low > high:
        yield f"the interval [{low}, {high}] is inverted"
    for field in ("std_error", "real_floor_std_error", "n_real", "n_synthetic", "n_rejected"):
        if row[field] is not None and row[field] < 0:
            yield f"{field} is {row[field]}, below 0"
    if _offset(row["created_at"]) != timedelta(0):
        yield f"created_at is {quoted(row['created_at'])}, not an ISO 8601 time in UTC"


_ALLOWED = {"suite": SUITES, "status": STATUSES, "better": DIRECTIONS, "beyond_floor": BEYOND}


def _offset(text: str) -> timedelta | None:
    try:
        return datetime.fromisoformat(text).utcoffset()
    except ValueError:
        return None


def _typed(field: pa.Field, value: object, where: str) -> object:
    if value is None and field.nullable:
        return None
    try:
        return (_object_text if field.name in OBJECTS else _PARSERS[field.type])(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
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


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("not text")
    # A file name that is not UTF-8 reaches Python with lone surrogates, which no file format here can hold.
    return value.encode("utf-8", "backslashreplace").decode()


def _object_text(value: object) -> str:
    parsed = json.loads(value) if isinstance(value, str) else value
    text = json.dumps(parsed, sort_keys=True, allow_nan=False)
    if not isinstance(parsed, Mapping):
        raise ValueError("not a JSON object")
    return text


_PARSERS: dict[pa.DataType, Callable[[Any], Any]] = {_TEXT: _text, _FLOAT: _float, _INT: _int}
OBJECTS = ("method", "about", "declared")
"""Fields that hold a JSON object as text."""
