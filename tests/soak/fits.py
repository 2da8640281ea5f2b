"""One fit trained by two processes at random offsets, one of them killed now and then; without Ray, so many times.

Each ends with the bits of a training alone; so does a third that comes after them.
"""

from __future__ import annotations

import multiprocessing
import random
import shutil
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

from fixtures.fits import RECIPE, Images, a_fit
from fixtures.fits import run as train

REPETITIONS, QUICK = 100, 20


def run(quick: bool) -> bool:
    """Whether every training had the bits of one alone; prints what was tried how often."""
    from soak._field import Soak

    with Soak("fits") as soak:
        images = Images()
        fit = a_fit(images, recipe=RECIPE)
        started = time.monotonic()
        train([fit], images, soak.folder / "alone")
        seconds, expected = time.monotonic() - started, _kept(soak.folder / "alone" / fit.name)
        tried: Counter[tuple[str, str]] = Counter()
        for number in range(QUICK if quick else REPETITIONS):
            rng, root = random.Random(number), soak.folder / str(number)
            pair = [multiprocessing.get_context("fork").Process(target=train, args=([fit], images, root)) for _ in "ab"]
            pair[0].start()
            time.sleep(rng.uniform(0, seconds))
            pair[1].start()
            killed = rng.random() < 0.5
            if killed:
                time.sleep(rng.uniform(0, seconds))
                pair[rng.randrange(2)].kill()  # nothing when it has ended already
            for process in pair:
                process.join()
            codes = {process.exitcode for process in pair}
            right = codes <= {0, -signal.SIGKILL} and (killed or codes == {0})
            third = images.reads
            train([fit], images, root)
            right &= images.reads == third or killed  # a fit that is committed reads no image
            found = _kept(root / fit.name)
            leftovers = {".tmp"} if killed else set()
            right &= {name: found[name] for name in found if Path(name).suffix not in leftovers} == expected
            tried["one was killed" if killed else "both ended", "same bits" if right else "OTHER BITS"] += 1
            soak.held &= right
            if not right:
                print(f"repetition {number}: {codes}, {sorted(found)}", flush=True)
            else:
                shutil.rmtree(root)
        print("\n| two processes | result | times |\n|---|---|---|")
        for (what, result), n in sorted(tried.items()):
            print(f"| {what} | {result} | {n} |", flush=True)
        return soak.held


def _kept(folder: Path) -> dict[str, Any]:
    """What a fit leaves, but for what the clock wrote."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "history.json"}
