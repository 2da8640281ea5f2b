"""What Ray costs beside a plain loop over the same chunks: CPU-seconds an image, once everything is warm.

Three ways through the same images: chexray's encode stage on Ray; one plain process with as many threads as that uses
in all; and that many plain processes of one thread, which share the machine as Ray's actors do. Steady state is what
follows the first chunk of each process; what came before is start-up and stated apart. Ray is charged with all its
processes: workers between their chunks, raylet, GCS, agents and the driver.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .accounting import Measured, measure, measure_together
from .inputs import write_networks, write_sets
from .tables import Report, median, spread, table, verdict

TARGET = 0.05


@dataclass(frozen=True)
class Size:
    """n images in all, cut into chunks, encoded `repeats` times each way."""

    n: int
    repeats: int
    chunk: int = 32
    image: int = 512


SIZES = {"tiny": Size(64, 1, 8, 64), "quick": Size(192, 1), "default": Size(320, 2), "full": Size(640, 5)}


@dataclass(frozen=True)
class Steady:
    """CPU-seconds an image in steady state, Ray's own part of them (also by role), and start-up (CPU and wall)."""

    cpu: float
    own: float
    shares: dict[str, float]
    startup_cpu: float
    startup_wall: float


def run(size_name: str = "default") -> Report:
    size = SIZES[size_name]
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="cxb-") as scratch:
        folder = Path(scratch)
        inputs = write_sets(folder / "images", size.n // 2, size.image)
        weights = write_networks(folder / "weights", {"num_hidden_layers": 1, "image_size": 56})
        paths = [str(path) for side in ("real", "synthetic") for path in sorted((folder / "images" / side).iterdir())]
        job = {**inputs, **weights, "paths": paths, "chunk": size.chunk, "cpus": cores}
        on_ray: list[Steady] = []
        one: list[float] = []
        many: list[float] = []
        for repeat in range(size.repeats):
            output = {"output": str(folder / f"ray-{repeat}")}
            on_ray.append(_steady_of_ray(measure("bench.ray_loop", {**job, **output})))
            one.append(_plain([{**job, "threads": cores}]))
            shares = [{**job, "paths": _share(paths, size.chunk, i, cores), "threads": 1} for i in range(cores)]
            many.append(_plain(shares))
    return _report(size, cores, on_ray, one, many)


def _share(paths: list[str], chunk: int, index: int, of: int) -> list[str]:
    """Every of-th chunk."""
    chunks = [paths[start : start + chunk] for start in range(0, len(paths), chunk)]
    return [path for part in chunks[index::of] for path in part]


def _plain(jobs: list[dict[str, Any]]) -> float:
    """CPU-seconds an image after the first chunk of each process."""
    found = measure_together([("bench.plain_loop", job) for job in jobs])
    return sum(run.result["cpu_s"] for run in found) / sum(run.result["n"] for run in found)


def _steady_of_ray(run: Measured) -> Steady:
    rows, encoded_at = run.result["rows"], run.marks["encoded"]
    first: dict[int, float] = {}
    n = workers = inside = 0.0
    for row in rows:
        if row["pid"] in first:
            n += row["n_done"]
            inside += row["cpu_s"]
        else:
            first[row["pid"]] = row["at"]
    for pid, since in first.items():
        workers += run.between(since, encoded_at, lambda process, pid=pid: process.pid == pid)
    warm = max(first.values())
    n_window = sum(row["n_done"] for row in rows if row["at"] > warm)
    shares = {
        role: run.between(
            warm, encoded_at, lambda process, role=role: process.role == role and process.pid not in first
        )
        / n_window
        for role in run.roles()
    }
    shares["worker"] = shares.get("worker", 0.0) + max(workers - inside, 0.0) / n
    own = sum(shares.values())
    return Steady(inside / n + own, own, shares, run.at(warm), warm - run.start)


def _report(size: Size, cores: int, on_ray: list[Steady], one: list[float], many: list[float]) -> Report:
    cpu = [steady.cpu for steady in on_ray]
    against_one = [a / b - 1 for a, b in zip(cpu, one, strict=True)]
    against_many = [a / b - 1 for a, b in zip(cpu, many, strict=True)]
    own = [steady.own / (steady.cpu - steady.own) for steady in on_ray]
    rows = [
        ["chexray on Ray", spread([1e3 * value for value in cpu], ".1f")],
        [f"plain loop, 1 process x {cores} threads", spread([1e3 * value for value in one], ".1f")],
        [f"plain loop, {cores} processes x 1 thread", spread([1e3 * value for value in many], ".1f")],
        ["Ray's own share of it, outside the encoding", spread([1e3 * steady.own for steady in on_ray], ".2f")],
    ]
    summary = []
    for name, values in (
        (f"Ray over a plain loop, 1 process x {cores} threads", against_one),
        (f"Ray over a plain loop, {cores} processes x 1 thread", against_many),
        ("Ray's own processes and calls over the encoding", own),
    ):
        met = verdict(median(values) <= TARGET)
        summary.append([name, spread([100 * value for value in values], ".1f") + " %", f"<= {100 * TARGET:g} %", met])
    last = ", ".join(f"{role} {1e3 * share:.2f}" for role, share in on_ray[-1].shares.items())
    startup = (
        f"Start-up of Ray with imports, weights and the first chunk of each worker, not in the above: "
        f"{spread([steady.startup_cpu for steady in on_ray], '.1f')} CPU-s, "
        f"{spread([steady.startup_wall for steady in on_ray], '.1f')} s wall"
    )
    text = "\n".join(
        [
            f"inception_v3, {size.n} images of {size.image} px in chunks of {size.chunk}, {size.repeats} repeat(s), "
            "in turns; median (min to max)",
            "",
            table(["steady state", "CPU-ms an image"], rows),
            "",
            f"Ray's own share by process, of the last repeat: {last} CPU-ms an image",
            "",
            startup,
        ]
    )
    return Report(text, summary)
