"""What a metric is: `summarise` rows, `merge` summaries, `compute` values, then say how uncertain they are.

The law every metric obeys: any partition of the rows, in any order, of any batch size, gives the same value.
Metrics import numpy, scipy and torch through `chexray.stats`; never ray, files or config.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

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
    subjects: (n,) int64 patient codes, equal for images of one patient in both sets, or None when the set names no
    patients; errors are clustered by it.
    prompts: (n,) int64 codes, equal for images of one prompt in both sets, -1 for an image without one, or None when
    the set has no prompts. Prompts are written from real images, so images of one prompt are not independent.
    """

    ids: np.ndarray
    features: np.ndarray
    subjects: np.ndarray | None = None
    prompts: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.features)

    def take(self, index: np.ndarray) -> Rows:
        """The rows at `index` (integers or a mask), in that order."""
        subjects, prompts = (None if codes is None else codes[index] for codes in (self.subjects, self.prompts))
        return Rows(self.ids[index], np.ascontiguousarray(self.features[index]), subjects, prompts)


@dataclass(frozen=True)
class Output:
    """One number a metric returns: its name in the results and the better direction ("lower", "higher" or "")."""

    name: str
    better: str = ""


@dataclass(frozen=True)
class Score:
    """One number with its uncertainty. `value` is None, with a `reason`, when it cannot be computed; never 0.

    `real_floor` is what a perfect generator would get at this very n_real and n_synthetic, with its standard error in
    `real_floor_std_error`, by the method in `params["floor_method"]`; null, with `params["floor_reason"]`, where it
    cannot be known. `beyond_floor`: "better" or "worse" where the number and its floor differ by more than both errors
    explain, else "".
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
    real_floor_std_error: float | None = None
    beyond_floor: str = ""

    def __post_init__(self) -> None:
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"{self.metric} is {self.value}: a metric returns a finite value, or None with a reason")
        if self.value is None and not self.reason:
            raise ValueError(f"{self.metric} is null without a reason")


Images = dict[str, np.ndarray]
"""Per-image columns that fall out of a pass: name -> (n_synthetic,) float, in the order of the synthetic rows."""


class Metric(Protocol):
    """A frozen dataclass of parameters. The file name is the registry name.

    reads: the encoder output it consumes ("features" or "logits"); may depend on the parameters.
    requires: the output an encoder must have for the metric to make sense on it; the Inception score asks for logits
    even where it reads something else.
    outputs: the numbers it returns, in order.
    needs_real: False for metrics of the synthetic set alone (Inception score, Vendi): their floor is the real set's.

    Where a mergeable summary exists, the metric also has `summarise(rows) -> Summary` and `compute(real, synthetic) ->
    {output: value}`, with `Summary.merge` between them, as in FID: those three define the value, and `score_images`
    adds its error, its floor and the words for what cannot be computed.
    """

    @property
    def reads(self) -> str: ...

    @property
    def requires(self) -> str: ...

    @property
    def outputs(self) -> tuple[Output, ...]: ...

    @property
    def needs_real(self) -> bool: ...

    def score_images(
        self, real: Rows, synthetic: Rows, *, seed: int = 0, mapper: Mapper = serial, floor: bool = True
    ) -> tuple[list[Score], Images]:
        """One Score per output, in order, and what the same pass says about each synthetic image.

        The scores carry uncertainty and, unless `floor` is False, the real-against-real floor; nulls with reasons when
        there are too few images. NaN or infinite features, constant features and identical sets are answered here, in
        words, not by an exception. Columns are absent, not NaN, where they cannot be computed.
        """
        ...

    def score(
        self, real: Rows, synthetic: Rows, *, seed: int = 0, mapper: Mapper = serial, floor: bool = True
    ) -> list[Score]:
        """The scores of `score_images` alone."""
        ...


class ScoreFromImages:
    """Gives a metric its `score`, so that it writes `score_images` only, and the default of `requires`."""

    requires = "features"

    def score_images(
        self, real: Rows, synthetic: Rows, *, seed: int = 0, mapper: Mapper = serial, floor: bool = True
    ) -> tuple[list[Score], Images]:
        raise NotImplementedError

    def score(
        self, real: Rows, synthetic: Rows, *, seed: int = 0, mapper: Mapper = serial, floor: bool = True
    ) -> list[Score]:
        """The scores of `score_images` alone."""
        return self.score_images(real, synthetic, seed=seed, mapper=mapper, floor=floor)[0]
