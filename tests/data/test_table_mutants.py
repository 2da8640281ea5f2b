"""Valid tables with a few bytes changed, by a seed: each gives its rows or one short visible line."""

from __future__ import annotations

import gzip
import io
import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fixtures.tables import PNG, STORAGE, everything, one_line, write

from chexray.data import pairing
from chexray.data.sources.infer import infer
from chexray.data.sources.parquet_images import ParquetImages
from chexray.errors import ChexrayError

SEED, N_MUTANTS = 11, 500
SPLICES = (
    *(
        sign.encode()
        for sign in ('"', "'", ",", "\t", ";", ":", "{", "[", "\n", "\r", "\0", "\u202e", "\x1b[2J", "\ufeff")
    ),
    *(b"\xff", b"\xed\xa0\x80", b"../", b"\\ud800", b"1e999", b"9" * 400, b"nan", b"None", b"x" * 3_000),
)


def originals():
    """A small valid table of each kind, as bytes."""
    rest = {"prompt": "two words", "labels": "{'Edema': 1.0}", "age": 40, "real_id": "1", "synthetic_id": "1"}
    rows = [{"id": f"{i:03d}", "path": f"{i}.png", **rest} for i in (1, 2)]
    lines = [",".join(rows[0]), *(",".join(f'"{cell}"' for cell in row.values()) for row in rows)]
    text = "\n".join(lines).encode()
    sink, embedded = io.BytesIO(), io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink, compression="none")
    pq.write_table(pa.table({"image": [PNG, PNG], "prompt": ["a", "b"], "labels": [{"Edema": 1}] * 2}), embedded)
    return {
        "t.csv": text,
        "t.tsv": text.replace(b",", b"\t"),
        "t.csv.gz": gzip.compress(text),
        "t.jsonl": "\n".join(map(json.dumps, rows)).encode(),
        "t.parquet": sink.getvalue(),
        "i.parquet": embedded.getvalue(),
    }


def mutated(data, rng):
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(out) + 1)
        way = rng.randrange(5)
        if way == 0:
            out[at : at + rng.choice((0, 1, 8))] = rng.choice(SPLICES)
        elif way == 1 and at < len(out):
            out[at] = rng.randrange(256)
        elif way == 2:
            del out[at : at + rng.choice((1, 4, 40))]
        elif way == 3:
            out[at:at] = out[: rng.randrange(len(out) + 1)]
        elif rng.random() < 0.3:
            del out[at:]
    return bytes(out)


@pytest.mark.slow
def test_mutants_of_every_table_give_rows_or_one_line(tmp_path):
    rng, made, n_read = random.Random(SEED), originals(), 0
    folder = tmp_path / "f"
    for name in ("1.png", "2.png"):
        write(tmp_path / name, PNG)
        write(folder / name, PNG)
    real = everything(write(tmp_path / "ok.csv", made["t.csv"]))
    for number in range(N_MUTANTS):
        name = rng.choice(list(made))
        path, origin = write(tmp_path / name, mutated(made[name], rng)), rng.choice(("real", "synthetic"))
        attempts = [(infer, str(path), STORAGE), (everything, path, origin, ParquetImages if name[0] == "i" else None)]
        if name[0] == "t" and number % 2:
            write(folder / name.replace("t.", "metadata."), path.read_bytes())
            attempts += [(pairing.build, "given", real, real, STORAGE, str(path)), (everything, folder)]
        for attempt, *arguments in attempts:
            try:
                attempt(*arguments)
                n_read += 1
            except ChexrayError as error:
                one_line(error)
        for metadata in folder.glob("metadata.*"):
            metadata.unlink()
    assert 0.5 * N_MUTANTS < n_read < 2 * N_MUTANTS
