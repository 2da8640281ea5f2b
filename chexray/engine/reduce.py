"""Turns stored features into scores, on Ray tasks.

A cell is (synthetic set, encoder, subset): its metrics share one selection of rows and one task. Small cells run whole
in a task each, or all in this process where together they take less than the start of a worker; in a large one the
metrics hand their shards and tiles to further tasks through a mapper. What is summed, and in which order, is fixed by
the metric, so neither the number of workers nor their speed can reach a value.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import ray

from chexray.engine.progress import Progress
from chexray.metrics.base import Mapper, Metric, Reads, Rows, Score, serial
from chexray.metrics.common import nulls
from chexray.plugin_files import loaded_modules

LARGE_CELL_FLOP = 4e12
"""About a minute of one core's GEMM: above it, spreading tiles over tasks is worth their start."""


HERE_FLOP = 1e9
"""Of all cells together, up to which they are computed in this process: a second or two, less than a worker takes to
start and import torch (measured: 15 cells of at most 128 + 128 images at 512-d, 0.4 s here and 9 s on tasks)."""


@dataclass(frozen=True)
class Cell:
    """Metrics of one subset of one synthetic set in one encoder's space.

    real, synthetic: row numbers into the encoder's feature matrices. unavailable: why membership is unknown, or "".
    metrics: {key: Metric}; the key is only carried along.
    """

    encoder: str
    synthetic_set: str
    subset: str
    real: np.ndarray
    synthetic: np.ndarray
    metrics: dict[str, Metric]
    unavailable: str = ""
    per_image: bool = False
    floor: bool = True


@dataclass
class CellResult:
    """Scores by metric key, columns per synthetic image, and tracebacks of metrics that failed."""

    scores: list[tuple[str, Score]] = field(default_factory=list)
    images: dict[str, np.ndarray] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


class RayMapper:
    """`Mapper` on Ray tasks: shared arrays are put once, a bounded number of items is in flight, results keep order."""

    def __init__(self, in_flight: int, gpu_share: float = 0.0):
        self.in_flight, self.gpu_share = in_flight, gpu_share
        # Functions of a plug-in's file travel with what they use: the task's process may not have loaded the file.
        for module in loaded_modules():
            ray.cloudpickle.register_pickle_by_value(module)  # pyright: ignore[reportAttributeAccessIssue]

    def __call__(self, fn: Callable[..., Any], items: Sequence[Any], *shared: object) -> Iterator[Any]:
        function = ray.put(fn)
        placed = [ray.put(array) for array in shared]
        # Passed one by one, so that Ray resolves each reference to a zero-copy view.
        call = _call_on_gpu if self.gpu_share else _call
        submit = ray.remote(num_cpus=1, num_gpus=self.gpu_share)(call).remote
        source = iter(items)
        flying = [submit(function, item, *placed) for item in islice(source, self.in_flight)]
        while flying:
            yield ray.get(flying.pop(0))
            flying += [submit(function, item, *placed) for item in islice(source, 1)]


def _call(fn: Callable[..., object], item: object, *shared: object) -> object:
    return fn(item, *shared)


def _call_on_gpu(fn: Callable[..., object], item: object, *shared: object) -> object:
    from chexray.stats.tiles import accelerator, on_device

    with on_device(accelerator()):
        return fn(item, *shared)


@dataclass(frozen=True)
class FeatureMatrix:
    """What an encoder computed of the images of one set: ids (n,) sorted, outputs {name: (n, d) float32}, codes as in
    `Rows`."""

    ids: np.ndarray
    outputs: Mapping[str, np.ndarray]
    subjects: np.ndarray | None
    prompts: np.ndarray | None = None

    @property
    def features(self) -> np.ndarray:
        """The output "features", or the first where no metric reads it."""
        return self.outputs.get("features", next(iter(self.outputs.values())))

    def rows(self, index: np.ndarray, names: Sequence[str]) -> Rows:
        """The images at `index` with these outputs."""
        whole = len(index) == len(self.ids) and bool(np.all(index == np.arange(len(index))))
        outputs = {name: self.outputs[name] for name in names}
        everything = Rows(self.ids, outputs[names[0]], self.subjects, self.prompts, outputs)
        return everything if whole else everything.take(index)


