"""What the parts of the soak share: a small run of all suites, started as a user starts it, and what must be the same.

Data: the radiographs beside the checkout (CHEXRAY_SHARED), else phantoms, drawn once.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

N_REAL, N_GENERATED = 48, 32
"""Images of each real set, and of each generator."""
GENERATORS = ("one", "other")
LONGEST_S = 900
"""After which a run on a busy machine is given up."""
NOT_STARTED = (
    "Ray did not start on this machine",
    "timed out during startup",
    "Timed out waiting for file",
    "did not start",
)
MOST_NOT_STARTED = 20
GONE_S = 10
"""Within which everything that a run started must be gone."""
BY_THE_CLOCK = ("created_at", "seconds", "images_per_s", "input_images_per_s")
NAMED_BY_DESIGN = ("run_id",)
MARK = "CHEXRAY_SOAK"
"""Variable by which the processes of a run are known, whoever their parent is."""


@dataclass(frozen=True)
class Field:
    """Tables of two real sets and of two generators, in a folder of their own. roots: where the images of each lie."""

    folder: Path
    roots: dict[str, str]

    @classmethod
    def made(cls, folder: Path) -> Field:
        """Writes the tables."""
        folder.mkdir(parents=True)
        radiographs = Path(os.environ.get("CHEXRAY_SHARED", "../shared")).resolve() / "data" / "cxr"
        there = radiographs.is_dir()
        print(f"data: {'radiographs' if there else 'phantoms, as there is no ../shared/data/cxr'}", end=", ")
        print(f"{N_REAL} real, {N_REAL} for training, 2 generators of {N_GENERATED}", flush=True)
        return cls(folder, _radiographs(folder, radiographs) if there else _phantoms(folder))

    def config(self, generator: str, output: Path) -> Path:
        """A config of one generator; returns its file."""
        sets = {
            name: {"path": str(self.folder / f"{name}.csv"), "image_root": self.roots[name]}
            for name in ("real", "training", generator)
        }
        data = {
            "suite": ["fidelity", "privacy", "utility"],
            "real": {"name": "real", **sets["real"]},
            "training": {"name": "training", **sets["training"]},
            "synthetic": [{"name": generator, **sets[generator]}],
            "encoders": [
                {"name": "pixels", "side": 8, "suites": ["fidelity"]},
                {"name": "patches", "suites": ["privacy"]},
            ],
            "metrics": ["fid", "kid", "prdc"],
            "privacy": {"planted": 8},
            "encode": {"chunk_size": 16, "actors": 1},
            "output": str(output),
            "ray": {"num_cpus": 1, "object_store_gb": 0.2},
            "utility": {
                "settings": ["real", "synthetic"],
                "model": {"name": "test_resnet", "weights": "none"},
                "image_size": 16,
                "seeds": 1,
                "epochs": 3,
                "batch_size": 16,
                "validation_fraction": 0.3,
                "resamples": 100,
                "figures": False,
            },
        }
        file = self.folder / f"{generator}-{output.name}.yaml"
        file.write_text(yaml.safe_dump(data))
        return file


def _radiographs(folder: Path, place: Path) -> dict[str, str]:
    for name, table in (("real", "real_test"), ("training", "real_train")):
        _write(folder / f"{name}.csv", _read(place / f"{table}.csv")[:N_REAL])
    rows = _read(place / "generations_with_metadata.csv")
    for number, name in enumerate(GENERATORS):
        _write(folder / f"{name}.csv", rows[number * N_GENERATED :][:N_GENERATED])
    roots = {"real": place, "training": place, **dict.fromkeys(GENERATORS, place / "synthetic_train")}
    return {str(name): str(root) for name, root in roots.items()}


def _phantoms(folder: Path) -> dict[str, str]:
    from chexray.data.sources.phantom import Phantom
    from chexray.storage import Storage

    drawn = {"real": ("real", N_REAL), "training": ("real", N_REAL)}
    drawn |= {"one": ("good", N_GENERATED), "other": ("poor", N_GENERATED)}
    for seed, (name, (generator, n)) in enumerate(drawn.items()):
        Phantom(n, generator, seed + 1, 128, str(folder / f"drawn-{name}")).read("real", Storage())
        _write(folder / f"{name}.csv", _read(folder / f"drawn-{name}" / "manifest.csv"))
    return {str(name): str(folder / f"drawn-{name}") for name in drawn}


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _write(path: Path, rows: Sequence[dict[str, str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


class Attempt:
    """One `chexray run` in a session of its own. Its output is kept for the report of a failure."""

    def __init__(self, config: Path, mark: str):
        self.log = config.with_suffix(f".{time.monotonic_ns()}.log")
        environment = {**os.environ, MARK: mark, "OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled"}
        environment.pop("RAY_ADDRESS", None)
        self.started = time.monotonic()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "chexray.cli", "run", str(config)],
                env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def ends(self) -> int:
        """Its exit code. One that takes LONGEST_S is killed."""
        try:
            return self.process.wait(LONGEST_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return -signal.SIGKILL

    def kill(self) -> None:
        """SIGKILL to the driver alone, as the kernel does when memory runs out."""
        self.process.kill()
        self.process.wait()

    @property
    def says(self) -> str:
        """The last lines of its output."""
        return self.log.read_text(errors="replace")[-1500:]

    @property
    def did_not_start(self) -> bool:
        """Whether Ray did not come up on a busy machine, which says nothing about two runs."""
        text = self.log.read_text(errors="replace")
        return any(
            known in text for known in ("timed out during startup", "Timed out waiting for file", "did not start")
        )


def left_behind(mark: str) -> list[int]:
    """Processes of runs with this mark that are still there after GONE_S; they are ended."""
    deadline = time.monotonic() + GONE_S
    while (found := [*_marked(mark)]) and time.monotonic() < deadline:
        time.sleep(0.5)
    for pid in found:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return found


def _marked(mark: str) -> Iterator[int]:
    wanted = f"{MARK}={mark}".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (entry / "environ").read_bytes().split(b"\0") and _lives(entry):
                yield int(entry.name)
        except OSError:
            continue


def _lives(entry: Path) -> bool:
    return (entry / "stat").read_text().rpartition(")")[2].split()[0] != "Z"


class Soak:
    """One part: its folder, which stays when something was wrong, its table, and the processes that it started."""

    def __init__(self, name: str):
        self.folder = Path(tempfile.mkdtemp(prefix=f"soak-{name}-"))
        self.mark = f"{name}-{os.getpid()}"
        self.held, self.not_started = True, 0

    def __enter__(self) -> Soak:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        left = left_behind(self.mark)
        print(f"processes left {GONE_S} s after the last: {len(left)}; runs that Ray did not start: {self.not_started}")
        if kind is None and self.held:
            shutil.rmtree(self.folder)
        else:
            print(f"kept: {self.folder}", flush=True)

    def row(self, *cells: object, wrong: bool) -> None:
        """One row of the table."""
        self.held &= not wrong
        print(f"| {' | '.join(str(cell).replace(chr(10), ' ') for cell in cells)} |", flush=True)

    def drop(self, output: Path) -> None:
        """Removes the output of a repetition that was right."""
        shutil.rmtree(output)

    def may_try_again(self) -> bool:
        """Counts a run that Ray did not start; True while there were few of them."""
        self.not_started += 1
        return self.not_started <= MOST_NOT_STARTED

    def completed(self, config: Path) -> float:
        """Runs to the end; seconds. Raises RuntimeError, with what it said, when that is not well."""
        while True:
            started, attempt = time.monotonic(), Attempt(config, self.mark)
            code = attempt.ends()
            if not code:
                return time.monotonic() - started
            if not (attempt.did_not_start and self.may_try_again()):
                self.held = False
                raise RuntimeError(f"{config} ended with {code}: {attempt.says}")


def the_run(output: Path, generator: str) -> Path:
    """The folder of the only run of a generator below an output."""
    (found,) = (path for path in output.glob("run-*") if f"name: {generator}\n" in (path / "config.yaml").read_text())
    return found


def differences(run: Path, alone: Path) -> list[str]:
    """What a run left that differs from what it left alone, but for times, rates and names; [] when nothing does."""
    found = []
    names = {path.name for path in alone.glob("*.parquet")}
    if names != (others := {path.name for path in run.glob("*.parquet")}):
        found.append(f"tables {sorted(names ^ others)}")
    for name in sorted(names & others):
        tables = [_table(folder / name) for folder in (run, alone)]
        if not tables[0].equals(tables[1]):
            columns = [c for c in tables[1] if c not in tables[0] or not tables[0][c].equals(tables[1][c])]
            found.append(f"{name}: {columns or 'rows'}")
    if (run / "errors.log").exists():
        found.append("errors.log is there")
    state = json.loads((run / "status.json").read_text())["state"]
    return found + ([] if state == "done" else [f"status.json says {state}"])


def _table(path: Path) -> pd.DataFrame:
    frame = pd.read_parquet(path)
    return frame.drop(columns=[*BY_THE_CLOCK, *NAMED_BY_DESIGN], errors="ignore")


def store_differences(output: Path, alone: Sequence[Path], *, killed: bool = False) -> list[str]:
    """What lies in the feature store of an output and differs from the stores of the runs alone; leftovers too."""
    found, store = [], output / "features"
    expected: dict[str, Any] = {}
    for one in alone:
        expected |= _stored(one / "features")
    mine = _stored(store)
    found += [f"missing {name}" for name in sorted(expected.keys() - mine.keys())[:3]]
    found += [f"unexpected {name}" for name in sorted(mine.keys() - expected.keys())[:3]]
    found += [
        f"other {name}" for name in sorted(mine.keys() & expected.keys()) if not _same(mine[name], expected[name])
    ]
    leftovers = [path.name for pattern in ("*.pt", "failed-*", "stopped-*") for path in store.rglob(pattern)]
    leftovers += [] if killed else [path.name for path in output.rglob("*.tmp")]  # a killed writer leaves its own
    return found + [f"left over: {name}" for name in leftovers]


def _stored(store: Path) -> dict[str, Any]:
    """{name: value} of features by image, final weights, predictions, blocks and what was searched."""
    found: dict[str, Any] = {}
    for part in store.glob("*/part-*.parquet"):
        frame = pd.read_parquet(part)
        for row in frame.to_dict("records"):
            key = row.pop("image_key")
            found |= {f"{part.parent.name}/{name} of {key}": value for name, value in row.items()}
    for path in store.rglob("fits/*/model.safetensors"):
        found[f"fits/{path.parent.name}"] = path.read_bytes()
    for pattern in ("fits/*/predictions-*.parquet", "blocks/**/*.parquet", "search/*/*.parquet"):
        found |= {str(path.relative_to(store)): pq.read_table(path) for path in store.glob(pattern)}
    return found


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, pa.Table):
        return first.equals(second)
    return first == second if isinstance(first, bytes) else np.array_equal(first, second)
