"""SynthCheX-75K's size on this machine: time, CPU and memory of whole runs of 5,000 to 75,649 images.

`python -m bench.scale [--n 5000 20000 75649] [--kill]`, or `make bench` with the part `scale`. Each run is a process
with a feature store of its own, which holds the features of 237,388 training images and nothing of the synthetic ones.
--kill: each run is ended by SIGKILL at a random moment, and run again to its end.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from .accounting import MARKER, ROOT, Process, Tree
from .scale_inputs import N_TRAINING, config_of, make
from .tables import Report, table, verdict

FOLDER = ROOT / "build" / "scale"
SIZES = {
    "tiny": ([600], 3_000),
    "quick": ([2_000], 10_000),
    "default": ([5_000, 20_000], N_TRAINING),
    "full": ([5_000, 20_000, 75_649], N_TRAINING),
}
MEMORY_TARGET_GB = 2.0
LINEAR = 1.25
"""Seconds of encoding and reducing an image at the largest size, over those at the smallest: what counts as linear."""

STAGES = ("ray", "encode", "fidelity", "privacy")


class _Remembering(Tree):
    """Also keeps the largest memory of each process: all of it, and what is its own (no file, no shared object)."""

    def __init__(self, marker: str):
        super().__init__(marker)
        self.peak: dict[Process, tuple[float, float]] = {}

    def sample(self) -> None:
        super().sample()
        for process in list(self._ours.values()):
            try:
                status = Path(f"/proc/{process.pid}/status").read_text()
            except OSError:
                continue
            found = dict(line.split(":", 1) for line in status.splitlines() if line.startswith(("VmRSS", "RssAnon")))
            now = tuple(int(found.get(name, "0").split()[0]) * 1024 for name in ("VmRSS", "RssAnon"))
            before = self.peak.get(process, (0, 0))
            self.peak[process] = (max(before[0], now[0]), max(before[1], now[1]))

    def largest(self, role: str) -> tuple[float, float]:
        """GB of the largest process of a role: in all, and its own."""
        found = [sizes for process, sizes in self.peak.items() if process.role == role] or [(0, 0)]
        return max(each[0] for each in found) / 1e9, max(each[1] for each in found) / 1e9


@dataclass
class Run:
    """One size, to its end. killed_at: seconds after the start of the first try, 0 where it was not killed."""

    n: int
    wall_s: float
    cpu: dict[str, float]
    driver_gb: tuple[float, float]
    worker_gb: tuple[float, float]
    seconds: dict[str, float]
    problems: list[str] = field(default_factory=list)
    killed_at: float = 0.0
    off: dict[str, float] = field(default_factory=dict)

    @property
    def cpu_s(self) -> float:
        return sum(self.cpu.values())

    @property
    def work_s(self) -> float:
        """Seconds from the first image to the last number."""
        return sum(self.seconds.get(name, 0.0) for name in ("encode", "fidelity", "privacy"))


def measure_run(folder: Path, n: int, *, kill: bool) -> Run:
    """A run of n images, from an empty run folder."""
    place = folder / f"run-{n}"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    subprocess.run(["cp", "-al", str(folder / "features"), str(place / "store")], check=True)
    config = place / "config.json.yaml"
    config.write_text(json.dumps(config_of(folder, n, place / "out", place / "store")))  # JSON is YAML
    killed_at = 0.0
    if kill:
        killed_at = random.uniform(20, 20 + n / 60)
        _run(config, place, end_after_s=killed_at)
    tree, wall, code, lines = _run(config, place)
    run = Run(n, wall, {}, tree.largest("driver"), tree.largest("worker"), {}, killed_at=killed_at)
    run.off = worst_estimate(lines)
    for process, cpu in tree.samples[-1][1].items():
        run.cpu[process.role] = run.cpu.get(process.role, 0.0) + cpu
    found = list(place.glob("out/scale-*/run.json"))
    if code or not found:
        run.problems.append(f"exit code {code}: {' / '.join(text for _, text in lines[-5:])[-600:]}")
        return run
    run.seconds = json.loads(found[0].read_text())["seconds"]
    run.problems += _lost(found[0].parent, n)
    return run


def _run(
    config: Path, place: Path, end_after_s: float = 0.0
) -> tuple[_Remembering, float, int, list[tuple[float, str]]]:
    marker = uuid.uuid4().hex
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment |= {MARKER: marker, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    tree, started, lines = _Remembering(marker), time.monotonic(), []
    command = [sys.executable, "-m", "chexray", "run", str(config)]
    process = subprocess.Popen(
        command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )

    def listen() -> None:
        assert process.stdout is not None
        with (place / "log").open("w") as log:
            for text in process.stdout:
                lines.append((time.monotonic() - started, text.rstrip()))
                log.write(f"{lines[-1][0]:.1f} {text}")
                log.flush()

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    tree.main = process.pid
    tree.start()
    try:
        process.wait(end_after_s or None)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        print(f"... killed after {end_after_s:.0f} s", file=sys.stderr, flush=True)
    wall = time.monotonic() - started
    tree.finish()
    listener.join(5)
    return tree, wall, process.returncode, lines


def _lost(folder: Path, n: int) -> list[str]:
    """What is wrong with the tables of a run: each of n images has a verdict once, and a row in each space."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    rejects, verdicts = (pq.read_table(folder / f"{name}.parquet") for name in ("rejects", "verdicts"))
    copies, images = (pq.read_table(folder / f"{name}.parquet") for name in ("copies", "per_image"))
    told = []
    if len(rejects):
        told.append(f"{len(rejects)} images rejected, first {rejects['detail'][0]}")
    for name, found, each in (("verdicts", verdicts, 1), ("copies", copies, 2), ("per_image", images, 2)):
        distinct = pc.call_function("count_distinct", [found["sample_id"]]).as_py()
        if len(found) != each * n or distinct != n:
            told.append(f"{name}: {len(found)} rows of {distinct} images, expected {each * n} of {n}")
    return told


