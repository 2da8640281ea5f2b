"""`make soak`: what only time shows. `python tests/soak [PART ...] [--quick]`.

A part is a module of this folder with `run(quick: bool) -> bool`: it does what a cluster does to runs over a day,
prints a table, and returns whether everything held. Deterministic slices of the same are in the test suite.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))


def parts() -> list[str]:
    """Names of all parts, in alphabetical order."""
    return sorted(path.stem for path in HERE.glob("[a-z]*.py"))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python tests/soak", description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"any of {', '.join(parts())}; all by default")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions: minutes in place of an hour")
    options = parser.parse_args()
    unknown = [part for part in options.parts if part not in parts()]
    if unknown:
        parser.error(f"there is no part {unknown[0]!r}; there are {', '.join(parts())}")
    held = True
    for part in options.parts or parts():
        started = time.monotonic()
        print(f"## {part}\n", flush=True)
        try:
            held &= importlib.import_module(f"soak.{part}").run(options.quick)
        except RuntimeError as error:  # what was to hold cannot even be seen
            print(f"{part}: {error}", flush=True)
            held = False
        print(f"\ntook {time.monotonic() - started:.0f} s\n", flush=True)
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
