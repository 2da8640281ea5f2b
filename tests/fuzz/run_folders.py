"""Attacks on the folder of a finished run: its config, its JSON, its tables, and what its names lead to."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import shutil
from pathlib import Path

import yaml
from fuzz.kinds.configs import yaml_trap
from fuzz.mutation import mutated
from fuzz.values import altered, text, value, with_extension

TABLES = ("verdicts.parquet", "rejects.parquet", "results.parquet")


def tampered(run: Path, good: Path, rng: random.Random, folder: Path) -> str:
    """One attack on the files of a run; its name. good: the same folder as it was."""
    draw = rng.random()
    path = rng.choice([each for each in sorted(run.iterdir()) if each.is_file() and not each.is_symlink()] or [run])
    if path.is_dir():
        return "nothing left"
    if draw < 0.25:
        path.write_bytes(mutated(path.read_bytes(), rng))
        return f"damaged {path.name}"
    if draw < 0.37:
        return _config_of(run / "config.yaml", good, rng, folder)
    if draw < 0.52:
        name = rng.choice(["run.json", "status.json", "results.json"])
        body = altered(json.loads((good / name).read_text()), rng, rng.choice([1, 1, 3]))
        _put(run / name, json.dumps(body).encode())
        if name == "results.json":
            (run / "results.parquet").unlink(missing_ok=True)
        return f"altered {name}"
    if draw < 0.68:
        return _columns_of(run / rng.choice(TABLES), rng)
    if draw < 0.86:
        return _rows_of(run, good, rng)
    way = rng.choice(["gone", "empty", "link", "folder", "fifo", "filtered is a link", "file is a link", "large"])
    if way.endswith("is a link") and (run / "filtered").is_symlink():
        return way
    if way == "filtered is a link":
        (run / "filtered").symlink_to(Path(os.environ["FUZZ_MARKER"]).parent)
        return way
    if way == "file is a link":
        (run / "filtered").mkdir(exist_ok=True)
        target = run / "filtered" / rng.choice(["fake.parquet", "fake-dropped.parquet", "fake.yaml"])
        target.symlink_to(Path(os.environ["FUZZ_MARKER"]).parent / "precious.txt")
        return way
    path.unlink()
    if way == "empty":
        path.write_bytes(b"")
    elif way == "link":
        path.symlink_to(rng.choice(["/dev/null", "/etc/passwd", path.name, ".."]))
    elif way == "folder":
        path.mkdir()
    elif way == "fifo":
        os.mkfifo(path)
    elif way == "large":
        path.write_bytes(b"")
        os.truncate(path, rng.choice([10**8, 10**11]))
    return f"{path.name} {way}"


def _put(path: Path, data: bytes) -> None:
    """Writes a file, over whatever an attack before this one left there; a pipe would block."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def _config_of(path: Path, good: Path, rng: random.Random, folder: Path) -> str:
    config = yaml.safe_load((good / "config.yaml").read_text())
    draw = rng.random()
    if draw < 0.3:
        _put(path, yaml_trap(config, rng))
        return "config.yaml with a YAML trap"
    if draw < 0.7:
        config = altered(config, rng, rng.choice([1, 2]))
    else:
        key, given = rng.choice(
            [
                ("output", text(rng)),
                ("feature_store", str(folder.parent)),
                ("storage", {"endpoint_url": "http://127.0.0.1:9"}),
                ("name", text(rng)),
            ]
        )
        config[key] = given
        config["synthetic"][0]["name"] = rng.choice(["../../x", "/etc/x", "a\x1b[2Jb", "x" * 300, "fake"])
    _put(path, json.dumps(config).encode())
    return "altered config.yaml"


def _columns_of(path: Path, rng: random.Random) -> str:
    """A table of the run with an extension type, another type, nulls or a column less."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file() or path.is_symlink():
        return "nothing"
    try:
        table = pq.read_table(io.BytesIO(path.read_bytes()))
    except (pa.ArrowException, OSError):
        return "nothing"
    name, n = rng.choice(table.column_names), len(table)
    way = rng.choice(
        [
            "extension", "extension", "drop", "nulls", "numbers", "texts", "lists", "bytes", "twice", "no rows",
            "many rows",
        ]
    )  # fmt: skip
    made = {"nulls": lambda: pa.nulls(n), "numbers": lambda: pa.array([1.5] * n), "lists": lambda: pa.array([[1]] * n),
    "bytes": lambda: pa.array([b"\xff"] * n),
            "texts": lambda: pa.array([text(rng).encode("utf-8", "replace").decode() for _ in range(n)])}  # fmt: skip
    if way == "extension":
        table = with_extension(table, rng.choice([name, "extra"]), rng)
    elif way == "drop":
        table = table.drop_columns([name])
    elif way in made:
        table = table.set_column(table.column_names.index(name), name, made[way]())
    elif way == "twice":
        table = table.append_column(name, table[name])
    else:
        table = table.slice(0, 0) if way == "no rows" else pa.concat_tables([table] * 300)
    pq.write_table(table, path)
    return f"{path.name}: {way}"


def _rows_of(run: Path, good: Path, rng: random.Random) -> str:
    """Values in the rows of a table that its types allow and nobody expects, also as CSV and JSON."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    name = rng.choice([*TABLES, "results.csv", "results.json"])
    table = pq.read_table(io.BytesIO((good / (name if name in TABLES else "results.parquet")).read_bytes()))
    rows = table.to_pylist()
    for _ in range(rng.choice([1, 1, 2, 5])):
        row = rng.choice(rows)
        field = rng.choice(list(row))
        old = row[field]
        kind = table.schema.field(field).type
        if pa.types.is_string(kind):
            row[field] = rng.choice(
                [text(rng), f"\x1b[31m{field}\nx", "{}", '{"a": NaN}', json.dumps(value(rng)), "‮x@0123"]
            )
        elif pa.types.is_list(kind):
            row[field] = rng.choice([None, [], [text(rng)] * 3, [None], ["x\x1b[2J: y\nz"]])
        elif pa.types.is_boolean(kind):
            row[field] = rng.choice([None, not old])
        else:
            row[field] = (
                rng.choice([float("nan"), float("inf"), -1.0, 0.0, 1e308, None])
                if pa.types.is_floating(kind)
                else rng.choice([-1, 2**62, None, 0])
            )
    for row in rows:
        for field, cell in row.items():
            if isinstance(cell, str):
                row[field] = cell.encode("utf-8", "replace").decode()
            elif isinstance(cell, list):
                row[field] = [part and part.encode("utf-8", "replace").decode() for part in cell]
    if name in TABLES:
        _put(run / name, b"")
        pq.write_table(
            pa.Table.from_pylist(rows, pa.schema([pa.field(each.name, each.type) for each in table.schema])), run / name
        )
        return f"rows of {name}"
    (run / "results.parquet").unlink(missing_ok=True)
    if name == "results.json":
        _put(run / name, json.dumps({"format": 1, "rows": rows}).encode())
    else:
        (run / "results.json").unlink(missing_ok=True)
        _put(run / name, b"")
        with (run / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return f"rows of {name}"
