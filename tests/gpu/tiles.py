"""KID, PRDC and the search for copies beside the rate of a float32 matrix product on the same device."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from gpu.speed import per_second

if TYPE_CHECKING:
    from gpu.check import Check

D = 768
TOLERANCE = 1e-6
"""Of a KID on a GPU beside the same on the CPU, relative to 1 + |KID|."""


def run(check: Check) -> None:
    from chexray.stats.kernels import Cubic, kernel_sums, mmd
    from chexray.stats.nearest import nearest
    from chexray.stats.tiles import CUDA_TILE, STRIPE, on_device

    n = check.choose(full=20_000, quick=8_000, tiny=300) if check.device == "cuda" else check.choose(
        full=4_000, quick=2_000, tiny=300
    )  # fmt: skip
    rng = np.random.default_rng(0)
    x, y = (rng.normal(shift, 1, (n, D)).astype(np.float32) for shift in (0.2, 0.25))
    gemm = _gemm(check)
    check.add("tiles", f"float32 product on {check.device}", tflops=gemm / 1e12)
    small = min(n, 3_000)
    kid = {
        device: mmd(kernel_sums(x[:small], y[:small], Cubic(), device=device), biased=False).value
        for device in dict.fromkeys(("cpu", check.device))
    }
    if not check.is_late("tiles", "kid"):
        right = abs(kid[check.device] - kid["cpu"]) <= TOLERANCE * (1 + abs(kid["cpu"]))
        stripe = STRIPE if check.device == "cpu" else CUDA_TILE
        work = lambda: kernel_sums(x, y, Cubic(), device=check.device, stripe_rows=stripe)  # noqa: E731
        _row(check, f"kid, {n:,} x {D} a side", work, 4.0 * D * n * n, gemm, right=bool(right))
    for what, function, flop in (("prdc", _prdc, 4.0), ("search for copies", nearest, 2.0)):
        if check.is_late("tiles", what):
            return
        with on_device(check.device):
            _row(check, f"{what}, {n:,} x {D}", lambda f=function: f(x, y), flop * D * n * n, gemm)
    if check.device != "cpu":
        with on_device(check.device):
            there = nearest(x[:small], y[:small])
        here = nearest(x[:small], y[:small])
        same = np.array_equal(here.row, there.row) and np.array_equal(here.squared, there.squared)
        check.add("tiles", "search finds the same images as on the CPU", right=bool(same))


def _row(check: Check, what: str, work: Callable[[], object], flop: float, gemm: float | None, **more: Any) -> None:
    start = time.perf_counter()
    work()
    rate = flop / (time.perf_counter() - start)
    share = {} if gemm is None else {"share_of_gemm": rate / gemm}
    check.add("tiles", what, tflops=rate / 1e12, **share, **more)


def _prdc(x: np.ndarray, y: np.ndarray) -> object:
    """The radii of both sides and what lies in which ball: 4 d n^2 flop in products."""
    from chexray.stats.manifolds import manifolds
    from chexray.stats.neighbours import kth_neighbour

    radii = [kth_neighbour(side, 5) for side in (x, y)]
    return manifolds(x, y, *radii)


def _gemm(check: Check) -> float:
    """Floating-point operations a second of (m, 768) by (768, m) in IEEE float32."""
    import torch

    from chexray.stats.tiles import full_precision

    m = check.choose(full=8192, quick=4096, tiny=256) if check.device == "cuda" else min(1024, 1024)
    a, b = torch.randn(m, D, device=check.device), torch.randn(D, m, device=check.device)
    with full_precision():
        return 2.0 * D * m * m * per_second(lambda: a @ b, check.device, check.choose(full=1.0, quick=0.3, tiny=0.05))
