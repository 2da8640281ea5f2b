"""Batches made ready by a thread while the network works on the one before, and how fast it could have made them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

import numpy as np

T = TypeVar("T")

AHEAD = 2
"""Batches made before they are asked for: one hides the making, a second its jitter."""


class Loader(Generic[T]):
    """Iterates over `make(batch)` for every batch, in order, made by a thread that runs `AHEAD` of the loop.

    An exception in `make` surfaces where the loop asks for that batch. The thread ends with the loop, however that
    ends, when the loader is used as a context. `busy_s`: seconds spent in `make` so far, for the rate of the input.
    """

    def __init__(self, make: Callable[[np.ndarray], T], batches: Sequence[np.ndarray]):
        self.make, self.batches, self.busy_s = make, batches, 0.0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches")

    def __enter__(self) -> Loader[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    def __iter__(self) -> Iterator[T]:
        waiting: deque[Future[T]] = deque(self._thread.submit(self._timed, b) for b in self.batches[:AHEAD])
        for upcoming in range(AHEAD, len(self.batches) + AHEAD):
            if not waiting:
                return
            batch = waiting.popleft().result()
            if upcoming < len(self.batches):
                waiting.append(self._thread.submit(self._timed, self.batches[upcoming]))
            yield batch

    def _timed(self, batch: np.ndarray) -> T:
        start = time.perf_counter()
        try:
            return self.make(batch)
        finally:
            self.busy_s += time.perf_counter() - start


def rate(images: float, seconds: float) -> float:
    """Images a second; 0 when nothing was timed."""
    return images / seconds if seconds > 0 else 0.0
