"""CPU-seconds of everything a command starts, wherever it ends up in the process tree.

Ray's workers are children of its raylet, which neither waits for them nor dies with the driver, so `getrusage` of the
children misses most of what Ray costs. Instead the command is started with a marker in its environment, which every
descendant inherits, and all processes that carry it are read from /proc ten times a second, from outside.
What a process uses in the last tenth of a second before it ends, and processes shorter than that, are missed.
"""

from __future__ import annotations

import bisect
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MARKER, MARKS = "CHEXRAY_BENCH_RUN", "CHEXRAY_BENCH_MARKS"
SAMPLE_EVERY_S = 0.1
ROOT = Path(__file__).resolve().parents[2]
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_SETTLED = 20
"""Looks at a process before it is a stranger: between fork and exec it still has its parent's environment."""


def mark(name: str) -> None:
    """Called by a measured command: this moment gets a name."""
    if MARKS in os.environ:
        with open(os.environ[MARKS], "a", encoding="utf-8") as file:
            file.write(f"{time.monotonic()} {name}\n")


@dataclass(frozen=True)
class Process:
    pid: int
    role: str


@dataclass
class Measured:
    """A finished command. samples: (monotonic time, {process: CPU-seconds so far}), ascending; marks: {name: time}."""

    result: Any
    wall_s: float
    samples: list[tuple[float, dict[Process, float]]]
    marks: dict[str, float]

    @property
    def start(self) -> float:
        return self.marks["start"]

    @property
    def end(self) -> float:
        return self.marks["end"]

    def at(self, moment: float, wanted: Callable[[Process], bool] = lambda process: True) -> float:
        """CPU-seconds of the wanted processes up to a moment, interpolated between samples."""
        times = [when for when, _ in self.samples]
        after = min(bisect.bisect_left(times, moment), len(times) - 1)
        before = max(after - 1, 0)
        low, high = (
            sum(cpu for process, cpu in self.samples[i][1].items() if wanted(process)) for i in (before, after)
        )
        span = times[after] - times[before]
        share = min(max((moment - times[before]) / span, 0.0), 1.0) if span else 1.0
        return low + share * (high - low)

    def between(self, start: float, end: float, wanted: Callable[[Process], bool] = lambda process: True) -> float:
        return self.at(end, wanted) - self.at(start, wanted)

    def total(self) -> float:
        return self.at(self.end)

    def roles(self) -> dict[str, float]:
        """CPU-seconds by role, the largest first."""
        found: dict[str, float] = {}
        for process, cpu in self.samples[-1][1].items():
            found[process.role] = found.get(process.role, 0.0) + cpu
        return dict(sorted(found.items(), key=lambda item: -item[1]))


class Tree(threading.Thread):
    """Samples the processes that carry one marker until it is told to stop."""

    def __init__(self, marker: str):
        super().__init__(daemon=True)
        self.token = f"{MARKER}={marker}".encode()
        self.main = 0
        self.samples: list[tuple[float, dict[Process, float]]] = []
        self._ours: dict[tuple[int, str], Process] = {}
        self._looks: dict[tuple[int, str], int] = {}
        self._cpu: dict[Process, float] = {}
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(SAMPLE_EVERY_S):
            self.sample()

    def finish(self) -> None:
        self._ended.set()
        self.join()
        self.sample()

    def sample(self) -> None:
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    self._look(int(entry))
                except (OSError, ValueError):
                    continue  # it ended while it was looked at
        self.samples.append((time.monotonic(), dict(self._cpu)))

    def _look(self, pid: int) -> None:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        key = (pid, stat[19])
        if key not in self._ours:
            if self._looks.get(key, 0) >= _SETTLED:
                return
            self._looks[key] = self._looks.get(key, 0) + 1
            if self.token not in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                return
            self._ours[key] = Process(pid, "")
        process = self._ours[key]
        if process.role != (role := self._role(pid) or process.role):
            self._ours[key] = Process(pid, role)
            self._cpu.pop(process, None)
            process = self._ours[key]
        self._cpu[process] = (int(stat[11]) + int(stat[12])) * _TICK_S

    def _role(self, pid: int) -> str:
        if pid == self.main:
            return "driver"
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        # The raylet's own arguments name everything it may start, so only what a process is itself is looked at.
        itself = " ".join(words[:3])
        for sign, role in _ROLES:
            if sign in itself:
                return role
        return "other" if words[0] else ""


_ROLES = (
    ("gcs_server", "gcs"),
    ("raylet/raylet", "raylet"),
    ("ray::", "worker"),
    ("default_worker.py", "worker"),
    ("/ray/", "other of Ray"),
)


def measure(module: str, job: dict[str, Any], *, threads: int | None = None) -> Measured:
    """Runs `python -m MODULE JOB.json RESULT.json` and accounts for it. Raises RuntimeError with its last lines."""
    return measure_together([(module, job)], threads=threads)[0]


def measure_together(jobs: list[tuple[str, dict[str, Any]]], *, threads: int | None = None) -> list[Measured]:
    """As `measure`, for commands that run at the same time."""
    print(f"... {', '.join(module for module, _ in jobs)}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="cxb-") as folder:
        running = [_start(module, job, Path(folder) / str(i), threads) for i, (module, job) in enumerate(jobs)]
        return [_finish(*each) for each in running]


def _start(module: str, job: dict[str, Any], folder: Path, threads: int | None):
    folder.mkdir()
    (folder / "job.json").write_text(json.dumps(job))
    marker = uuid.uuid4().hex
    path = os.pathsep.join([str(ROOT / "tests"), str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    environment = {**os.environ, MARKER: marker, MARKS: str(folder / "marks"), "PYTHONPATH": path}
    environment |= {"HF_HUB_OFFLINE": "1", "RAY_AUTH_MODE": "disabled"}
    if threads:
        environment |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    environment.pop("RAY_ADDRESS", None)
    tree = Tree(marker)
    start = time.monotonic()
    with open(folder / "log", "wb") as log:
        command = [sys.executable, "-m", module, str(folder / "job.json"), str(folder / "result.json")]
        process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
    tree.main = process.pid
    tree.start()
    return process, tree, folder, start


def _finish(process: subprocess.Popen[bytes], tree: Tree, folder: Path, start: float) -> Measured:
    code = process.wait()
    end = time.monotonic()
    tree.finish()
    if code:
        tail = (folder / "log").read_text(errors="replace")[-3000:]
        raise RuntimeError(f"a measured command ended with exit code {code}:\n{tail}")
    marks = {"start": start, "end": end}
    if (folder / "marks").exists():
        for line in (folder / "marks").read_text().splitlines():
            when, _, name = line.partition(" ")
            marks[name] = float(when)
    result = json.loads((folder / "result.json").read_text())
    return Measured(result, end - start, tree.samples, marks)


def serve(main: Callable[[dict[str, Any]], Any]) -> None:
    """The life of a measured command: reads its job, does it, writes what it returns."""
    job, result = sys.argv[1:3]
    Path(result).write_text(json.dumps(main(json.loads(Path(job).read_text()))))
