"""The upstream-shaped path against one run of chexray: what they cost, and which of them is right."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .accounting import Measured, Process, measure, measure_together
from .agreement import agreement_table, check
from .inputs import write_networks, write_sets
from .tables import Report, median, spread, table, verdict

OVERALL_TARGET, CONDITIONAL_TARGET = 3.0, 8.0
EASY_COLUMNS = 256
"""Up to so many columns torchmetrics' FID takes less than a second."""


@dataclass(frozen=True)
class Size:
    """n images a side of `image` pixels; `vit`, the architecture of the RAD-DINO that is measured with."""

    n: int
    vit: dict[str, int]
    image: int = 384
    shards: int = 4
    repeats: int = 1


SIZES = {
    "tiny": Size(20, {"hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 3, "image_size": 56}, 96, 2),
    "quick": Size(48, {"image_size": 112, "num_hidden_layers": 6}),
    "default": Size(48, {"image_size": 154}),
    "full": Size(16, {"image_size": 518}, shards=2),
}


@dataclass(frozen=True)
class Cost:
    """CPU-seconds of one command by stage, and its wall seconds."""

    total: float
    startup: float
    encode: float
    metrics: float
    wall: float

    @property
    def steady(self) -> float:
        """What is left once imports, loading and Ray's start are taken off."""
        return self.total - self.startup


def run(size_name: str = "default", *, timing: bool = True) -> Report:
    """Costs and agreement. With `timing` off only the overall values of chexray are compared: the upstream-shaped path
    then makes features alone, unsharded, and torchmetrics' FID of 2,048 columns (20 s of a core) is left out."""
    size = SIZES[size_name]
    lines: list[str] = []
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory(prefix="cxb-") as scratch:
        folder = Path(scratch)
        inputs = write_sets(folder / "images", size.n, size.image) | write_networks(folder / "weights", size.vit)
        cores = len(os.sched_getaffinity(0))
        n_shards = size.shards if timing else 1
        judged = "with findings" if timing else "overall"
        job = {**inputs, "cpus": cores, "n_shards": n_shards, "conditional": timing, "values": timing}
        upstream: list[Upstream] = []
        ours: dict[str, list[Measured]] = {}
        loading = measure("bench.loading", job).result["cpu_s"] if timing else 0.0
        for repeat in range(size.repeats):
            for name, more in _RUNS.items():
                if timing or name == judged:
                    output = str(folder / f"out-{repeat}-{name.replace(' ', '-')}")
                    ours.setdefault(name, []).append(measure("bench.chexray_path", {**job, **more, "output": output}))
            upstream.append(run_upstream(job, cores, folder))
        found = upstream[0]
        columns = None if timing else EASY_COLUMNS
        verdicts = check(ours[judged][0].result, found.overall, found.findings, found.features, columns)
        if timing:
            costs = _report(size, ours, upstream, loading)
            lines += [costs.text, ""]
            rows += costs.rows
        lines += ["Agreement: overall values against the unsharded computation by other libraries", ""]
        lines += [agreement_table(verdicts)]
    n_agree = sum(line.agrees for line in verdicts)
    agrees = n_agree == len(verdicts)
    rows.append(["values that agree with other libraries", f"{n_agree} of {len(verdicts)}", "all", verdict(agrees)])
    return Report("\n".join(lines), rows, agrees)


_RUNS: dict[str, dict[str, Any]] = {
    "overall": {"subsets": ["all"], "floor": False},
    "with findings": {"subsets": ["all", "findings"], "floor": False},
    "with findings and floors": {"subsets": ["all", "findings"], "floor": True},
}


def cost_of_chexray(run: Measured, loading: float) -> Cost:
    """Start-up: all until Ray is there, what workers use outside the chunks they are given, and loading in each.

    loading: CPU-seconds a worker needs for torch, networks and weights, in its first chunk; measured apart.
    """
    spans = run.result["seconds"]
    done = run.marks["done"]
    encoded_at = done - spans["done"] - spans["fidelity"]
    ray_at = encoded_at - spans["encode"] - spans["precision"]

    def worker(process: Process) -> bool:
        return process.role == "worker"

    imports = max(run.between(ray_at, encoded_at, worker) - run.result["encode_cpu_s"], 0.0)
    loaded = loading * run.result["pool"]["actors"]
    startup = run.at(ray_at) + imports + loaded
    encode = run.between(ray_at, encoded_at) - imports - loaded
    return Cost(run.total(), startup, encode, run.total() - startup - encode, run.wall_s)


@dataclass(frozen=True)
class Upstream:
    """The upstream-shaped path, run by one process a core: its values, its features of all images, and each process."""

    parts: list[dict[str, Any]]
    overall: dict[str, float]
    findings: dict[str, dict[str, float]]
    features: dict[str, np.ndarray]

    def passes(self, which: str, network: str) -> float:
        """Passes of a network an image: `which` is "passes" (overall) or "all_passes" (with the findings)."""
        return sum(part[which][network] for part in self.parts) / self.parts[0]["n_images"]

    def cost(self, *, conditional: bool) -> Cost:
        """By the clocks of its processes; start-up is charged once, and wall is that of the slowest of them."""
        kinds = ("overall", "conditional") if conditional else ("overall",)

        def seconds(part: dict[str, Any], stage: str, clock: int) -> float:
            return sum(part["phases"].get(f"{kind} {stage}", (0.0, 0.0))[clock] for kind in kinds)

        startup = min(part["phases"]["start-up"][0] for part in self.parts)
        encode, metrics = (sum(seconds(part, stage, 0) for part in self.parts) for stage in ("encode", "metrics"))
        wall = max(
            part["phases"]["start-up"][1] + seconds(part, "encode", 1) + seconds(part, "metrics", 1)
            for part in self.parts
        )
        return Cost(startup + encode + metrics, startup, encode, metrics, wall)


def run_upstream(job: dict[str, Any], cores: int, folder: Path) -> Upstream:
    """One thread a process costs least: more of them spin while they wait for each other (+10 to 50 %)."""
    of = min(cores, job["n_shards"])
    jobs = [{**job, "part": part, "of": of, "features": str(folder / f"features-{part}.npz")} for part in range(of)]
    parts = [run.result for run in measure_together([("bench.upstream_path", each) for each in jobs])]
    shards = [values for part in parts for values in part["shards"].values()]
    stored: dict[str, np.ndarray] = {}
    for each in jobs:
        with np.load(each["features"]) as file:
            stored |= {name: file[name] for name in file.files}
    features = {
        f"{name} {side}": np.concatenate([stored[f"{index} {name} {side}"] for index in range(job["n_shards"])])
        for name in ("inception_v3", "rad_dino")
        for side in ("real", "synthetic")
    }
    overall = {name: float(np.mean([shard[name] for shard in shards])) for name in shards[0]}
    findings = {finding: values for part in parts for finding, values in part["findings"].items()}
    return Upstream(parts, overall, findings, features)


def _report(size: Size, ours: dict[str, list[Measured]], upstream: list[Upstream], loading: float) -> Report:
    n = upstream[0].parts[0]["n_images"]
    rows, ratios = [], {}
    for name, conditional, passes in (("overall", False, "passes"), ("with findings", True, "all_passes")):
        theirs = [run.cost(conditional=conditional) for run in upstream]
        mine = [cost_of_chexray(run, loading) for run in ours[name]]
        ratios[name] = [a.total / b.total for a, b in zip(theirs, mine, strict=True)]
        ratios[f"{name}, start-up apart"] = [a.steady / b.steady for a, b in zip(theirs, mine, strict=True)]
        ratios[f"{name}, wall"] = [a.wall / b.wall for a, b in zip(theirs, mine, strict=True)]
        rows.append(
            _cost_row(
                f"upstream-shaped, {name}", theirs, [upstream[0].passes(passes, network) for network in _NETWORKS]
            )
        )
        rows.append(_cost_row(f"chexray, {name}", mine, [ours[name][0].result["n_encoded"] / n] * 2))
    floors = [cost_of_chexray(run, loading) for run in ours["with findings and floors"]]
    rows.append(
        _cost_row("chexray, with findings and floors", floors, [ours["overall"][0].result["n_encoded"] / n] * 2)
    )
    header = ["path", "CPU-s", "start-up", "encode", "metrics", "wall s", "Inception passes", "RAD-DINO passes"]
    architecture = ", ".join(f"{key} {value}" for key, value in size.vit.items())
    lines = [
        f"{n} images ({n // 2} real, {n // 2} synthetic, {size.image} px), RAD-DINO with {architecture}; "
        f"{size.repeats} repeat(s); upstream as one "
        "single-threaded process a core, start-up charged once",
        "",
        table(header, rows),
        "",
        f"processes of chexray's run with findings, CPU-s: {_roles(ours['with findings'][0])}",
    ]
    targets = {"overall": OVERALL_TARGET, "with findings": CONDITIONAL_TARGET}
    summary = []
    for name, target in targets.items():
        for what in (name, f"{name}, start-up apart", f"{name}, wall"):
            wall = what.endswith("wall")
            judged = ["", ""] if wall else [f">= {target:g}", verdict(median(ratios[what]) >= target)]
            unit = "" if wall else ", CPU-s"
            summary.append([f"upstream / chexray, {what}{unit}", spread(ratios[what]), *judged])
    return Report("\n".join(lines), summary)


_NETWORKS = ("inception", "rad_dino")


def _cost_row(name: str, costs: list[Cost], passes: list[float]) -> list[str]:
    stages = [median([getattr(cost, stage) for cost in costs]) for stage in ("total", "startup", "encode", "metrics")]
    wall = median([cost.wall for cost in costs])
    return [name, *(f"{value:.1f}" for value in [*stages, wall]), *(f"{value:.2f}" for value in passes)]


def _roles(run: Measured) -> str:
    return ", ".join(f"{role} {cpu:.1f}" for role, cpu in run.roles().items())
