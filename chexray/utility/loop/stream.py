"""Which images a training step sees. A function of numbers alone, so that any epoch can be computed again by itself."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

SHARES, PASSES, DROPOUT, AUGMENTATION = range(4)
"""What a seed is for: keeps the generators of one fit apart."""


def derived_seed(purpose: int, *numbers: int) -> int:
    """A seed below 2^63 for `purpose`, from the numbers that tell one use from another."""
    state = np.random.SeedSequence([purpose, *numbers]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


def phase_epochs(epochs: int, shares: list[float]) -> list[int]:
    """Epochs of each phase: by largest remainder, so that they sum to `epochs`, but at least one each.

    All 0 when `epochs` is 0. With fewer epochs than phases each phase has one, since a setting without its
    pre-training would be another setting.
    """
    if epochs == 0:
        return [0] * len(shares)
    exact = np.asarray(shares, np.float64) / sum(shares) * epochs
    counts = np.maximum(np.floor(exact).astype(int), 1)
    while counts.sum() < epochs:
        counts[np.argmax(exact - counts)] += 1
    while counts.sum() > max(epochs, len(shares)):
        counts[np.argmax(np.where(counts > 1, counts - exact, -np.inf))] -= 1
    return counts.tolist()


def _evenly(n: int, parts: int) -> list[int]:
    """n cut in `parts` sizes that differ by one at most, the larger ones first."""
    return [n // parts + (part < n % parts) for part in range(parts)]


@dataclass(frozen=True)
class Stream:
    """The images of one phase as one worker of `size` sees them.

    n: images of the phase. per_epoch: images that all workers together present in one epoch; it may be more or less
    than n. batch_size: images a step, over all workers together.

    Each worker holds its own `share` of the images and walks through endless shuffled passes of it. An epoch is the
    next stretch of that walk, cut evenly into steps: none is dropped, every worker has as many steps as the others,
    and no batch is a single image (which batch normalisation refuses) unless a worker has only one for the epoch.
    """

    n: int
    per_epoch: int
    batch_size: int
    seed: int
    phase: int = 0
    rank: int = 0
    size: int = 1

    @cached_property
    def share(self) -> np.ndarray:
        """Indices of this worker's images, ascending, int64. Shares are disjoint, complete, and as even as can be."""
        shuffled = np.random.default_rng([SHARES, self.seed, self.phase]).permutation(self.n)
        return np.sort(shuffled[self.rank :: self.size])

    @property
    def steps(self) -> int:
        """Steps of an epoch, the same on every worker."""
        wanted = -(-self.per_epoch // self.batch_size)
        return max(1, min(wanted, self.per_epoch // self.size // 2))

    @property
    def mine(self) -> int:
        """Images of an epoch that this worker presents."""
        return _evenly(self.per_epoch, self.size)[self.rank]

    def batches(self, epoch: int) -> list[np.ndarray]:
        """Positions into `share` for every step of epoch 0, 1, ... of this phase, each (images of the step,) int64."""
        walk = self._walk(epoch * self.mine, self.mine)
        return np.split(walk, np.cumsum(_evenly(self.mine, self.steps))[:-1])

    def _walk(self, start: int, count: int) -> np.ndarray:
        """Positions `start` to `start + count` of the endless walk."""
        length = len(self.share)
        first, last = start // length, (start + count - 1) // length
        passes = [
            np.random.default_rng([PASSES, self.seed, self.phase, self.rank, p]).permutation(length)
            for p in range(first, last + 1)
        ]
        return np.concatenate(passes)[start - first * length :][:count]
