"""The memorisation search of 20,000 images in 60,000 on a local Ray, against the rate of a bare matrix product.

Flop counted are those of the products alone, 2 d n m. Reading blocks, comparisons, float64 differences, committing
stripes and Ray itself count as nothing, so the rate is a lower bound of the work done. Workers are started, and have
imported torch, before the clock is.
"""

from __future__ import annotations

import io
import itertools
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .accounting import MARKER, measure, serve
from .pairwise import MEMORY_TARGET_GB, RATE_TARGET, D, gemm_rate, memory
from .tables import Report, median, spread, table, verdict

COPIES = 100
"""Queries that are references with a little noise."""

CHECKED = 64
"""Queries that are looked up once more by brute force in float64."""


@dataclass(frozen=True)
class Size:
    n_queries: int
    n_references: int
    repeats: int


SIZES = {
    "tiny": Size(300, 900, 1),
    "quick": Size(8192, 32_768, 1),
    "default": Size(20_000, 60_000, 3),
    "full": Size(75_649, 237_388, 1),
}


def run(size_name: str = "default") -> Report:
    size = SIZES[size_name]
    threads = len(os.sched_getaffinity(0))
    job = {"n": size.n_queries, "m": size.n_references, "repeats": size.repeats, "workers": threads}
    result = measure("bench.search", job).result
    shares = [rate / gemm for rate, gemm in zip(result["rates"], result["gemm"], strict=True)]
    header = ["seconds", "GFLOP/s", "GEMM GFLOP/s", "share", "peak of a worker GB", "of the driver GB", "block MB/s"]
    cells = [
        spread(result["seconds"], ".1f"),
        spread([rate / 1e9 for rate in result["rates"]], ".0f"),
        spread([rate / 1e9 for rate in result["gemm"]], ".0f"),
        spread([100 * share for share in shares], ".0f") + " %",
        f"{result['worker_peak'] / 1e9:.2f}",
        f"{result['driver_peak'] / 1e9:.2f}",
        f"{result['block_rate'] / 1e6:.0f}",
    ]
    what = f"memorisation search, {size.n_queries:,} x {size.n_references:,} x {D}"
    share, peak = median(shares), result["worker_peak"] / 1e9
    rows = [
        [
            f"{what}: share of the GEMM rate",
            f"{100 * share:.0f} %",
            f">= {100 * RATE_TARGET:g} %",
            verdict(share >= RATE_TARGET),
        ],
        [
            f"{what}: peak of a worker",
            f"{peak:.2f} GB",
            f"<= {MEMORY_TARGET_GB:g} GB",
            verdict(peak <= MEMORY_TARGET_GB),
        ],
    ]
    wrong = "" if result["agrees"] else "\n\nWRONG: the search and brute force in float64 differ."
    text = "\n".join(
        [
            f"{what}; {2 * D * size.n_queries * size.n_references / 1e12:.2f} TFLOP; {threads} workers of one thread, "
            f"{size.repeats} repeat(s), the product on {threads} threads before and after each; median (min to max)",
            "",
            table(header, [cells]) + wrong,
        ]
    )
    return Report(text, rows, result["agrees"])


def _worker_peak() -> int:
    """The largest resident set that a Ray worker of this run ever had, bytes; shared pages count in full."""
    token, peak = f"{MARKER}={os.environ[MARKER]}".encode(), 0
    for entry in os.listdir("/proc"):
        try:
            if (
                entry.isdigit()
                and Path(f"/proc/{entry}/cmdline").read_bytes().startswith(b"ray::")
                and token in Path(f"/proc/{entry}/environ").read_bytes().split(b"\0")
            ):
                peak = max(peak, memory("VmHWM", entry))
        except OSError:
            continue  # it ended while it was looked at
    if not peak:
        raise RuntimeError("no worker of this run was found in /proc")
    return peak


def main(job: dict[str, Any]) -> dict[str, Any]:
    import numpy as np
    import torch

    from chexray.config import RayConfig
    from chexray.engine import search as stage
    from chexray.engine.blocks import blocks_of_array
    from chexray.engine.cluster import cluster
    from chexray.engine.progress import Progress
    from chexray.storage import Storage

    n, m, workers = job["n"], job["m"], job["workers"]
    rng, scales = np.random.default_rng(0), (np.arange(1, D + 1) ** -0.5).astype(np.float32)
    references = rng.standard_normal((m, D), dtype=np.float32) * scales + 2
    queries = rng.standard_normal((n, D), dtype=np.float32) * scales + 2
    copied = rng.permutation(m)[:COPIES]
    queries[:COPIES] = references[copied] + 1e-4 * rng.standard_normal((COPIES, D), dtype=np.float32)
    checked = rng.permutation(n)[:CHECKED]
    expected = [_brute(queries[i], references) for i in checked]

    torch.set_num_threads(workers)
    storage = Storage()
    stage.SMALL_FLOP = 0.0
    with tempfile.TemporaryDirectory(prefix="cxb-") as folder, cluster(RayConfig(num_cpus=workers)):
        sides = [
            blocks_of_array(side, f"{folder}/{name}", storage)
            for name, side in (("queries", queries), ("references", references))
        ]
        del queries, references
        whole = stage.Search(*sides)

        def timed(search: Any, name: str) -> tuple[float, Any]:
            progress = Progress("search", "images", 0, stream=io.StringIO())
            start = time.perf_counter()
            found = stage.search(
                {"it": search}, root=f"{folder}/{name}", storage=storage, workers=workers, progress=progress
            )
            return time.perf_counter() - start, found["it"]

        start = time.perf_counter()
        for i in range(sides[1].n_blocks):
            sides[1].read(i)
        block_rate = 4 * D * m / (time.perf_counter() - start)
        # Two stripes a worker, so that each of them is warm.
        stage.STRIPE_ROWS, stripe_rows = 8, stage.STRIPE_ROWS
        timed(stage.Search(*sides, query_rows=np.arange(min(n, 16 * workers))), "warm")
        stage.STRIPE_ROWS = stripe_rows

        gemm, seconds, found = [gemm_rate()], [], None
        for repeat in range(job["repeats"]):
            took, found = timed(whole, f"repeat-{repeat}")
            seconds.append(took)
            gemm.append(gemm_rate())
        worker_peak = _worker_peak()
    assert found is not None
    squared = np.array([value for value, _ in expected])
    agrees = (
        np.array_equal(found.row[checked], [row for _, row in expected])
        and np.allclose(found.squared[checked], squared, rtol=1e-12, atol=0)
        and np.array_equal(found.row[:COPIES], copied)
    )
    return {
        "seconds": seconds,
        "rates": [2.0 * D * n * m / took for took in seconds],
        "gemm": [(a + b) / 2 for a, b in itertools.pairwise(gemm)],
        "worker_peak": worker_peak,
        "driver_peak": memory("VmHWM"),
        "block_rate": block_rate,
        "agrees": bool(agrees),
    }


def _brute(query: Any, references: Any) -> tuple[float, int]:
    import numpy as np

    squared = np.concatenate(
        [
            np.square(references[start : start + 4096].astype(np.float64) - query).sum(1)
            for start in range(0, len(references), 4096)
        ]
    )
    return float(squared.min()), int(squared.argmin())


if __name__ == "__main__":
    serve(main)
