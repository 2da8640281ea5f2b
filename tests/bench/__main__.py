"""`make bench`: what chexray costs, beside what it replaces. `python tests/bench [PART ...] [--quick]`.

Everything that is compared runs in this one call, in turns, on the same images and networks; seconds belong to the
machine and to its other load, ratios travel.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

PARTS = ("upstream", "end-to-end", "ray", "pairwise", "search", "training", "scale")


def main() -> int:
    from bench import end_to_end, pairwise, ray_cost, scale, search, training, upstream_bench
    from bench.tables import TARGETS, machine, table

    parser = argparse.ArgumentParser(prog="python tests/bench", description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"any of {', '.join(PARTS)}; all by default")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--quick", action="store_const", const="quick", dest="size", help="two to three minutes in all")
    how.add_argument("--full", action="store_const", const="full", dest="size", help="RAD-DINO at its real size")
    parser.add_argument("--size", choices=["tiny", "try", "quick", "default", "full"], help=argparse.SUPPRESS)
    parser.set_defaults(size="default")
    options = parser.parse_args()
    unknown = [part for part in options.parts if part not in PARTS]
    if unknown:
        parser.error(f"there is no part {unknown[0]!r}; there are {', '.join(PARTS)}")

    started = time.monotonic()
    modules = (upstream_bench, end_to_end, ray_cost, pairwise, search, training, scale)
    measure = {part: module.run for part, module in zip(PARTS, modules, strict=True)}
    print(f"chexray bench ({options.size}): {machine()}\n", flush=True)
    rows, agrees = [], True
    for part in options.parts or PARTS:
        print(f"## {part}\n", flush=True)
        report = measure[part](options.size)
        rows += report.rows
        agrees &= report.agrees
        print(report.text + "\n", flush=True)
    print(f"## against the targets\n\n{table(TARGETS, rows)}\n\ntook {time.monotonic() - started:.0f} s")
    return 0 if agrees else 1


if __name__ == "__main__":
    sys.exit(main())
