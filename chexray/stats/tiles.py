"""How pairwise maths walks an n x m matrix it never holds: fixed tiles in cache, grouped in stripes for a mapper.

A stripe is one piece of work for `mapper`; a tile is what one matrix product fills. Both are cut by constants, not by
the number of workers, so the pieces, and the order of their reduction, are the same whoever runs them.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

TILE = 1024
"""Rows and columns of a tile on a CPU: 4 MiB of float32 stay in the last-level cache between passes over it."""

CUDA_TILE = 8192
"""Rows and columns of a tile on an accelerator: 256 MiB, large enough to hide the launch of a kernel."""

STRIPE = 1024
"""Rows of a stripe, one row of tiles: 0.5 s of work on a core at n = 20,000 and d = 768."""

Mapper = Callable[..., Iterable[Any]]
"""As in chexray.metrics.base: `mapper(fn, items, *shared)` yields `fn(item, *shared)` in the order of the items."""


def threaded(fn: Callable[..., object], items: Sequence[object], *shared: object) -> Iterator[Any]:
    """The mapper of one machine: as many items at a time as torch has threads, each item on one thread.

    A product split by torch's own threads has a barrier after every pass over a tile: with two processes on two cores
    that took 4 times the wall time and 3 times the CPU time (measured, n = 8000).
    """
    before = torch.get_num_threads()
    workers = min(before, len(items))
    if workers <= 1:
        yield from (fn(item, *shared) for item in items)
        return
    pool = ThreadPoolExecutor(workers)
    torch.set_num_threads(1)
    try:
        yield from pool.map(lambda item: fn(item, *shared), items)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)


def spans(start: int, stop: int, size: int) -> Iterator[tuple[int, int]]:
    """Consecutive (start, stop) pieces of at most `size`."""
    return ((first, min(first + size, stop)) for first in range(start, stop, size))


def as_tensor(array: np.ndarray, device: str = "cpu") -> torch.Tensor:
    """The array as a tensor on `device`, without a copy on the CPU; never written to."""
    with warnings.catch_warnings():
        # Arrays that came through shared memory are read-only, which torch mentions once a process.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)


_devices = ["cpu"]

MOVED_FROM_FLOP = 2e7
"""Of a product: a smaller one is done before its operands have reached an accelerator."""


@contextmanager
def on_device(device: str) -> Iterator[None]:
    """Within it this process multiplies on `device`: "cpu", or a CUDA device. One process, one device at a time.

    Values stay within the tolerances that each function states: products are IEEE float32 everywhere, sums over pairs
    float64, and what a product leaves in doubt is decided in float64 on the CPU, by a bound that holds for any order
    of summation.
    """
    _devices.append(device)
    try:
        yield
    finally:
        _devices.pop()


def accelerator() -> str:
    """The GPU of this process, or "cpu" where torch sees none, whatever was booked for it."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def present_device() -> str:
    """The device of `on_device`."""
    return _devices[-1]


def product(x: torch.Tensor, y: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """x @ y.T in `out`, all three on the CPU; computed on the present device where that is worth the way there."""
    device = present_device()
    if device == "cpu" or 2.0 * out.numel() * x.shape[1] < MOVED_FROM_FLOP:
        return torch.mm(x, y.T, out=out)
    return out.copy_(torch.mm(x.to(device), y.to(device).T))


_precision = threading.Lock()
_users: list[str] = []


@contextmanager
def full_precision() -> Iterator[None]:
    """Within it float32 products are IEEE: no TF32 on a GPU, no bfloat16 on a CPU, and no gradient is recorded.

    The setting is one of the process: the first to enter notes what it was and the last to leave puts it back.
    """
    with _precision:
        _users.append(_users[0] if _users else torch.get_float32_matmul_precision())
        torch.set_float32_matmul_precision("highest")
    try:
        with torch.inference_mode():
            yield
    finally:
        with _precision:
            before = _users.pop()
            if not _users:
                torch.set_float32_matmul_precision(before)


class TileBuffer:
    """One piece of memory that all tiles of a stripe are written to in turn."""

    def __init__(self, size: int, device: str = "cpu", dtype: torch.dtype = torch.float32):
        self._memory = torch.empty(size * size, dtype=dtype, device=device)

    def shaped(self, rows: int, columns: int) -> torch.Tensor:
        """The memory as a contiguous (rows, columns) tensor, with whatever it holds."""
        return self._memory[: rows * columns].view(rows, columns)
