"""What a metric is: `summarise` rows, `merge` summaries, `compute` values, then say how uncertain they are.

The law every metric obeys: any partition of the rows, in any order, of any batch size, gives the same value.
Metrics import numpy, scipy and torch through `chexray.stats`; never ray, files or config.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np

Mapper = Callable[..., Iterable[Any]]
"""`mapper(fn, items, *shared)` yields `fn(item, *shared)` for each item, in the order of items.

Maths asks for parallelism only through this. `serial` runs in place; the engine passes one that runs on a cluster and
places the large `shared` arrays once. Since the pieces and the order of their reduction are fixed by the caller,
the value cannot depend on who runs them.
"""


def serial(fn: Callable[..., Any], items: Sequence[Any], *shared: Any) -> Iterable[Any]:
    """The mapper of a single process."""
    return (fn(item, *shared) for item in items)


@dataclass(frozen=True)
class Rows:
    """Features of n images of one set, sorted by id.

    ids: n unique strings. features: (n, d) float32, C order: the output the metric reads, so d is 1008 for logits.
    subjects: (n,) int64 patient codes, equal for images of one patient, or None when the set names no patients;
    errors are clustered by it.
    """

    ids: np.ndarray
    features: np.ndarray
    subjects: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.features)

    def take(self, index: np.ndarray) -> Rows:
        """The rows at `index` (integers or a mask), in that order."""
        subjects = None if self.subjects is None else self.subjects[index]
        return Rows(self.ids[index], np.ascontiguousarray(self.features[index]), subjects)


@dataclass(frozen=True)
class Output:
    """One number a metric returns: its name in the results and the better direction ("lower", "higher" or "")."""

    name: str
    better: str = ""


@dataclass(frozen=True)
class Score:
    """One number with its uncertainty. `value` is None, with a `reason`, when it cannot be computed; never 0.

    `real_floor` is what a perfect generator would get: the metric between real images and other real images (of other
    patients where these are known) at the same n on both sides, by the method in `params["floor_method"]`.
    `status`: "ok", "too_few", "undefined" or "failed".
    `std_error_method`: "influence", "jackknife", "bootstrap" ... or "" when there is no error.
    """

    metric: str
    value: float | None
    better: str = ""
    std_error: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    std_error_method: str = ""
    real_floor: float | None = None
    status: str = "ok"
    reason: str = ""
    params: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"{self.metric} is {self.value}: a metric returns a finite value, or None with a reason")
        if self.value is None and not self.reason:
            raise ValueError(f"{self.metric} is null without a reason")


class Metric(Protocol):
    """A frozen dataclass of parameters. The file name is the registry name.

    reads: the encoder output it consumes ("features" or "logits").
    outputs: the numbers it returns, in order.
    needs_real: False for metrics of the synthetic set alone (Inception score, Vendi): their floor is the real set's.
    """

    reads: ClassVar[str]
    outputs: ClassVar[tuple[Output, ...]]
    needs_real: ClassVar[bool]

    def score(self, real: Rows, synthetic: Rows, *, seed: int = 0, mapper: Mapper = serial) -> list[Score]:
        """One Score per output, with uncertainty and floor; nulls with reasons when there are too few images.

        NaN or infinite features, constant features and identical sets are answered here, in words, not by an exception.
        """
        ...
