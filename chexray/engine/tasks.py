"""Pieces of work as Ray tasks that commit what they find: bounded in flight, bounded in retries, errors as themselves.

A piece that was committed is never given out again, so a piece may run twice but never count twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from chexray.engine.arrow_types import forget_extension_types
from chexray.engine.failures import explained
from chexray.engine.progress import Progress
from chexray.errors import ChexrayError, ResourceError

T = TypeVar("T")

MAX_RETRIES = 3
"""New tries of a task whose worker was lost. What a task raises itself is no reason for another."""


@dataclass(frozen=True)
class _Failure:
    """An expected error as data: raised, Ray would wrap it and print its traceback."""

    error: ChexrayError


def as_they_finish(
    fn: Callable[..., Any],
    items: Iterable[tuple[Any, ...]],
    *,
    workers: int,
    what: str,
    here: bool = False,
    gpu_share: float = 0.0,
) -> Iterator[Any]:
    """Yields fn(*item) for every item, in the order in which they finish; at most 2 * workers are in flight, and no
    item is asked for before its turn.

    here: in this process, one after the other, for work that is smaller than the start of a worker. Otherwise an item
    may hold references of ray.put, which the tasks receive as the values. what: names the stage in an error.
    gpu_share: of a GPU, that each task books; it then multiplies there.

    Raises the ChexrayError that a task met, ResourceError when a worker was lost MAX_RETRIES + 1 times over one item.
    """
    if here:
        yield from (fn(*item) for item in items)
        return
    guarded = _guarded_on_gpu if gpu_share else _guarded
    submit = ray.remote(num_cpus=1, num_gpus=gpu_share, max_retries=MAX_RETRIES)(guarded).remote
    waiting = iter(items)
    flying = [submit(fn, *item) for item in islice(waiting, 2 * workers)]
    try:
        while flying:
            (finished, *_), flying = ray.wait(flying, num_returns=1)
            try:
                answer = ray.get(finished)
            except RayTaskError:
                raise
            except RayError as error:
                why = (
                    explained(error) or f"{type(error).__name__}. Run the same command again: what is committed stays."
                )
                raise ResourceError(
                    f"{what}: worker processes died {MAX_RETRIES + 1} times on the same task: {why}"
                ) from None
            if isinstance(answer, _Failure):
                raise answer.error
            flying += [submit(fn, *item) for item in islice(waiting, 1)]
            yield answer
    finally:
        for task in flying:
            ray.cancel(task)


def in_order(
    fn: Callable[..., T], items: Iterable[tuple[Any, ...]], progress: Progress, *, workers: int, what: str, here: bool
) -> list[T]:
    """fn(*item) for every item, in the order of items. Otherwise as `as_they_finish`."""
    found: dict[int, T] = {}
    placed = ((fn, place, *item) for place, item in enumerate(items))
    for place, answer in as_they_finish(_with_place, placed, workers=workers, what=what, here=here):
        found[place] = answer
        progress.advance(1)
    progress.close()
    return [found[place] for place in range(len(found))]


def _with_place(fn: Callable[..., T], place: int, *arguments: object) -> tuple[int, T]:
    return place, fn(*arguments)


def _guarded(fn: Callable[..., object], *arguments: object) -> object:
    forget_extension_types()
    try:
        return fn(*arguments)
    except ChexrayError as error:
        return _Failure(error)


def _guarded_on_gpu(fn: Callable[..., object], *arguments: object) -> object:
    from chexray.stats.tiles import accelerator, on_device

    with on_device(accelerator()):
        return _guarded(fn, *arguments)
