"""What the doctor looks at, in order. Each check stands alone: one that breaks or hangs is one line."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

from chexray.config import RunConfig
from chexray.doctor import cluster, inputs, machine, storage, versions, weights
from chexray.doctor.case import Case, Check, PendingCheck, fail
from chexray.errors import ChexrayError

__all__ = ["Check", "examine", "pending", "perform"]


def examine(config: RunConfig | None = None) -> Iterator[Check]:
    """Every check of a config, or without one those of this machine, each as soon as it has ended."""
    for waiting in pending(Case(config)):
        yield perform(waiting)


def pending(case: Case) -> list[PendingCheck]:
    """The checks of a case. What later ones need (who answers, how many images) earlier ones leave in the case."""
    general = [*versions.pending(case), *machine.pending(case)]
    if case.config is None:
        return [*general, *weights.default_pending(), *cluster.pending(case)]
    # The pool is last: its size depends on how many images there are.
    return [
        *general,
        *storage.pending(case),
        *inputs.pending(case),
        *weights.pending(case),
        *cluster.pending(case),
        *cluster.pool_pending(case),
    ]


def perform(waiting: PendingCheck) -> Check:
    """The result of one check, at the latest after `waiting.within_s`.

    In a thread of its own, since a dead network file system answers no call and heeds no timeout.
    """
    found: list[Check] = []

    def run() -> None:
        try:
            found.append(waiting.at())
        except ChexrayError as error:  # its line names the next move already
            found.append(fail(str(error)))
        except BaseException as error:
            kind = type(error).__name__
            found.append(fail(f"the check itself failed ({kind}).", "Report it as a defect of chexray."))

    thread = threading.Thread(target=run, daemon=True, name=f"chexray-doctor {waiting.name}")
    thread.start()
    thread.join(waiting.within_s)
    check = found[0] if found else fail(f"no answer within {waiting.within_s:g} s.", waiting.when_late)
    return replace(check, name=waiting.name)