Matrices = dict[str, FeatureMatrix]
"""{set name: what one encoder computed of it}"""


def score_cell(cell: Cell, real: FeatureMatrix, synthetic: FeatureMatrix, seed: int, mapper: Mapper) -> CellResult:
    """All metrics of a cell. A metric that raises costs its own rows, with the reason, and no other's."""
    result = CellResult()
    for key, metric in cell.metrics.items():
        reads = Reads.of(metric.reads)
        if cell.unavailable:
            result.scores += [(key, score) for score in nulls(metric.outputs, "undefined", cell.unavailable)]
            continue
        try:
            scores, images = metric.score_images(
                real.rows(cell.real, reads.real),
                synthetic.rows(cell.synthetic, reads.synthetic),
                seed=seed,
                mapper=mapper,
                floor=cell.floor,
            )
        except Exception as error:
            reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"[:300]
            result.scores += [(key, score) for score in nulls(metric.outputs, "failed", reason)]
            result.failures.append(f"{cell.encoder} {cell.subset} {key}\n{traceback.format_exc()}")
            continue
        result.scores += [(key, score) for score in scores]
        if cell.per_image:
            result.images.update(images)
    return result


def _flop(cell: Cell, real: FeatureMatrix) -> float:
    width = max(block.shape[1] for block in real.outputs.values())
    return 2.0 * (len(cell.real) + len(cell.synthetic)) ** 2 * width


def reduce(
    cells: Sequence[Cell],
    matrices: dict[str, Matrices],
    real_set: str,
    *,
    seed: int,
    workers: int,
    progress: Progress,
    gpu_share: float = 0.0,
) -> list[CellResult]:
    """Scores of every cell, in the order of `cells`.

    matrices: {encoder: its sets}; each matrix is placed in the object store once. gpu_share: of a GPU, for each task
    that large cells are spread over; it multiplies there.
    """
    progress.total, work = len(cells), [_flop(cell, matrices[cell.encoder][real_set]) for cell in cells]
    progress.work = sum(work)
    if progress.work <= HERE_FLOP:
        return _here(cells, matrices, real_set, seed, progress)
    placed = {encoder: {name: ray.put(each) for name, each in sets.items()} for encoder, sets in matrices.items()}
    small = ray.remote(num_cpus=1)(_small).remote
    large = ray.remote(num_cpus=0)(_large).remote
    results: list[CellResult | None] = [None] * len(cells)
    order = sorted(range(len(cells)), key=lambda i: -len(cells[i].real) - len(cells[i].synthetic))
    todo, flying = iter(order), {}

    def start(count: int) -> None:
        for i in islice(todo, count):
            cell = cells[i]
            real, synthetic = placed[cell.encoder][real_set], placed[cell.encoder][cell.synthetic_set]
            if work[i] > LARGE_CELL_FLOP:
                flying[large(cell, real, synthetic, seed, workers, gpu_share)] = i
            else:
                flying[small(cell, real, synthetic, seed)] = i

    start(2 * workers)
    while flying:
        finished, _ = ray.wait(list(flying), num_returns=1)
        i = flying.pop(finished[0])
        results[i] = ray.get(finished[0])
        progress.advance(1, work=work[i])
        start(1)
    progress.close()
    return [result for result in results if result is not None]


def _here(
    cells: Sequence[Cell], matrices: dict[str, Matrices], real_set: str, seed: int, progress: Progress
) -> list[CellResult]:
    results = []
    for cell in cells:
        sets = matrices[cell.encoder]
        results.append(_small(cell, sets[real_set], sets[cell.synthetic_set], seed))
        progress.advance(1, work=_flop(cell, sets[real_set]))
    progress.close()
    return results


def _small(cell: Cell, real: FeatureMatrix, synthetic: FeatureMatrix, seed: int) -> CellResult:
    return score_cell(cell, real, synthetic, seed, serial)


def _large(
    cell: Cell, real: FeatureMatrix, synthetic: FeatureMatrix, seed: int, workers: int, gpu_share: float
) -> CellResult:
    return score_cell(cell, real, synthetic, seed, RayMapper(2 * workers, gpu_share))
