"""A run whose driver is killed (SIGKILL) at random instants, again and again, and started again each time at once.

Ten chains of five kills; then the run is let end. What it leaves must be what an undisturbed run leaves, to the bit.
"""

from __future__ import annotations

import json
import random
import subprocess
import time
from collections import Counter
from pathlib import Path

from soak._field import Attempt, Field, Soak, differences, store_differences, the_run

CHAINS, KILLS = 10, 5
QUICK = 1


def run(quick: bool) -> bool:
    """Whether every chain was right at its end; prints one row each, and in which states the kills fell."""
    with Soak("kills") as soak:
        field = Field.made(soak.folder / "field")
        alone = soak.folder / "alone"
        seconds = soak.completed(field.config("one", alone))
        print(f"\nundisturbed the run takes {seconds:.0f} s here\n")
        print("| # | killed after | took | result |\n|---|---|---|---|", flush=True)
        states: Counter[str] = Counter()
        for number in range(QUICK if quick else CHAINS):
            output, started = soak.folder / f"chain-{number}", time.monotonic()
            instants = _killed(soak, field, output, random.Random(number), seconds, states)
            soak.completed(field.config("one", output))
            wrong = differences(the_run(output, "one"), the_run(alone, "one"))
            wrong += store_differences(output, [alone], killed=True)
            said = "same bits" if not wrong else "OTHER: " + "; ".join(wrong[:5])
            took = time.monotonic() - started
            soak.row(number + 1, ", ".join(f"{at:.0f} s" for at in instants), f"{took:.0f} s", said, wrong=bool(wrong))
            if not wrong:
                soak.drop(output)
        total = sum(states.values())
        print(f"\n{total} kills: " + ", ".join(f"{n} while {state}" for state, n in states.most_common()), flush=True)
        return soak.held and total > 0


def _killed(
    soak: Soak, field: Field, output: Path, rng: random.Random, seconds: float, states: Counter[str]
) -> list[float]:
    """Starts the run and kills its driver, KILLS times; seconds after which. One that ends before is no kill."""
    instants: list[float] = []
    tries = 0
    while len(instants) < KILLS and tries < 4 * KILLS:
        tries += 1
        after = rng.uniform(0, seconds)
        attempt = Attempt(field.config("one", output), soak.mark)
        try:
            code = attempt.process.wait(after)
        except subprocess.TimeoutExpired:
            states[_state(output)] += 1
            attempt.kill()
            instants.append(after)
            continue
        if code and not (attempt.did_not_start and soak.may_try_again()):
            raise RuntimeError(f"the run ended by itself with {code}: {attempt.says}")
    return instants


def _state(output: Path) -> str:
    for file in output.glob("run-*/status.json"):
        state = json.loads(file.read_text())["state"]
        return f"{state} (a second run)" if state == "done" else state
    return "starting"
