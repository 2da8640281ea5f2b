"""Tables of images: CSV, TSV, JSON lines and Parquet, also gzipped; a canary stands where a patient's text may."""

from __future__ import annotations

import csv
import datetime
import gzip
import io
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
from fuzz.attempt import Attempt, Seen
from fuzz.mutation import mutated
from fuzz.values import CANARY, NUMBERS, nested, text, value, with_extension

SHARE = 22
N = 8
FINDING_COLUMNS = ("Edema", "Cardiomegaly", "No Finding", "Pleural Effusion")


SETS = ("real", "fake", "held", "train")


def prepare(folder: Path) -> Path:
    """A folder `images` with N small PNGs for the table under attack and for each of four good tables beside it."""
    from PIL import Image

    (folder / "images").mkdir()
    for i in range(N * (1 + len(SETS))):
        pixels = np.random.default_rng(i).integers(0, 255, (24, 24), np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{i}.png")
    for place, name in enumerate(SETS, start=1):
        rows = [[f"{name}{i}", f"{N * place + i}.png", f"view {i}", f"{name} patient {i}", i % 2] for i in range(N)]
        with (folder / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["id", "path", "prompt", "subject_id", "Edema"], *rows])
    return folder


def good_set(seeds: Path, name: str) -> dict[str, Any]:
    return {"path": str(seeds / f"{name}.csv"), "image_root": str(seeds / "images"), "name": name}


def attempt(seeds: Path, rng: random.Random, folder: Path) -> Attempt:
    rows = _rows(rng)
    kind = rng.choice(["csv", "csv", "csv", "tsv", "jsonl", "jsonl", "parquet", "parquet"])
    makers = {"csv": _csv, "tsv": lambda *given: _csv(*given, "\t"), "jsonl": _json_lines, "parquet": _parquet}
    data, how = makers[kind](rows, rng)
    if rng.random() < 0.3:
        data, how = mutated(data, rng), f"{how}, damaged"
    name = f"set.{kind}"
    if kind != "parquet" and rng.random() < 0.12:
        data, how, name = _zipped(data, how, rng), f"{how}, gzipped", f"{name}.gz"
    (folder / name).write_bytes(data)
    own: dict[str, Any] = {"path": str(folder / name), "image_root": str(seeds / "images")}
    if rng.random() < 0.15:
        del own["image_root"]
    if rng.random() < 0.15:
        own[rng.choice(["columns", "source", "on_duplicate", "image_root"])] = rng.choice(
            [
                value(rng),
                {"image": "path", "labels": rng.choice(["labels", "prompt", None])},
                "table",
                "first",
                "parquet_images",
            ]
        )
    config = _config(seeds, own, folder, rng)
    written = folder / "run.yaml"
    written.write_text(json.dumps(config))
    return Attempt(how, lambda: planned(config), ["validate", str(written)])


def planned(config: dict[str, Any]) -> Seen:
    """The plan of a config, and what the command line prints of it; embedded images are read as well."""
    from chexray.config import parse_config

    return plan_of(parse_config(config))


def _config(seeds: Path, own: dict[str, Any], folder: Path, rng: random.Random) -> dict[str, Any]:
    real, fake, held = (good_set(seeds, name) for name in ("real", "fake", "held"))
    config: dict[str, Any] = {
        "real": own, "synthetic": [fake], "encoders": ["pixels"], "metrics": ["kid"], "output": str(folder / "out"),
        "storage": {"retries": 0, "timeout_s": 2},
    }  # fmt: skip
    draw = rng.random()
    if draw < 0.3:
        config["real"], config["synthetic"] = real, [own]
    if draw > 0.8:
        config |= {"suite": "privacy", "heldout": held}
        if rng.random() < 0.5:
            config["real"], config["privacy"] = real, {"pairs": own["path"]}
    if rng.random() < 0.3:
        config["subsets"] = rng.choice(
            [["all", "findings"], ["sex"], ["age"], ["labels"], [{"column": "age", "bins": [40, 60]}]]
        )
    if rng.random() < 0.1:
        config["limit"] = rng.choice([1, 3, 10**9])
    return config


