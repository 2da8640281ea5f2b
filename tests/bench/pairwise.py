"""KID and PRDC over all pairs of 20,000 images a side, against the rate of a bare matrix product beside them.

Flop counted are those a straightforward computation needs in products alone: XX and YY above their diagonals and all of
XY, 2 d (n^2/2 + n^2/2 + n^2) = 4 d n^2. Kernels, comparisons, float64 rechecks and error bars count as nothing, so the
rate is a lower bound of the work done.
"""

from __future__ import annotations

import itertools
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .accounting import measure, serve
from .tables import Report, median, spread, table, verdict

D = 768
RATE_TARGET, MEMORY_TARGET_GB = 0.5, 2.0
GEMM = 4096
"""Rows and columns of the product that sets the pace, (4096, 768) by (768, 4096): large enough for its full rate."""


@dataclass(frozen=True)
class Size:
    n: int
    repeats: int


SIZES = {"tiny": Size(1500, 1), "quick": Size(10_000, 1), "default": Size(20_000, 3), "full": Size(40_000, 3)}


def run(size_name: str = "default") -> Report:
    size = SIZES[size_name]
    threads = len(os.sched_getaffinity(0))
    rows, summary = [], []
    for metric in ("kid", "prdc"):
        found = measure("bench.pairwise", {"metric": metric, "n": size.n, "repeats": size.repeats, "threads": threads})
        result = found.result
        shares = [rate / gemm for rate, gemm in zip(result["rates"], result["gemm"], strict=True)]
        rows.append(
            [
                metric,
                spread(result["seconds"], ".1f"),
                spread(result["cpu_s"], ".1f"),
                spread([rate / 1e9 for rate in result["rates"]], ".0f"),
                spread([rate / 1e9 for rate in result["gemm"]], ".0f"),
                spread([100 * share for share in shares], ".0f") + " %",
                f"{result['growth'] / 1e9:.2f}",
                f"{result['peak'] / 1e9:.2f}",
            ]
        )
        where, share = f"{metric} at n = {size.n:,} x {D}", median(shares)
        met = verdict(share >= RATE_TARGET)
        summary.append([f"{where}: share of the GEMM rate", f"{100 * share:.0f} %", f">= {100 * RATE_TARGET:g} %", met])
        for key, what in (("growth", "memory beyond the features"), ("peak", "peak of the whole process")):
            gigabytes = result[key] / 1e9
            met = verdict(gigabytes <= MEMORY_TARGET_GB)
            summary.append([f"{where}: {what}", f"{gigabytes:.2f} GB", f"<= {MEMORY_TARGET_GB:g} GB", met])
    header = ["metric", "wall s", "CPU-s", "GFLOP/s", "GEMM GFLOP/s", "share", "growth GB", "peak GB"]
    text = "\n".join(
        [
            f"n = {size.n:,} x {D} both sides, with error bars, {threads} threads, {size.repeats} repeat(s) with the "
            f"product before and after each; {4 * D * size.n**2 / 1e12:.2f} TFLOP; median (min to max)",
            "",
            table(header, rows),
        ]
    )
    return Report(text, summary)


def memory(field: str, pid: str = "self") -> int:
    """Bytes that the kernel reports of a process: VmRSS, resident now, or VmHWM, at most so far."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"no {field} in /proc/{pid}/status")


def gemm_rate(seconds: float = 1.0) -> float:
    """flop/s of a float32 product with torch's present number of threads."""
    import torch

    x, y = (torch.randn(GEMM, D, generator=torch.Generator().manual_seed(i)) for i in range(2))
    out = torch.empty(GEMM, GEMM)
    torch.mm(x, y.T, out=out)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        torch.mm(x, y.T, out=out)
        count += 1
    return 2.0 * D * GEMM**2 * count / (time.perf_counter() - start)


def main(job: dict[str, Any]) -> dict[str, Any]:
    import numpy as np
    import torch

    from chexray.metrics.base import Rows
    from chexray.registry import find

    torch.set_num_threads(job["threads"])
    n = job["n"]
    rng = np.random.default_rng(0)
    # Features with a decaying spectrum and a little structure, as encoders give them.
    scales = (np.arange(1, D + 1) ** -0.5).astype(np.float32)
    real, synthetic = (rng.standard_normal((n, D), dtype=np.float32) * scales + 0.05 * side for side in range(2))
    ids = np.array([f"{i:06d}" for i in range(n)])
    sides = Rows(ids, real), Rows(ids, synthetic)
    metric = find("metrics", job["metric"])()
    metric.score(*(rows.take(np.arange(300)) for rows in sides), floor=False)  # imports and first calls
    before, peak = memory("VmRSS"), 0
    gemm, seconds, cpu, values = [gemm_rate()], [], [], {}
    for _ in range(job["repeats"]):
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
        start, start_cpu = time.perf_counter(), time.process_time()
        scores = metric.score(*sides, floor=False)
        seconds.append(time.perf_counter() - start)
        cpu.append(time.process_time() - start_cpu)
        peak = max(peak, memory("VmHWM"))
        gemm.append(gemm_rate())
        values = {score.metric: (score.value, score.std_error) for score in scores}
    flop = 4.0 * D * n**2
    return {
        "seconds": seconds,
        "cpu_s": cpu,
        "rates": [flop / value for value in seconds],
        "gemm": [(a + b) / 2 for a, b in itertools.pairwise(gemm)],
        "growth": peak - before,
        "peak": peak,
        "values": values,
    }


if __name__ == "__main__":
    serve(main)