LINE = re.compile(r"(\w+): ([\d,]+)/([\d,]+) \w+(?:.*?, ((?:\d+ (?:h|min|s) ?)+)left)?")
IN_SECONDS = {"h": 3600, "min": 60, "s": 1}


def worst_estimate(lines: list[tuple[float, str]]) -> dict[str, float]:
    """{stage: by which share the time left, as it was said, was off at worst}, from the first tenth of a stage until
    20 seconds before its end. lines: (seconds, text) of what the run printed."""
    found: dict[str, float] = {}
    open_stages: dict[str, list[tuple[float, float]]] = {}
    for moment, text in lines:
        if not (told := LINE.fullmatch(text.partition(" rejected")[0].strip())) and not (told := LINE.match(text)):
            continue
        stage, done, total, left = told.groups()
        n, of = (int(each.replace(",", "")) for each in (done, total))
        seen = open_stages.setdefault(stage, [])
        if left and n >= of / 10:
            words = left.split()
            seen.append(
                (moment, sum(int(x) * IN_SECONDS[unit] for x, unit in zip(words[::2], words[1::2], strict=True)))
            )
        if n >= of:
            for then, said in open_stages.pop(stage):
                if moment - then > 20:
                    found[stage] = max(found.get(stage, 0.0), abs(said - (moment - then)) / (moment - then))
    return found


def report(runs: list[Run]) -> Report:
    header = ["images", "wall s", *(f"{name} s" for name in STAGES), "CPU-s", "driver", "workers"]
    header += ["driver GB (own)", "worker GB (own)", "ms an image"]
    rows, agrees = [], True
    for run in runs:
        agrees &= not run.problems
        rows.append(
            [
                f"{run.n:,}", f"{run.wall_s:.0f}", *(f"{run.seconds.get(name, 0):.0f}" for name in STAGES),
                f"{run.cpu_s:.0f}", f"{run.cpu.get('driver', 0):.0f}", f"{run.cpu.get('worker', 0):.0f}",
                "{:.2f} ({:.2f})".format(*run.driver_gb), "{:.2f} ({:.2f})".format(*run.worker_gb),
                f"{1e3 * run.work_s / run.n:.1f}",
            ]
        )  # fmt: skip
    lines = [table(header, rows)]
    lines += [f"killed after {run.killed_at:.0f} s and run again: {run.n:,} images" for run in runs if run.killed_at]
    lines += [
        f"time left, at worst off by, {run.n:,} images: "
        + ", ".join(f"{stage} {100 * off:.0f} %" for stage, off in run.off.items())
        for run in runs
        if run.off
    ]
    lines += [f"WRONG at {run.n:,}: {problem}" for run in runs for problem in run.problems]
    largest = max(max(run.driver_gb[0], run.worker_gb[0]) for run in runs)
    targets = [["memory of a process at scale, GB", f"{largest:.2f}", f"< {MEMORY_TARGET_GB:g}",
                verdict(largest < MEMORY_TARGET_GB)]]  # fmt: skip
    if len(runs) > 1:
        first, last = runs[0], runs[-1]
        ratio = (last.work_s / last.n) / max(first.work_s / first.n, 1e-9)
        targets.append(
            [f"seconds an image, {last.n:,} over {first.n:,}", f"{ratio:.2f}", f"< {LINEAR:g}", verdict(ratio < LINEAR)]
        )
    return Report("\n".join(lines), targets, agrees)


def run(size_name: str = "default", sizes: list[int] | None = None, *, kill: bool = False) -> Report:
    asked, n_training = SIZES[size_name]
    sizes = sizes or asked
    folder = FOLDER if n_training == N_TRAINING else FOLDER / f"training-{n_training}"
    make(folder, sizes, n_training=n_training)
    runs = []
    for n in sizes:
        runs.append(measure_run(folder, n, kill=kill))
        print(report(runs).text, file=sys.stderr, flush=True)
        shutil.rmtree(folder / f"run-{n}", ignore_errors=True)
    return report(runs)


def main() -> int:
    global FOLDER
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    parser.add_argument("--n", type=int, nargs="+", help="numbers of images; default 5000 20000 75649")
    parser.add_argument("--kill", action="store_true", help="end each run once at a random moment, and resume it")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where inputs are made and kept")
    options = parser.parse_args()
    FOLDER = options.folder.resolve()
    found = run("full", options.n, kill=options.kill)
    print(f"{found.text}\n\n{table(['measure', 'measured', 'target', ''], found.rows)}")
    return 0 if found.agrees else 1


if __name__ == "__main__":
    sys.exit(main())
