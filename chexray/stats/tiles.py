"""How pairwise maths walks an n x m matrix it never holds: fixed tiles in cache, grouped in stripes for a mapper.

A stripe is one piece of work for `mapper`; a tile is what one matrix product fills. Both are cut by constants and not by
the number of workers, so the pieces, and the order of their reduction, are the same whoever runs them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

TILE = 1024
"""Rows and columns of a tile on a CPU: 4 MiB of float32 stay in the last-level cache between passes over it."""

CUDA_TILE = 8192
"""Rows and columns of a tile on an accelerator: 256 MiB, large enough to hide the launch of a kernel."""

STRIPE = 2048
"""Rows of a stripe: 60 to 200 GFLOP of work at n = 20,000 to 75,000, a second or two on two cores."""

Mapper = Callable[..., Iterable[Any]]


def serial(fn: Callable[..., Any], items: Sequence[Any], *shared: Any) -> Iterable[Any]:
    """Runs `fn(item, *shared)` in place, in order: the mapper of a single process."""
    return (fn(item, *shared) for item in items)


def spans(start: int, stop: int, size: int) -> Iterator[tuple[int, int]]:
    """Consecutive (start, stop) pieces of at most `size`."""
    return ((first, min(first + size, stop)) for first in range(start, stop, size))


def as_tensor(array: np.ndarray, device: str = "cpu") -> torch.Tensor:
    """The array as a tensor on `device`, without a copy on the CPU; never written to."""
    with warnings.catch_warnings():
        # Arrays that came through shared memory are read-only, which torch mentions once a process.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)


@contextmanager
def full_precision() -> Iterator[None]:
    """Within it float32 products are IEEE: no TF32 on a GPU, no bfloat16 on a CPU. Then the old setting is back."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_float32_matmul_precision(before)


class TileBuffer:
    """One piece of memory that all tiles of a stripe are written to in turn."""

    def __init__(self, size: int, device: str = "cpu"):
        self._memory = torch.empty(size * size, dtype=torch.float32, device=device)

    def shaped(self, rows: int, columns: int) -> torch.Tensor:
        """The memory as a contiguous (rows, columns) float32 tensor, with whatever it holds."""
        return self._memory[: rows * columns].view(rows, columns)
