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
MOMENTS = 512
"""Updates that are remembered; beyond it every second one is forgotten."""


def _duration(seconds: float) -> str:
    seconds = int(seconds + 0.5)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


@dataclass
class Progress:
    """Counts units done of `total` in a stage.

    The rate is that of the later half of what is done: it starts with the first unit, so that start-up does not dilute
    it, and forgets a slow beginning, while workers were still coming. `work`: what all units cost, in any measure,
    where they cost unlike; the time left then follows the work done and not the number of units.
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
    work: float = 0.0
    worked: float = 0.0
    _seen: list[tuple[float, int, float]] = field(default_factory=list)
    _last: float = 0.0
    _shown: float = float("-inf")

    def __post_init__(self) -> None:
        meter().watch(self)

    def advance(self, done: int, rejected: int = 0, work: float | None = None) -> None:
        """work: of these units, in the measure of the whole; by default as many as they are."""
        self._last = self.clock()
        self.done += done
        self.rejected += rejected
        self.worked += done if work is None else work
        self._seen.append((self._last, self.done, self.worked))
        if len(self._seen) > MOMENTS:
            self._seen = self._seen[::2]
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
        since = self._since()
        if since is None or moment <= since[0]:
            return None
        return (self.done - since[1]) / (moment - since[0])

    @property
    def left_s(self) -> float | None:
        """Seconds left, at the pace of late; None until there is one."""
        since = self._since()
        if since is None or self._last <= since[0] or self.worked <= since[2]:
            return None
        pace = (self.worked - since[2]) / (self._last - since[0])
        return max(0.0, (self.work or self.total) - self.worked) / pace

    def _since(self) -> tuple[float, int, float] | None:
        """The latest moment at which at most half of the work of now was done, and not before the first."""
        earlier = [seen for seen in self._seen if seen[1] < self.done]
        if not earlier:
            return None
        return next((seen for seen in reversed(earlier) if 2 * seen[2] <= self.worked), earlier[0])

    def line(self) -> str:
        parts = [f"{self.stage}: {self.done:,}/{self.total:,} {self.unit}"]
        rate = self.rate
        if rate:
            parts.append(f"{rate:,.0f} {self.unit}/s" if rate >= 100 else f"{rate:.3g} {self.unit}/s")
            if self.done < self.total and (left := self.left_s) is not None:
                parts.append(f"{_duration(left)} left")
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