def _rows(rng: random.Random) -> list[dict[str, Any]]:
    """Usable rows in which some cells, columns or rows are not."""
    rows = [
        {
            "id": f"s{i}",
            "path": f"{i}.png",
            "prompt": f"{CANARY} {i}",
            "report": f"{CANARY}, stable",
            "sex": "FM"[i % 2],
            "age": 40 + 5 * i,
        }
        for i in range(N)
    ]
    if rng.random() < 0.4:
        for i, row in enumerate(rows):
            row |= {name: rng.choice([1, 0, -1, None]) for name in FINDING_COLUMNS} if i or rng.random() < 0.8 else {}
    if rng.random() < 0.25:
        cell = rng.choice(
            [
                [1] * 14, [CANARY], {"Edema": 1}, "[1, 0]", "Edema|Cardiomegaly", CANARY, "['Edema']", "((((" * 900,
                "9" * 4_000,
            ]
        )  # fmt: skip
        for row in rows:
            row["labels"] = cell if rng.random() < 0.8 else value(rng)
    if rng.random() < 0.3:
        for row in rows:
            row["subject_id"] = f"p{rng.randrange(4)}"
    for _ in range(rng.choice([0, 0, 1, 1, 2, 4])):
        row, name = rng.choice(rows), rng.choice(list(rows[0]))
        row[name] = (
            value(rng) if rng.random() < 0.6 else rng.choice([f"{CANARY}\x1b[2J", f"{CANARY}\n{CANARY}", *NUMBERS])
        )
    if rng.random() < 0.15:
        old, new = rng.choice(list(rows[0])), text(rng)
        rows = [{new if key == old else key: cell for key, cell in row.items()} for row in rows]
    if rng.random() < 0.06:
        name = rng.choice(["id", "path", "prompt"])
        for row in rows:
            row.pop(name, None)
    if rng.random() < 0.05:
        rows[3] = dict(rows[2])
    return rows


def _csv(rows: list[dict[str, Any]], rng: random.Random, delimiter: str = ",") -> tuple[bytes, str]:
    names = list(dict.fromkeys(name for row in rows for name in row))
    if rng.random() < 0.03:
        names += [f"column {i}" for i in range(20_000)]
    sink = io.StringIO(newline="")
    how, quoting = "csv", rng.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONE])
    writer = csv.writer(
        sink, delimiter=delimiter, quoting=quoting, escapechar="\\", lineterminator=rng.choice(["\n", "\r\n"])
    )
    writer.writerow(names)
    for i, row in enumerate(rows):
        cells = [
            row.get(name) if not isinstance(row.get(name), dict | list) else json.dumps(row[name]) for name in names
        ]
        if rng.random() < 0.012:
            cells, how = [*cells, CANARY, CANARY][: rng.choice([2, 99_999])], "ragged csv"
        try:
            writer.writerow(cells)
        except (csv.Error, ValueError):
            writer.writerow([str(i)])
    coding = rng.choice(["utf-8"] * 14 + ["utf-8-sig", "latin-1", "latin-1", "utf-16", "cp037"])
    content = sink.getvalue()
    if coding == "latin-1" or rng.random() < 0.1:
        content = content.replace("Mustermann", "Müstermann Núñez")
    return content.encode(
        coding, "surrogatepass" if coding == "utf-8" and rng.random() < 0.1 else "replace"
    ), f"{how} {coding}"


def _json_lines(rows: list[dict[str, Any]], rng: random.Random) -> tuple[bytes, str]:
    lines = []
    for row in rows:
        line = json.dumps(row, ensure_ascii=rng.random() < 0.5)
        draw = rng.random()
        if draw < 0.04:
            at = rng.randrange(len(line))
            odd = [
                "NaN", "1e999", "\\ud800", '"\\ud800"', "9" * 6_000, "[" * rng.choice([50, 100_000]), '{"a":' * 3_000,
                "\x00", "}{",
            ]  # fmt: skip
            line = line[:at] + rng.choice(odd) + line[at:]
        elif draw < 0.06:
            line = line[:-1] + f', "id": "{CANARY}"}}'
        elif draw < 0.08:
            line = rng.choice(["1", "null", f'"{CANARY}"', "[1]", CANARY])
        lines.append(line)
    return "\n".join(lines).encode("utf-8", rng.choice(["surrogatepass", *["replace"] * 5])), "jsonl"


