"""A stop on request, Ctrl-C or SIGTERM (a preempted pod, `kill`): clean, said in the status, and resumable."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Stop:
    """Whether somebody asked the run to stop. A library that is interrupted may raise an error of its own in place of
    KeyboardInterrupt; `asked` tells that from a defect."""

    def __init__(self) -> None:
        self.asked = False

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM raise KeyboardInterrupt within the block. Does nothing outside the main thread."""

        def interrupt(*_: Any) -> None:
            self.asked = True
            raise KeyboardInterrupt

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def ignore_signals(self) -> None:
        """From here to the end of the block a further signal does nothing, so that the last word is not cut short."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
