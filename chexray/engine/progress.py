"""The progress line of a run: redrawn in place on a terminal, one plain line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TextIO

from chexray.engine.telemetry import meter
from chexray.log import note

PLAIN_EVERY_S = 5.0
REDRAW_EVERY_S = 0.2


def _duration(seconds: float) -> str:
    seconds = int(seconds + 0.5)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


@dataclass
class Progress:
    """Counts units done of `total` in a stage. The rate starts with the first unit, so start-up does not dilute it.

    `on_change` hears every update; evaluate uses it to keep status.json fresh.
    """

    stage: str
    unit: str
    total: int
    stream: TextIO = field(default_factory=lambda: sys.stderr)
    clock: Callable[[], float] = time.monotonic
    on_change: Callable[[Progress], None] | None = None
    done: int = 0
    rejected: int = 0
    _first: tuple[float, int] | None = None
    _last: float = 0.0
    _shown: float = float("-inf")

    def __post_init__(self) -> None:
        meter().watch(self)

    def advance(self, done: int, rejected: int = 0) -> None:
        self._last = self.clock()
        self.done += done
        self.rejected += rejected
        if self._first is None:
            self._first = (self._last, self.done)
        self._show()
        meter().show()
        if self.on_change:
            self.on_change(self)

    @property
    def rate(self) -> float | None:
        """Units a second between the first and the last update; None until there is a span to divide by."""
        return self.rate_at(self._last)

    def rate_at(self, moment: float) -> float | None:
        """The same up to a moment on the clock, so that it falls while nothing is done."""
        if self._first is None or self.done <= self._first[1]:
            return None
        span = moment - self._first[0]
        return (self.done - self._first[1]) / span if span > 0 else None

    def line(self) -> str:
        parts = [f"{self.stage}: {self.done:,}/{self.total:,} {self.unit}"]
        rate = self.rate
        if rate:
            parts.append(f"{rate:,.0f} {self.unit}/s" if rate >= 100 else f"{rate:.3g} {self.unit}/s")
            if self.done < self.total:
                parts.append(f"{_duration((self.total - self.done) / rate)} left")
        if self.rejected:
            parts.append(f"{self.rejected:,} rejected")
        return ", ".join(parts)

    def _show(self, *, last: bool = False) -> None:
        terminal = self.stream.isatty()
        if last and not terminal and self._shown == self._last:
            return
        if not last and self._last - self._shown < (REDRAW_EVERY_S if terminal else PLAIN_EVERY_S):
            return
        self._shown = self._last
        self.stream.write(f"\r\x1b[2K{self.line()}" + ("\n" if last else "") if terminal else f"{self.line()}\n")
        self.stream.flush()

    def close(self) -> None:
        """Writes the last state of the line."""
        self._show(last=True)
        note(self.line())
