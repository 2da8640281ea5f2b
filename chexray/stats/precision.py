"""Whether a network may run in a lower precision: how far its features and the numbers from them moved.

A lower precision is a measurement error. It does not matter while the numbers move by less than a tenth of what
another draw of the images would move them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

LARGEST_ERROR = 0.02
"""Of features, relative to their length."""
LARGEST_SHIFT = 0.1
"""Of a number, in its standard errors."""


@dataclass(frozen=True)
class Shift:
    """How far a number moved, low minus full precision, and its standard error with n images a side."""

    shift: float
    std_error: float
    n: float

    def is_sound(self, n_images: int) -> bool:
        """Whether `n_images` images in all can have given these: finite, with an error that says something."""
        numbers = (self.shift, self.std_error, self.n)
        sound = all(map(math.isfinite, numbers)) and self.std_error > 0 and 1 <= self.n <= n_images
        return sound and math.isfinite(self.std_error_at(1))

    def std_error_at(self, n: float) -> float:
        """The standard error with n images a side: it falls with the root of n."""
        return self.std_error * math.sqrt(self.n / n)


def relative_error(full: np.ndarray, low: np.ndarray) -> float:
    """|low - full| / |full| over all rows (n, d), in float64; infinite where a feature is not finite."""
    exact, found = full.astype(np.float64), low.astype(np.float64)
    if not (np.isfinite(exact).all() and np.isfinite(found).all()):
        return math.inf
    length = float(np.linalg.norm(exact))
    moved = float(np.linalg.norm(found - exact))
    return moved / length if length else (0.0 if moved == 0 else math.inf)


def images_a_side(n: int, m: int) -> float:
    """Of n real and m synthetic images, the equal number a side with the same standard error."""
    return 2 / (1 / n + 1 / m)


def objections(errors: Mapping[str, float], shifts: Mapping[str, float], std_errors: Mapping[str, float]) -> list[str]:
    """Why the lower precision is refused, in words; empty where it may be used.

    errors: {output: relative error}. shifts, std_errors: {number: how far it moved, its standard error at the run's n}.
    """
    found = [
        f"the error of {name} is {error:.2g} of their length, above {LARGEST_ERROR:g}"
        for name, error in errors.items()
        if not error <= LARGEST_ERROR
    ]
    for name, shift in shifts.items():
        limit = LARGEST_SHIFT * std_errors[name]
        if not abs(shift) <= limit:
            found.append(f"{name} moves by {shift:.2g}, and a tenth of its standard error is {limit:.2g}")
    return found
