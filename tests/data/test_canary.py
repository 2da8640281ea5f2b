"""No text of a patient leaves a table by an error: tables with a canary in every cell, damaged in every way we know.

Looked for in what is raised and its whole chain (chains end up in logs), in both streams as the operating system sees
them, in Python's unraisable errors and warnings, and in the notes of manifests and pairs.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import sys
import warnings

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from chexray.data import manifest, pairing, prompts, subsets
from chexray.data.sources.folder import Folder
from chexray.data.sources.infer import infer
from chexray.data.sources.parquet_images import ParquetImages
from chexray.data.sources.table import Table
from chexray.errors import ChexrayError
from chexray.storage import Storage

STORAGE = Storage()
SEED, N_CASES = 6, 450
TEXTS = (
    "Sr. José Núñez, 67 y, MRN 4711-CANARY",
    "CANARY Jane Roe; opacity, left\nsecond line of CANARY",
    'Patient "CANARY" 4711 0815 0816',
    "CANARY\t4711 | 12.03.1957 " * 20,
)
SECRETS = ("CANARY", "Jane", "Roe", "Núñez", "4711", "opacity")
"""What must appear nowhere: any word of a prompt, a label, or another cell that is neither id nor path."""
ID = "IDBIRD"
"""In ids and paths, which are shown where they find the row."""


def rows(rng, n=6):
    """A table whose every cell but ids and paths holds a canary."""
    return [
        {
            "id": f"{ID}-{i}",
            "path": f"{i}.png",
            "patientID": rng.choice(TEXTS),
            "annotated_prompt": rng.choice(TEXTS),
            "chexpert_labels": str({"Edema": 1.0}),
            "age": rng.choice(TEXTS),
            "remark": rng.choice(TEXTS),
        }
        for i in range(n)
    ]


LABELS = (
    *(
        "{'CANARY Jane': 1}",
        "{'Edema': 'CANARY 4711'}",
        "{'Edema': 4711}",
        '{"CANARY4711": 1}',
        "CANARY",
        "['CANARY J']",
    ),
    *("{'Edema': ('CANARY', 4711)}", "{'CANARY", "{4711: 1}", "{b'CANARY': 1}", "{'Edema': CANARY}", "'CANARY\\d'"),
    *({"CANARY Jane": 1}, {"Edema": {"CANARY": 4711}}, {"Edema": "CANARY"}, ["CANARY", 4711], 4711),
)


def wrong_cells(table, rng):
    """One or two kinds of wrong content in the rows themselves."""
    for kind in rng.sample(range(10), rng.choice((0, 1, 1, 2))):
        row = rng.choice(table)
        if kind == 0:
            row["chexpert_labels"] = rng.choice(LABELS)
        elif kind == 1:
            row["id"] = table[0]["id"]
        elif kind == 2:
            row["id"] = None
        elif kind == 3:
            row["path"] = rng.choice((f"../{ID}.png", f"{ID}.png", f"/etc/{ID}", None))
        elif kind == 4:
            row["path"] = rng.choice(("../", "", "s3://", "/etc/")) + rng.choice(TEXTS)
        elif kind == 5:
            for each in table:
                each["path"] = rng.choice(TEXTS) * rng.choice((1, 20))
        elif kind == 6:
            for each in table:
                del each["chexpert_labels"]
                each["Edema"] = rng.choice((1, 0, None, *TEXTS, 4711))
        elif kind == 7:
            for each in table:
                each["id"] = rng.choice(TEXTS)
        elif kind == 8:
            row["age"] = rng.choice((2**70, 1e999, {"CANARY": [4711]}, ["CANARY"], "\ud800 CANARY", True))
        elif kind == 9:
            for each in table:
                each.pop("path")
    return table


def as_csv(table, rng, delimiter):
    names = list(dict.fromkeys(name for row in table for name in row))
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, quoting=rng.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL)))
    lines = [[row.get(name) for name in names] for row in table]
    kind = rng.randrange(8)
    if kind == 0:
        rng.choice(lines).extend([TEXTS[0], TEXTS[1]])
    elif kind == 1:
        rng.choice(lines).pop()
    elif kind == 2:
        names[-1] = names[0]
    writer.writerows(lines if kind == 3 else [names, *lines])
    return text.getvalue().encode("utf-8", "surrogatepass")


def as_parquet(table, rng):
    names = list(dict.fromkeys(name for row in table for name in row))
    columns = {}
    for name in names:
        cells = [row.get(name) for row in table]
        try:
            columns[name] = pa.array(cells)
        except (pa.ArrowException, OverflowError, ValueError):
            columns[name] = pa.array([None if cell is None else repr(cell) for cell in cells])
        if name not in ("id", "path") and rng.random() < 0.2 and pa.types.is_string(columns[name].type):
            raw = [(cell or "").encode("latin-1", "replace") for cell in columns[name].to_pylist()]
            stored = pa.array(raw, pa.binary())
            text = pa.Array.from_buffers(pa.string(), len(raw), stored.buffers())
            columns[name] = rng.choice((stored, text, columns[name].dictionary_encode()))
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, compression=rng.choice(("none", "snappy")))
    return sink.getvalue()


def damaged(data, rng):
    """The bytes as they are most often, else in another encoding, cut, or with a byte changed."""
    kind = rng.randrange(10)
    if kind == 0:
        return data[: rng.randrange(len(data))]
    if kind == 1:
        at = rng.randrange(len(data))
        return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
    if kind in (2, 3, 4):
        try:
            return data.decode().encode(("latin-1", "utf-16", "utf-16-le")[kind - 2])
        except UnicodeError:
            return data
    if kind == 5:
        at = rng.randrange(len(data))
        return data[:at] + rng.choice((b'"', b"\0", b"\xff", b"\n", b"{", b"\\ud800")) + data[at:]
    return data


def made(rng):
    """The name and the bytes of one table."""
    table = wrong_cells(rows(rng), rng)
    name = rng.choice(("t.csv", "t.csv", "t.tsv", "t.csv.gz", "t.jsonl", "t.jsonl", "t.parquet"))
    if name == "t.parquet":
        data = as_parquet(table, rng)
    elif name == "t.jsonl":
        lines = [json.dumps(row, ensure_ascii=rng.random() < 0.5) for row in table]
        if rng.random() < 0.2:
            lines.insert(
                2, rng.choice(('["CANARY"]', '"CANARY"', '{"CANARY', '{"x": "CANARY", "x": 1}', "{'CANARY': 1}"))
            )
        data = "\n".join(lines).encode("utf-8", "surrogatepass")
    else:
        data = as_csv(table, rng, rng.choice(("\t" if name == "t.tsv" else ",",) * 5 + (";",)))
    data = damaged(data, rng)
    return name, damaged(gzip.compress(data), rng) if name.endswith("gz") else data


COLUMNS = (
    *(None, None, {"sample_id": "id"}, {"sample_id": "annotated_prompt"}, {"image": "remark"}, {"labels": "remark"}),
    *({"prompt": "age", "labels": None}, {"subject_id": "nobody"}),
)


def attempts(path, folder, real, rng):
    """Each way in which a run may be pointed at the table."""
    columns = rng.choice(COLUMNS)
    origin = rng.choice(("real", "synthetic"))

    def load(source):
        built = manifest.load("set", origin, source, STORAGE, on_duplicate=rng.choice(("error", "first")))
        said = [*built.notes, *built.rejects["detail"].to_pylist()]
        for wanted in ("age", "remark", "remark:x", {"column": "age", "bins": [1, 2]}, "nobody"):
            try:
                subsets.expand([wanted], built, [built])
            except ChexrayError as error:
                said += chain(error)
        said += pairing.build("auto", real, built, STORAGE).notes
        return [*said, *prompts.inherit_by_prompt(built, real).notes, str(len(built.fingerprint))]

    yield lambda: [infer(str(path), STORAGE)]
    yield lambda: load(Table(str(path), columns=columns, image_root=rng.choice((None, str(folder)))))
    yield lambda: load(Folder(str(folder), columns=columns))
    yield lambda: load(ParquetImages(str(path), columns=columns))
    yield lambda: pairing.build("given", real, real, STORAGE, str(path)).notes


def chain(error):
    """Every text of an error and of what it came from, also of what `from None` hides."""
    seen, waiting = [], [error]
    while waiting:
        error = waiting.pop()
        if error is not None and error not in seen:
            seen.append(error)
            waiting += [error.__cause__, error.__context__]
    return [text for error in seen for text in (str(error), repr(error.args), *getattr(error, "__notes__", ()))]


@pytest.fixture
def world(tmp_path):
    for folder in (tmp_path, tmp_path / "folder"):
        folder.mkdir(exist_ok=True)
        for i in range(6):
            (folder / f"{i}.png").write_bytes(b"png")
    good = [{**row, "age": 5, "patientID": "p"} for row in rows(random.Random(0))]
    (tmp_path / "good.csv").write_bytes(as_csv(good, random.Random(4), ","))
    real = manifest.load("real", "real", Table(str(tmp_path / "good.csv")), STORAGE)
    return tmp_path, real


@pytest.mark.slow
def test_no_cell_of_a_damaged_table_is_said(world, capfd, monkeypatch):
    tmp_path, real = world
    rng, said, n_errors = random.Random(SEED), [], 0
    monkeypatch.setattr(
        sys, "unraisablehook", lambda hook: said.append(f"unraisable {hook.exc_value!r} {hook.err_msg}")
    )
    for case in range(N_CASES):
        name, data = made(rng)
        path = tmp_path / name
        path.write_bytes(data)
        metadata = tmp_path / "folder" / name.replace("t.", "metadata.")
        metadata.write_bytes(data.replace(b"path", b"file_name") if name.endswith(("csv", "jsonl")) else data)
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            for attempt in attempts(path, metadata.parent, real, rng):
                try:
                    said += attempt()
                except ChexrayError as error:
                    n_errors += 1
                    said += chain(error)
        said += [str(warning.message) for warning in warned]
        metadata.unlink()
        streams = capfd.readouterr()
        said += [streams.out, streams.err]
        leaks = [text for text in said if any(secret in text for secret in SECRETS)]
        assert not leaks, f"case {case}, {name}: {leaks[0][:500]}"
        assert not streams.err, f"case {case}, {name}: {streams.err[:300]}"
        if case < N_CASES - 1:
            said = [text for text in said if ID in text]
    # The hunt met many errors, and rows are still found by their ids.
    assert n_errors > N_CASES
    assert any("repeat, first 'IDBIRD" in text for text in said)
    assert any("leaves the image root" in text and ID in text for text in said)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("suffix", ["csv", "tsv", "csv.gz"])
def test_a_ragged_row_of_another_encoding_is_not_printed(world, capfd, monkeypatch, text, suffix):
    """The attack as it was found: Arrow quotes the row, decodes it on the way, and fails again in the handler."""
    tmp_path, _ = world
    monkeypatch.setattr(sys, "unraisablehook", lambda hook: pytest.fail(f"unraisable: {hook.exc_value!r}"))
    sign = "\t" if suffix == "tsv" else ","
    data = f"id,path,prompt\n1,1.png,ok\n2,2.png,{text.replace(chr(9), ' ')},é,4711\n".replace(",", sign).encode(
        "latin-1"
    )
    path = tmp_path / f"t.{suffix}"
    path.write_bytes(gzip.compress(data) if suffix.endswith("gz") else data)
    with pytest.raises(ChexrayError) as caught:
        Table(str(path)).read("real", STORAGE)
    assert "not UTF-8" in str(caught.value)
    out, err = capfd.readouterr()
    assert not any(secret in said for said in (*chain(caught.value), out, err) for secret in SECRETS)
