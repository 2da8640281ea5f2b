"""Hostile values: texts, numbers, paths, JSON, pickles that leave a marker, and columns that run code when read."""

from __future__ import annotations

import io
import os
import pickle
import random
import zipfile
from pathlib import Path
from typing import Any

CANARY = "CANARY Erika Mustermann 67 y MRN 4711"
"""Stands where a patient's text would: it must come back in no message and in no stream."""
CANARY_MARKS = ("CANARY", "Mustermann", "MRN 4711")


def marker() -> Path:
    """The file that code of an input would make."""
    return Path(os.environ["FUZZ_MARKER"])


TEXTS = [
    "", " ", "\t", "0", "-1", "x", "nan", "None", "null", "true", "~", "all", "é" * 50, "\x00", "a\x00b",
    "\x1b[2J\x1b[31mowned",
    "\x1b]0;title\x07", "‮gnp.exe", "⁦a⁩", "\r\nchexray: forged line", "a\nb", "\u2028", "\u200b", "\ufeff", "\x9b31m",
    "\ud800", "\udcff\udcfe", "A" * 300, "B" * 5_000, "C" * 100_000, "\n" * 3_000, "\x1b" * 3_000, "'" * 250,
    '"' * 250, "{" * 2_000,
    "%s%n%d", "{0.__class__}", "${HOME}", "$(id)", "=cmd|' /C calc'!A0", "<script>alert(1)</script>", "[red]x[/red]",
    "[/]",
    "9" * 5_000, "1e400", "-0.0", "0x10", "1_000", "١٢", "2024-99-99", "2024-01-01", "😀" * 90,
    "a" * 64 + "/" + "b" * 255,
]  # fmt: skip

PATHS = [
    "..", ".", "/", "../../../../etc/passwd", "/etc/passwd", "//etc/passwd", "/dev/zero", "/dev/stdin",
    "/proc/self/mem", "~root/.ssh/id_rsa",
    "%2e%2e/%2e%2e/x", "..\\..\\x", "file:///etc/passwd", "file://localhost/etc/passwd", "s3://", "s3:///x",
    "s3://b/../k", "http://127.0.0.1:9/x.csv",
    "https://user:pw@127.0.0.1:9/x", "gs://b/k", "memory://x", "github://o:r@/x", "zip://x::/tmp/y.zip", "data:,x",
    "a.csv#column=image&row=0",
    "x.parquet#column=&row=", "x.parquet#column=image&row=" + "9" * 30, "*", "**/*", "[", "{a,b}", "?", "x" * 300,
    "d/" * 2_000, "con", "-rf",
    "\\\\server\\share", "a\x00.png", "\x1b[2J.png", "\n.csv",
]  # fmt: skip

NUMBERS: list[Any] = [
    0, -1, 1, 2, 7, 255, 256, 65_535, 65_536, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63),
    10**30, 10**400,
    0.0, -0.0, 0.5, 1e-320, 1e308, -1e308, float("inf"), float("-inf"), float("nan"), 1e9, 3.7,
]  # fmt: skip


def text(rng: random.Random) -> str:
    return rng.choice(PATHS) if rng.random() < 0.25 else rng.choice(TEXTS)


def number(rng: random.Random) -> Any:
    return rng.choice(NUMBERS)


def value(rng: random.Random, depth: int = 0) -> Any:
    """Anything JSON can hold (and NaN), most often something small."""
    draw = rng.random()
    if draw < 0.3:
        return number(rng)
    if draw < 0.6:
        return text(rng)
    if draw < 0.72:
        return rng.choice([None, True, False])
    if draw < 0.76:
        return nested(rng.choice([3, 60, 400]), rng.random() < 0.5)
    if draw < 0.8:
        return [rng.choice(NUMBERS)] * rng.choice([0, 1, 3, 14, 1_000])
    if depth > 2:
        return rng.choice([[], {}])
    if draw < 0.9:
        return [value(rng, depth + 1) for _ in range(rng.choice([0, 1, 2, 3, 5]))]
    return {key(rng): value(rng, depth + 1) for _ in range(rng.choice([0, 1, 2, 4]))}


def key(rng: random.Random) -> str:
    return (
        rng.choice(["name", "path", "type", "__class__", "__reduce__", "$ref", "size", "a.b"])
        if rng.random() < 0.6
        else text(rng)
    )


def nested(depth: int, as_list: bool) -> Any:
    found: Any = 0
    for _ in range(depth):
        found = [found] if as_list else {"a": found}
    return found


