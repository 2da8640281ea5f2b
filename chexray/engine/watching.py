"""What the driver watches while others work: the folders a training commits to, and the head of the cluster."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from chexray.engine.progress import Progress
from chexray.errors import ChexrayError, ResourceError
from chexray.log import say
from chexray.utility.loop.checkpointing import Folder
from chexray.utility.loop.stored import RATES

HEAD_EVERY_S, HEAD_TIMEOUT_S, HEAD_MISSES = 3.0, 2.0, 3
"""A head that refuses three connections in a row, within 15 s, is gone. Ray itself waits for 60 s, and then ends the
driver without a word. A busy head still takes connections: the system does that for it."""


@contextlib.contextmanager
def head_watched(
    on_loss: Callable[[ResourceError], None], *, knock: Callable[[], None] | None = None, every: float = HEAD_EVERY_S
) -> Iterator[None]:
    """Calls `on_loss` once, from another thread, when the head of the connected cluster is gone.

    knock: raises OSError where the head takes no connection; tests pass another.
    """
    address = ""
    if knock is None:
        import ray

        address = ray.get_runtime_context().gcs_address

    def reach() -> None:
        host, _, port = address.rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), timeout=HEAD_TIMEOUT_S).close()

    over = threading.Event()

    def watch() -> None:
        missed = 0
        while not over.wait(every):
            try:
                (knock or reach)()
                missed = 0
            except OSError as error:
                missed += 1
                why = str(error)
            if missed >= HEAD_MISSES and not over.is_set():
                on_loss(
                    ResourceError(
                        f"the head of the Ray cluster{f' at {address}' if address else ''} is gone ({why}): it was "
                        "ended, restarted or cut off. Start it again, or wait until it is back; the same command "
                        "resumes, what is committed stays."
                    )
                )
                return

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        over.set()


@contextlib.contextmanager
def watched(folders: Sequence[Folder], progress: Progress, *, every: float) -> Iterator[None]:
    """Shows epochs as they are committed, and a line for each fit that is done. every: seconds between two looks."""
    over = threading.Event()

    def watch() -> None:
        seen = 0
        for folder in folders:
            fit, start = folder.fit, seen
            while True:
                last = over.is_set()
                # What is being written or cannot be reached now is looked at again; the run itself notices failures.
                with contextlib.suppress(ChexrayError, ValueError):
                    history, done, failed = folder.history(), folder.is_done, bool(folder.failure)
                    n = max(1, fit.recipe.epochs) if done or failed else min(len(history), fit.recipe.epochs)
                    if start + n > seen:
                        progress.advance(start + n - seen)
                        seen = start + n
                    if done:
                        say(f"trained {fit.title}{summary_of(history, fit.head.score)}")
                    if done or failed:
                        break
                if last:
                    return
                over.wait(every)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
        progress.close()


def summary_of(history: list[dict[str, Any]], score: str) -> str:
    """`: epoch 7 of 12 is best, validation AUROC 0.874; 312 images/s, input could give 45,000`. score: of the head."""
    last = history[-1] if history else {}
    if (best := last.get(f"best_{score}")) is None:
        return ""
    images = sum(row["images"] for row in history)
    seconds, busy = (sum(row["images"] / row[key] for row in history if row[key]) for key in RATES)
    rates = f"; {images / seconds:,.0f} images/s" if seconds else ""
    rates += f", the input could give {images / busy:,.0f}" if seconds and busy else ""
    return f": epoch {last['best_epoch']} of {len(history)} is best, validation {score.upper()} {best:.3f}{rates}"
