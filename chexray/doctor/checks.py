"""What the doctor looks at, in order. Each check stands alone: one that breaks or hangs is one line."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

from chexray.config import RunConfig
from chexray.doctor import cluster, inputs, machine, storage, versions, weights
from chexray.doctor.case import Case, Check, Look, fail
from chexray.errors import ChexrayError

__all__ = ["Check", "examine", "looks", "perform"]


def examine(config: RunConfig | None = None) -> Iterator[Check]:
    """Every check of a config, or without one those of this machine, each as soon as it has ended."""
    for look in looks(Case(config)):
        yield perform(look)


def looks(case: Case) -> list[Look]:
    """The checks of a case. What later ones need (who answers, how many images) earlier ones leave in the case."""
    general = [*versions.looks(case), *machine.looks(case)]
    if case.config is None:
        return [*general, *weights.default_looks(), *cluster.looks(case)]
    # The pool is last: its size depends on how many images there are.
    return [
        *general,
        *storage.looks(case),
        *inputs.looks(case),
        *weights.looks(case),
        *cluster.looks(case),
        *cluster.pool_looks(case),
    ]


def perform(look: Look) -> Check:
    """The result of one check, at the latest after `look.within_s`.

    In a thread of its own, since a dead network file system answers no call and heeds no timeout.
    """
    found: list[Check] = []

    def run() -> None:
        try:
            found.append(look.at())
        except ChexrayError as error:  # its line names the next move already
            found.append(fail(str(error)))
        except BaseException as error:
            kind = type(error).__name__
            found.append(fail(f"the check itself broke off ({kind}).", "Report it as a defect of chexray."))

    thread = threading.Thread(target=run, daemon=True, name=f"chexray-doctor {look.name}")
    thread.start()
    thread.join(look.within_s)
    check = found[0] if found else fail(f"no answer within {look.within_s:g} s.", look.when_late)
    return replace(check, name=look.name)
