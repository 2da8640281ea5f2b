"""Rates come from an injected clock; a pipe gets plain lines."""

from __future__ import annotations

import io
from collections.abc import Callable
from itertools import accumulate

import pytest

from chexray.engine.progress import Progress


def test_rate_and_time_left_start_with_the_first_unit() -> None:
    ticks = iter([100.0, 110.0])
    stream = io.StringIO()
    progress = Progress("encode", "images", 1000, stream=stream, clock=lambda: next(ticks))
    progress.advance(100)
    assert progress.rate is None
    progress.advance(100, rejected=3)
    assert "200/1,000 images, 10 images/s, 1 min 20 s left, 3 rejected" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_a_terminal_is_redrawn_in_place() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    progress = Progress("reduce", "cells", 2, stream=stream, clock=lambda: 0.0)
    progress.advance(1)
    progress.close()
    assert stream.getvalue().startswith("\r\x1b[2Kreduce: 1/2 cells")
    assert stream.getvalue().endswith("\n")


def simulated(total: int, step: int, seconds: Callable[[int], float], work: Callable[[int], float] | None = None):
    """(share done, time left as it was said, time left as it was) at each update of a stage with these steps.

    seconds: of the step that begins at a unit. work: of that step, where steps cost unlike.
    """
    starts = range(0, total, step)
    ends = [5.0 + each for each in accumulate(seconds(start) for start in starts)]
    moments = iter(ends)
    progress = Progress("encode", "images", total, stream=io.StringIO(), clock=lambda: next(moments))
    progress.work = sum(map(work, starts)) if work else 0.0
    for start, end in zip(starts, ends, strict=True):
        progress.advance(min(step, total - start), work=work(start) if work else None)
        yield progress.done / total, progress.left_s, ends[-1] - end


def unlike(start: int) -> float:
    """A search in 237,388 images, then one in 10,000: 24 times the work for as many queries."""
    return 24.0 if start < 10_000 else 1.0


PACES = {
    "steady": (lambda start: 1.0, None),
    "one of two workers comes late": (lambda start: 2.0 if start < 1_000 else 1.0, None),
    "a first chunk that takes as long as a hundred": (lambda start: 100.0 if not start else 1.0, None),
    "noise of a third": (lambda start: 1 + (hash((start, 7)) % 61 - 30) / 90, None),
    "the machine slows down by a fifth at half": (lambda start: 1.0 if start < 10_000 else 1.2, None),
    "units that cost unlike": (unlike, unlike),
}


@pytest.mark.parametrize("pace", PACES)
def test_the_time_left_is_right_within_a_quarter_after_the_first_tenth(pace) -> None:
    for share, told, true in simulated(20_000, 64, *PACES[pace]):
        if 0.1 <= share < 0.99:
            assert told == pytest.approx(true, rel=0.25), share


def test_many_updates_are_not_all_remembered() -> None:
    last = list(simulated(300_000, 64, lambda start: 1.0))[-200]
    assert last[1] == pytest.approx(last[2], rel=0.25)