def altered(data: Any, rng: random.Random, times: int = 1) -> Any:
    """A copy of nested plain data in which something is replaced, dropped, renamed or added."""
    import copy

    data = copy.deepcopy(data)
    for _ in range(times):
        places = list(_places(data))
        if not places:
            return value(rng)
        holder, at = rng.choice(places)
        draw = rng.random()
        if draw < 0.7:
            holder[at] = value(rng)
        elif draw < 0.8:
            del holder[at]
        elif isinstance(holder, dict):
            if draw < 0.9:
                holder[key(rng)] = holder.pop(at)
            else:
                holder[key(rng)] = value(rng)
        else:
            holder.append(value(rng))
    return data


def _places(data: Any) -> Any:
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for at, item in list(items):
        yield data, at
        if isinstance(item, dict | list):
            yield from _places(item)


class _Runs:
    """Unpickled, it makes the marker."""

    def __init__(self, function: Any, *args: Any):
        self.function, self.args = function, args

    def __reduce__(self) -> Any:
        return self.function, self.args


def payload(rng: random.Random) -> bytes:
    """A pickle that makes the marker when it is loaded, in one of several ways."""
    import builtins
    import subprocess

    path = str(marker())
    code = f"open({path!r}, 'w').close()"
    ways = [
        _Runs(os.system, f"touch {path}"), _Runs(builtins.exec, code), _Runs(builtins.eval, code),
        _Runs(os.mkdir, path),
        _Runs(subprocess.check_call, ["touch", path]), _Runs(open, path, "w"),
        _Runs(os.open, path, os.O_CREAT | os.O_WRONLY),
    ]  # fmt: skip
    way: Any = rng.choice(ways)
    if rng.random() < 0.3:
        way = {"state_dict": {"a": way}} if rng.random() < 0.5 else [1, way]
    return pickle.dumps(way, rng.randrange(6))


def torch_file(data_pkl: bytes, rng: random.Random, *, name: str = "archive") -> bytes:
    """A torch zip file around any pickle, deflated or stored."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as archive:
        archive.writestr(f"{name}/data.pkl", data_pkl)
        archive.writestr(f"{name}/version", "3\n")
        archive.writestr(f"{name}/byteorder", "little")
        archive.writestr(f"{name}/data/0", bytes(rng.choice([0, 4, 4096])))
    return sink.getvalue()


EXTENSIONS = ["ray.data.arrow_pickled_object", "ray.data.arrow_tensor", "ray.data.arrow_tensor_v2",
"ray.data.arrow_variable_shaped_tensor", "pandas.period", "arrow.py_extension_type", "evil.type",
"\x1b[2J"]  # fmt: skip


def extension_field(name: str, payloads: list[bytes], rng: random.Random) -> tuple[Any, Any]:
    """(field, array) of pickles under an extension type's name, as a file holds them; also inside lists and structs."""
    import pyarrow as pa

    extension = EXTENSIONS[0] if rng.random() < 0.7 else rng.choice(EXTENSIONS)
    metadata = {"ARROW:extension:name": extension, "ARROW:extension:metadata": rng.choice(["", "{}", "\x80\x04."])}
    inner = pa.field(name, pa.large_binary(), metadata=metadata)
    array: Any = pa.array(payloads, pa.large_binary())
    shape = rng.choice(["plain", "plain", "list", "struct", "deep"])
    if shape in ("list", "deep"):
        kind = pa.list_(pa.field("item", pa.large_binary(), metadata=metadata))
        array, inner = pa.array([[item] for item in payloads], kind), pa.field(name, kind)
    if shape in ("struct", "deep"):
        part = pa.field("bytes", inner.type, metadata=None if shape == "deep" else metadata)
        array = pa.StructArray.from_arrays([array], fields=[part])
        inner = pa.field(name, pa.struct([part]))
    return inner, array


def with_extension(table: Any, column: str, rng: random.Random) -> Any:
    """The table with `column` replaced by (or joined by) one of pickles that run code."""
    import pyarrow as pa

    field, array = extension_field(column, [payload(rng) for _ in range(len(table))], rng)
    fields, arrays = [], []
    for known in table.schema:
        taken = known.name == column
        fields.append(field if taken else known)
        arrays.append(array if taken else table[known.name].combine_chunks())
    if column not in table.schema.names:
        fields.append(field)
        arrays.append(array)
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))
