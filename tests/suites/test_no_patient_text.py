"""What a table says of patients beside its images goes into no output, log or message of any suite.

Each prompt and each cell of the columns that nobody asked for holds a canary; a run of all suites then meets missing
and broken images too. The terminal, every file of the run, the store and Ray's own logs are searched for it.
"""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from fixtures.classroom import make_classroom
from fixtures.jobs_api import JobsApi, served

CANARIES = ("Zofia Canaryewicz", "MRN 4711-CANARY", "67-jährige Kanarie")
RUN = """
import shutil, sys
import chexray.storage.scratch as scratch
from chexray.cli import main
target, real = sys.argv.pop(1), shutil.rmtree
def keep(folder, *rest, **more):
    shutil.copytree(folder, f"{target}/{len(list(__import__('os').scandir(target)))}", symlinks=True,
                    ignore=lambda place, names: [n for n in names if "sock" in n or "plasma" in n])
    real(folder, *rest, **more)
class Shutil:
    rmtree = staticmethod(keep)
scratch.shutil = Shutil
main()
"""


def rows_with_canaries(path: Path) -> list[dict[str, str]]:
    """The table's rows with a canary in each prompt and in three further columns; the same prompt twice stays so."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        prompt = next((name for name in ("prompt", "annotated_prompt", "text") if name in row), None)
        if prompt and row[prompt]:
            row[prompt] = f"{row[prompt]}; {CANARIES[0]}, {CANARIES[1]}, {CANARIES[2]}"
        row |= {"patient_name": CANARIES[0], "record": CANARIES[1], "report": f"{CANARIES[2]}\nunremarkable"}
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return rows


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """(config, folder): all suites over tables full of canaries, with one missing and one broken image each."""
    folder = tmp_path_factory.mktemp("patients")
    classroom = make_classroom(folder / "sets")
    for table in (classroom.training, classroom.test, classroom.drawn):
        rows_with_canaries(table)
    for images in sorted(folder.rglob("*.png"))[::60]:
        images.write_bytes(b"not an image " + CANARIES[1].encode())
    data = classroom.data(
        folder / "out",
        suite=["fidelity", "privacy", "utility"],
        encoders=["pixels", "perceptual_hash"],
        metrics=["kid", "prdc"],
        settings=["real", "synthetic"],
        epochs=1,
        figures=True,
        feature_store=None,
        encode={"chunk_size": 64, "max_reject_fraction": 0.5},
    )
    config = folder / "study.yaml"
    config.write_text(yaml.safe_dump(data), encoding="utf-8")
    return config, folder


def holds(data: bytes) -> bool:
    spellings = [form for text in CANARIES for form in (text, ascii(text)[1:-1], text.split()[-1])]
    return any(form.encode() in data for form in spellings)


def texts_of(path: Path) -> bytes:
    """A file's bytes; for Parquet, which is compressed, its values as text and its metadata."""
    if path.suffix != ".parquet":
        return path.read_bytes()
    table = pq.read_table(path)
    return f"{table.schema} {table.schema.metadata} {table.to_pydict()}".encode()


@pytest.mark.ray
def test_all_suites_say_write_and_log_nothing_of_it(study, tmp_path):
    config, folder = study
    logs = tmp_path / "ray"
    logs.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(logs), "run", str(config)], capture_output=True, cwd=folder, timeout=280
    )
    assert done.returncode in (0, 1), done.stderr.decode()[-2000:]
    assert b"results: " in done.stdout
    assert b"rejected" in done.stdout + done.stderr
    assert not holds(done.stdout)
    assert not holds(done.stderr)
    written = [path for path in (folder / "out").rglob("*") if path.is_file()]
    assert {"results.parquet", "predictions.parquet", "verdicts.parquet", "log.txt"} <= {path.name for path in written}
    assert not [path for path in written if holds(texts_of(path))]
    # Results hold labels and ids of patients: others of this machine may not read them.
    assert not [path for path in written if path.stat().st_mode & 0o007]
    ray = [path for path in logs.rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(ray) > 10
    assert not [path for path in ray if holds(path.read_bytes())]


@pytest.mark.parametrize("spoiled", ["ragged", "labels", "latin-1", "missing images"])
def test_an_error_says_nothing_of_it_here_nor_through_submit(study, tmp_path, command, spoiled):
    config, _ = study
    data = yaml.safe_load(config.read_text(encoding="utf-8"))
    path = Path(data["training"])
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    if spoiled == "ragged":
        rows[3] += [CANARIES[1]] * 3
    elif spoiled == "labels":
        rows[3] = [f"{cell} {CANARIES[0]}" if cell.startswith("{") else cell for cell in rows[3]]
    elif spoiled == "missing images":
        rows[1:] = [
            [f"{cell[:-4]}-{i}.png" if cell.endswith(".png") else cell for i, cell in enumerate(r)] for r in rows[1:]
        ]
    broken = path.with_name(f"broken-{spoiled.replace(' ', '-')}.csv")
    with broken.open("w", encoding="latin-1" if spoiled == "latin-1" else "utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    data |= {"training": str(broken), "output": str(tmp_path / "out")}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    for verb in ("validate", "run"):
        code, output, errors = command(verb, "run.yaml", at=tmp_path)
        said = [line for line in errors.splitlines() if not line.startswith("plan: ")]
        assert code == 2, said
        assert len(said) == 1, said
        assert not holds((output + errors).encode())


def test_what_submit_sends_and_says_holds_none(study, tmp_path, command):
    config, _ = study
    data = yaml.safe_load(config.read_text(encoding="utf-8")) | {"output": "s3://bucket/out"}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    with served(JobsApi()) as api:
        _, output, errors = command("submit", "run.yaml", "--address", api.address, at=tmp_path)
        assert not holds((output + errors).encode())
        assert not any(holds(repr(request).encode()) for request in vars(api).values())
