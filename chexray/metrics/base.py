"""What a metric is: `summarise` rows, `merge` summaries, `compute` values, then say how uncertain they are.

The law every metric obeys: any partition of the rows, in any order, of any batch size, gives the same value.
Metrics import numpy, scipy and torch through `chexray.stats`; never ray, files or config.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Protocol

import numpy as np

from chexray.outputs import Output

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
class Reads:
    """Names of the encoder outputs that a metric reads of each image of a side; the first is in `Rows.features`.

    At least one name a side; a single one may be given as text.
    """

    real: tuple[str, ...] | str = ("features",)
    synthetic: tuple[str, ...] | str = ("features",)

    def __post_init__(self) -> None:
        for side in ("real", "synthetic"):
            names = getattr(self, side)
            object.__setattr__(self, side, (names,) if isinstance(names, str) else tuple(names))

    @classmethod
    def of(cls, reads: str | Reads) -> Reads:
        """`Metric.reads` in full: a name stands for that output of both sides."""
        return cls(reads, reads) if isinstance(reads, str) else reads

    @property
    def outputs(self) -> set[str]:
        """All names."""
        return {*self.real, *self.synthetic}


@dataclass(frozen=True)
class Rows:
    """Features of n images of one set, sorted by id.

    ids: n unique strings. features: (n, d) float32, C order: the output the metric reads, so d is 1008 for logits.
    outputs: {name: (n, d) float32}, every output of a metric that reads several; `rows["logits"]` is one of them.
    subjects: (n,) int64 patient codes, equal for images of one patient in both sets, or None when the set names no
    patients; errors are clustered by it.
    prompts: (n,) int64 codes, equal for images of one prompt in both sets, -1 for an image without one, or None when
    the set has no prompts. Prompts are written from real images, so images of one prompt are not independent.
    """

    ids: np.ndarray
    features: np.ndarray
    subjects: np.ndarray | None = None
    prompts: np.ndarray | None = None
    outputs: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, output: str) -> np.ndarray:
        return self.outputs[output]

    def take(self, index: np.ndarray) -> Rows:
        """The rows at `index` (integers or a mask), in that order."""
        subjects, prompts = (None if codes is None else codes[index] for codes in (self.subjects, self.prompts))
        features = np.ascontiguousarray(self.features[index])
        outputs = {
            name: features if block is self.features else np.ascontiguousarray(block[index])
            for name, block in self.outputs.items()
        }
        return Rows(self.ids[index], features, subjects, prompts, outputs)


@dataclass(frozen=True)
class Score:
    """One number with its uncertainty. `value` is None, with a `reason`, when it cannot be computed; never 0.

    `output`: what the number is, as its metric declares it, or its name alone.
    `real_floor` is what a perfect generator would get at this very n_real and n_synthetic, with its standard error in
    `real_floor_std_error`, by the method in `about["floor_method"]`; null, with `about["floor_reason"]`, where it
    cannot be known. `beyond_floor`: "better" or "worse" where the number and its floor differ by more than both errors
    explain, else "".
    `status`: "ok", "too_few", "undefined" or "failed".
    `std_error_method`: "influence", "jackknife", "bootstrap" ... or "" when there is no error.
    `method`: what two numbers must share to be compared, such as a k. `about`: how this one came out, such as counts,
    p-values, notes and `floor_method`. Both are JSON objects that share no key.
    """

    output: Output
    value: float | None
    _: KW_ONLY
    std_error: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    std_error_method: str = ""
    real_floor: float | None = None
    status: str = "ok"
    reason: str = ""
    method: dict[str, Any] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    real_floor_std_error: float | None = None
    beyond_floor: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.output, str):
            object.__setattr__(self, "output", Output(self.output))
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"{self.metric} is {self.value}: a metric returns a finite value, or None with a reason")
        if self.value is None and not self.reason:
            raise ValueError(f"{self.metric} is null without a reason")

    @property
    def metric(self) -> str:
        return self.output.name

    @property
    def better(self) -> str:
        return self.output.better

    @property
    def params(self) -> dict[str, Any]:
        """`method` and `about` together."""
        return self.method | self.about


Images = dict[str, np.ndarray]
"""Per-image columns that fall out of a pass: name -> (n_synthetic,) float, in the order of the synthetic rows."""


class Metric(Protocol):
    """A frozen dataclass of parameters. The file name is the registry name.

    reads: the encoder output it consumes ("features" or "logits"), or a `Reads` of several; may depend on the
    parameters.
    requires: the output an encoder must have for the metric to make sense on it; the Inception score asks for logits
    even where it reads something else.
    outputs: the numbers it returns, in order, each declared once; see `chexray.outputs.Output`.
    needs_real: False for metrics of the synthetic set alone (Inception score, Vendi): their floor is the real set's.

    Where a mergeable summary exists, the metric also has `summarise(rows) -> Summary` and `compute(real, synthetic) ->
    {output: value}`, with `Summary.merge` between them, as in FID: those three define the value, and `score_images`
    adds its error, its floor and the words for what cannot be computed.
    """

    @property
    def reads(self) -> str | Reads: ...

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
