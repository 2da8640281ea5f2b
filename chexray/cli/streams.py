"""Standard output and error of the command: a reader that left, a closed stream or a full disk stops no run."""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

GONE = (errno.EPIPE, errno.EBADF, errno.ECONNRESET)
"""Whoever was to read it does not want it (`| head -1`): nothing is said of that."""


class Lenient(io.FileIO):
    """A file descriptor that drops what cannot be written; `error` is the first reason."""

    error: OSError | None = None

    def write(self, data: ReadableBuffer, /) -> int:
        if self.error is None:
            try:
                return super().write(data) or 0
            except OSError as error:
                self.error = error
        return len(memoryview(data).cast("B"))


def lenient_streams() -> Lenient | None:
    """Makes both streams lenient, a closed one silent; the one of standard output, or None where it is not ours.

    A descriptor that is closed is taken by the null device, or the next file that is opened would be written to.
    """
    for number, flags in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, flags)
            if null != number:
                os.dup2(null, number)
                os.close(null)
    raw = None
    for name, number in (("stderr", 2), ("stdout", 1)):
        stream = getattr(sys, name)
        if stream is not None and (stream is not getattr(sys, f"__{name}__") or not _is_at(stream, number)):
            continue  # a test or a program around us has put its own there
        if stream is not None:
            with suppress(OSError):
                stream.flush()
        raw = Lenient(number, "w", closefd=False)
        encoding, errors = getattr(stream, "encoding", "utf-8"), getattr(stream, "errors", "backslashreplace")
        by_line = name == "stderr" or raw.isatty()
        text = io.TextIOWrapper(io.BufferedWriter(raw), encoding, errors, line_buffering=by_line)
        setattr(sys, name, text)
    return raw if isinstance(getattr(getattr(sys.stdout, "buffer", None), "raw", None), Lenient) else None


def ended(raw: Lenient | None, code: int) -> int:
    """The exit code of a command that ends with `code`: 2, with a line, where its output could not be written."""
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    if raw is None or raw.error is None or raw.error.errno in GONE:
        return code
    why = raw.error.strerror or type(raw.error).__name__
    print(f"chexray: standard output could not be written ({why}); what a run found is in its folder", file=sys.stderr)
    return code or 2


def _is_at(stream: IO[Any] | None, number: int) -> bool:
    try:
        return stream is not None and stream.fileno() == number
    except (OSError, ValueError, AttributeError):
        return False
