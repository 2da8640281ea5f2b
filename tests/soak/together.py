"""Two runs on one output at once, at random offsets: of two generators, as one job a generator has it, or of one.

Both must end well, and what each leaves must be what it leaves alone: results, tables, features, classifiers.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

from soak._field import GENERATORS, Attempt, Field, Soak, differences, store_differences, the_run

REPETITIONS, QUICK = 20, 2
OFFSET = 0.8
"""Of the time that a run takes alone, the largest by which the second starts later."""


def run(quick: bool) -> bool:
    """Whether all repetitions were right; prints one row each."""
    with Soak("together") as soak:
        field = Field.made(soak.folder / "field")
        alone, seconds = {}, 0.0
        for name in GENERATORS:
            alone[name] = soak.folder / f"alone-{name}"
            seconds = soak.completed(field.config(name, alone[name]))
        print(
            f"\nalone a run takes {seconds:.0f} s here\n\n| # | runs | offset | took | result |\n|---|---|---|---|---|"
        )
        for number in range(QUICK if quick else REPETITIONS):
            names = GENERATORS if number % 2 == 0 else ("one", "one")
            offset = random.Random(number).uniform(0, OFFSET * seconds)
            started = time.monotonic()
            output = soak.folder / f"both-{number}"
            wrong = _both(soak, field, names, output, offset, alone)
            said = "right" if not wrong else "WRONG: " + "; ".join(wrong[:5])
            took = time.monotonic() - started
            soak.row(number + 1, " + ".join(names), f"{offset:.1f} s", f"{took:.0f} s", said, wrong=bool(wrong))
            if not wrong:
                soak.drop(output)
        return soak.held


def _both(
    soak: Soak, field: Field, names: tuple[str, ...], output: Path, offset: float, alone: dict[str, Path]
) -> list[str]:
    """What is wrong after both runs; one that Ray did not start on a busy machine is started again, and counted."""
    attempts = []
    for name in names:
        attempts.append((name, Attempt(field.config(name, output), soak.mark)))
        if len(attempts) < len(names):
            time.sleep(offset)
    wrong = []
    for name, attempt in attempts:
        while (code := attempt.ends()) and attempt.did_not_start and soak.may_try_again():
            attempt = Attempt(field.config(name, output), soak.mark)
        if code:
            wrong.append(f"{name} ended with {code}: {attempt.says}")
    if wrong:
        return wrong
    for name in dict.fromkeys(names):
        wrong += [f"{name}: {what}" for what in differences(the_run(output, name), the_run(alone[name], name))]
    return wrong + store_differences(output, [alone[name] for name in dict.fromkeys(names)])
