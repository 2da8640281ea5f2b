"""What a run says: to the error stream, which leaves standard output to the results, and to whoever keeps its log."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from chexray.text import one_line

_listeners: list[Callable[[str], None]] = []


def say(message: str) -> None:
    """One line to the error stream and to the log, whatever the names in it hold."""
    message = one_line(message)
    if sys.stderr is not None:  # a closed one; print would take standard output in its place
        with suppress(OSError, ValueError):
            print(message, file=sys.stderr, flush=True)
    note(message)


def note(message: str) -> None:
    """One line to the log alone."""
    message = one_line(message)
    for listener in list(_listeners):
        listener(message)


@contextmanager
def heard_by(listener: Callable[[str], None]) -> Iterator[None]:
    """Gives `listener` every line said within the block, from any thread."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)