def _parquet(rows: list[dict[str, Any]], rng: random.Random) -> tuple[bytes, str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        cells = [row.get(name) for row in rows]
        try:
            columns[name] = pa.array(cells)
        except (pa.ArrowException, OverflowError, TypeError, UnicodeError, ValueError, RecursionError):
            columns[name] = pa.array([None if cell is None else ascii(cell) for cell in cells])
    how = "parquet"
    if rng.random() < 0.3:
        columns[rng.choice(list(columns))], how = _odd_column(rng), "parquet of odd types"
    try:
        table = pa.table(columns)
    except (pa.ArrowException, UnicodeError, ValueError):
        table = pa.table({"id": [str(i) for i in range(N)], "path": [f"{i}.png" for i in range(N)]})
    if rng.random() < 0.3:
        table, how = (
            with_extension(table, rng.choice([*table.column_names, "image", "extra"]), rng),
            "parquet with an extension",
        )
    if rng.random() < 0.1:
        table = table.replace_schema_metadata(
            {"chexray": json.dumps(value(rng)), "pandas": "{", "huggingface": text(rng).encode("utf-8", "replace")}
        )
    sink = io.BytesIO()
    try:
        pq.write_table(table, sink, row_group_size=rng.choice([1, 3, 100]))
    except (pa.ArrowException, UnicodeError):
        return b"PAR1" + rng.randbytes(60) + b"PAR1", "parquet noise"
    return sink.getvalue(), how


def _odd_column(rng: random.Random) -> Any:
    """N values of a type that no table of images has where it has it."""
    import pyarrow as pa

    makers: list[Any] = [
        lambda: pa.array([b"\xff\xfe"] * N, pa.binary()), lambda: pa.nulls(N), lambda: pa.array([[1.5] * 3] * N),
        lambda: pa.array([{"bytes": b"x", "path": CANARY}] * N),
        lambda: pa.array([datetime.datetime(9999, 12, 31)] * N),
        lambda: pa.array([2**62] * N, pa.timestamp("s")), lambda: pa.array([CANARY] * N).dictionary_encode(),
        lambda: pa.array([2**63] * N, pa.uint64()),
        lambda: pa.array([{"a": [{"b": CANARY}]}] * N), lambda: pa.array([True, None] * (N // 2)),
        lambda: pa.array([float("nan")] * N),
        lambda: pa.array([[("k", "v")]] * N, pa.map_(pa.string(), pa.string())),
        lambda: pa.array([1] * N, pa.duration("ns")),
        lambda: pa.array([CANARY] * N, pa.large_string()), lambda: pa.array([bytes(16)] * N, pa.binary(16)),
        lambda: pa.array([2**60] * N, pa.date64()),
        lambda: pa.array([10**30] * N, pa.decimal128(38)), lambda: pa.array([nested(60, True)] * N),
    ]  # fmt: skip
    return rng.choice(makers)()


def _zipped(data: bytes, how: str, rng: random.Random) -> bytes:
    draw = rng.random()
    if draw < 0.06:  # a gigabyte and more of one cell
        sink = io.BytesIO()
        with gzip.GzipFile(fileobj=sink, mode="wb", compresslevel=1) as file:
            file.write(data[:-1])
            for _ in range(rng.choice([300, 1_600])):
                file.write(b"a" * (1 << 20))
        return sink.getvalue()
    packed = gzip.compress(data, mtime=0)
    return mutated(packed, rng) if draw < 0.4 else packed * 3 if draw < 0.5 else packed


def plan_of(config: Any) -> Seen:
    """What `validate` does with a config, and what a run begins with."""
    from chexray.data.images import load_images
    from chexray.plan import make_plan

    plan = make_plan(config)
    lines = [*plan.describe(), *(f"note       {note}" for note in plan.notes)]
    config.to_yaml()
    for manifest in plan.sets:
        uris = [uri for uri in manifest.table["uri"].to_pylist() if uri and "#column=" in uri]
        if uris:
            lines += [found.detail for found in load_images(uris, plan.storage, threads=2) if hasattr(found, "detail")]
    return Seen("ok", lines)
