"""Rates come from an injected clock; a pipe gets plain lines."""

from __future__ import annotations

import io

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
