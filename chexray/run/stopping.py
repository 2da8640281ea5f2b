"""A stop on request, Ctrl-C, SIGTERM (a preempted pod, `kill`) or SIGHUP (a lost terminal), and one for want of a
cluster: clean, said in the status, resumable, and over in time even where something hangs."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

UNWIND_S = 10.0
"""From a stop until the process is ended from outside its main thread, which may wait for a storage that hangs."""
LOST_S = 5.0
"""The same once the cluster is lost: there is little to unwind, and its end has taken up to 15 s to notice."""
LAST_WORD_S = 4.0
"""For the last status. With UNWIND_S and LEAVE_S it stays below the 20 s that a stop may take."""
LEAVE_S = 3.0
"""For Python to end once all is said: it waits for threads, which may wait for a storage."""


class Stop:
    """Whether, and why, the run was told to stop. A library that is interrupted may raise an error of its own in place
    of KeyboardInterrupt; `asked` and `error` tell that from a defect.

    last_word: says how the run ended; called when the main thread did not come to it in UNWIND_S. It may hang.
    leave: ends the process; tests pass another.
    """

    def __init__(
        self, last_word: Callable[[], object] = lambda: None, leave: Callable[[int], object] = os._exit
    ) -> None:
        self.asked = False
        self.error: Exception | None = None
        self._last_word, self._leave = last_word, leave
        self._is_over = threading.Event()
        self._stopping = False

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt within the block. Does nothing outside the main thread.

        `nohup` ignores SIGHUP, and so does the block then.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = [signal.SIGINT, signal.SIGTERM]
        numbers += [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN else []
        previous = {number: signal.signal(number, self._interrupt) for number in numbers}
        try:
            yield
        finally:
            self._is_over.set()
            for number, handler in previous.items():
                signal.signal(number, handler)

    def fail(self, error: Exception, code: int) -> None:
        """Ends the block from another thread: `error` is why, and the main thread is interrupted. code: of the process,
        where the main thread does not end in time."""
        if self.asked or self.error is not None:
            return
        self.error = error
        self._end_in_time(code, LOST_S)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def ignore_signals(self) -> None:
        """From here to the end of the block a further signal does nothing, so that the last word is not cut short."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)

    def _interrupt(self, number: int, _: object) -> None:
        if self.error is None:
            self.asked = True
            # Ctrl-C in a notebook or at a prompt ends the run, and never the session around it.
            if number != signal.SIGINT or not _is_interactive():
                self._end_in_time(130, UNWIND_S)
        raise KeyboardInterrupt

    def _end_in_time(self, code: int, seconds: float) -> None:
        """Ends the process unless the block is over within so many seconds."""
        if self._stopping:
            return
        self._stopping = True

        def end() -> None:
            if self._is_over.wait(seconds):
                return
            in_time(self._last_word, LAST_WORD_S)
            self._leave(code)

        threading.Thread(target=end, daemon=True).start()


def in_time(act: Callable[[], object], seconds: float) -> bool:
    """Whether `act` ended within `seconds`; one that hangs is left to itself, in a thread that ends with the process.

    What it raises is raised here.
    """
    raised: list[BaseException] = []

    def run() -> None:
        try:
            act()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if raised:
        raise raised[0]
    return not thread.is_alive()


def _is_interactive() -> bool:
    return hasattr(sys, "ps1") or "ipykernel" in sys.modules
