"""The parent of the workers: gives out inputs, kills what hangs or grows, and runs some through the command line."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fuzz.judge import line_faults, listing
from fuzz.sandbox import Sandbox
from fuzz.values import CANARY_MARKS
from fuzz.worker import memory

HANG_S = 20.0
"""CPU seconds of one input; on a busy machine the clock may show WALL_FACTOR times as many."""
WALL_FACTOR = 4
READY_S = 300.0
LIMIT_BYTES, KILL_BYTES = 2 << 30, 3 << 30
REST_BYTES, REST_INPUTS = 1100 << 20, 1500
"""A worker that keeps more, or has met more inputs, is replaced."""


@dataclass
class Met:
    """What became of one input."""

    kind: str
    number: int
    how: str = ""
    outcome: str = "failed"
    faults: list[list[str]] = field(default_factory=list)
    message: str = ""
    seconds: float = 0.0
    peak: int = 0
    command: list[str] | None = None


class Worker:
    """One process, until it is closed or killed."""

    def __init__(self, seed: int, sandbox: Sandbox):
        self.sandbox, self.n_met = sandbox, 0
        self._answers, theirs = os.pipe()
        command = [sys.executable, "-m", "fuzz.worker", str(seed), str(sandbox.root), str(theirs)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, env=sandbox.environment, pass_fds=[theirs], cwd=sandbox.root / "cwd"
        )
        os.close(theirs)
        self._text = b""
        if self._answer(READY_S, READY_S)[0] is None:
            self.close()
            noise = (sandbox.root / "inputs" / "noise.txt").read_text(errors="replace")[-3000:]
            raise RuntimeError(f"the worker did not start: {noise}")

    def meet(self, kind: str, number: int, how: str = "act") -> Met:
        """One input; how: "act", or "make" to write its files only."""
        met = Met(kind, number)
        assert self.process.stdin is not None
        self.process.stdin.write(f"{kind} {number} {how}\n".encode())
        self.process.stdin.flush()
        begun, why, _, _ = self._answer(READY_S, READY_S)
        if begun is None:
            raise RuntimeError(f"{kind} {number} cannot be made ({why}): {self._noise()}")
        met.how, met.command = begun["how"], begun["command"]
        if how == "make":
            return met
        found, why, met.seconds, met.peak = self._answer(HANG_S, HANG_S * WALL_FACTOR)
        if found is None:
            fault = {"time": "hang", "memory": "memory"}.get(why, "traceback")
            met.faults = [
                [fault, f"{met.how}: {why if fault != 'traceback' else 'the process died: ' + self._noise()}"]
            ]
            return met
        met.outcome, met.faults, met.message = found["outcome"], found["faults"], found["message"]
        met.peak = max(met.peak, found["peak"])
        if met.peak > LIMIT_BYTES:
            met.faults.append(["memory", f"{met.peak / 2**30:.1f} GB: {met.how}"])
            met.outcome = "failed"
        self.n_met += 1
        if found["rest"] > REST_BYTES or self.n_met >= REST_INPUTS:
            self.close()
        return met

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def close(self) -> None:
        self.process.kill()
        self.process.wait()

    def _noise(self) -> str:
        return (self.sandbox.root / "inputs" / "noise.txt").read_text(errors="replace")[-300:]

    def _answer(self, cpu_s: float, wall_s: float) -> tuple[dict[str, Any] | None, str, float, int]:
        """(the next line or None, why there is none, seconds, peak bytes). A worker without an answer is killed."""
        start, start_cpu, peak, why = time.monotonic(), cpu_of(self.process.pid), 0, ""
        while not why:
            if b"\n" in self._text:
                line, _, self._text = self._text.partition(b"\n")
                return json.loads(line), "", time.monotonic() - start, peak
            if select.select([self._answers], [], [], 0.1)[0]:
                data = os.read(self._answers, 1 << 16)
                self._text += data
                why = "" if data else "gone"
                continue
            peak = max(peak, memory("VmRSS", self.process.pid))
            wall = time.monotonic() - start
            if cpu_of(self.process.pid) - start_cpu > cpu_s or wall > wall_s:
                why = "time"
            if peak > KILL_BYTES:
                why = "memory"
        self.close()
        return None, why, time.monotonic() - start, peak


def cpu_of(pid: int) -> float:
    """CPU seconds of a process so far; 0 when it is gone."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            words = file.read().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def sandbox_of_run() -> Iterator[Sandbox]:
    with tempfile.TemporaryDirectory(prefix="chexray-fuzz-", ignore_cleanup_errors=True) as folder:
        yield Sandbox.make(Path(folder))


def through_command_line(made: Met, sandbox: Sandbox) -> Met:
    """The same input, whose files are there, by `chexray ...` as a process of its own."""
    assert made.command is not None
    met = Met("command line", made.number, f"{made.kind}: {made.how}")
    before = listing(sandbox.watched)
    start = time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "chexray.cli", *made.command], stdin=subprocess.DEVNULL, stdout=out, stderr=err,
            env=sandbox.environment, cwd=sandbox.root / "cwd",
        )  # fmt: skip
        while process.poll() is None and cpu_of(process.pid) < HANG_S and time.monotonic() - start < 4 * HANG_S:
            met.peak = max(met.peak, memory("VmHWM", process.pid))
            time.sleep(0.02)
        if process.returncode is None:
            process.kill()
            process.wait()
            met.faults.append(["hang", " ".join(made.command)[:200]])
        out.seek(0)
        err.seek(0)
        streams = out.read().decode("utf-8", "replace"), err.read().decode("utf-8", "replace")
    met.seconds = time.monotonic() - start
    met.faults += _stream_faults(process.returncode, *streams) if not met.faults else []
    if met.peak > LIMIT_BYTES:
        met.faults.append(["memory", f"{met.peak / 2**30:.1f} GB: {met.how}"])
    if Path(sandbox.environment["FUZZ_MARKER"]).exists():
        met.faults.append(["code run", met.how])
    changed = sorted(path for path, state in listing(sandbox.watched).items() if before.get(path) != state)
    met.faults += [["outside", ", ".join(changed[:5])]] if changed else []
    met.outcome = "failed" if met.faults else "ok" if process.returncode == 0 else "refused"
    met.message = streams[1][:1500]
    return met


def _stream_faults(code: int | None, out: str, err: str) -> list[list[str]]:
    faults = []
    if code not in (0, 1, 2):
        faults.append(["traceback", f"exit code {code}: {err[-200:]!a}"])
    if "Traceback (most" in out + err:
        faults.append(["traceback", ascii(err.strip().splitlines()[-1][:200] if err.strip() else "on standard output")])
        return faults
    lines = err.splitlines()
    if code in (1, 2) and (len(lines) != 1 or not lines[0].startswith("chexray: ")):
        faults.append(["noise", f"{len(lines)} lines on standard error: {err[:200]!a}"])
    faults += [["message", what] for line in err.split("\n") for what in line_faults(line, strict=bool(line))][:1]
    faults += [["message", what] for line in out.split("\n") for what in line_faults(line, strict=False)][:1]
    if any(mark in out + err for mark in CANARY_MARKS):
        faults.append(["canary", ascii(err[:200])])
    return faults
