"""`make fuzz`: hostile files against every door of chexray. `python tests/fuzz [--seed N] [--n N] [--kind K] ...`

Images, tables, configs, weights, parts of a feature store and run folders, made hostile or damaged, are given to the
function that reads them, in a process that is watched; a fiftieth goes through the command line as well. Each has to
end in a result, a Reject or one line. Exit code 1 when one does not.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

from fuzz.attempt import kind_module, kinds, random_of  # noqa: E402
from fuzz.fleet import Met, Worker, sandbox_of_run, through_command_line  # noqa: E402
from fuzz.report import failures, refusals, replay, slowest, table  # noqa: E402
from fuzz.sandbox import Sandbox  # noqa: E402

KEPT_PER_FAULT = 3


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python tests/fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--n", type=int, default=10_000, help="inputs over all kinds (default 10,000)")
    parser.add_argument("--kind", action="append", choices=kinds(), help="may be repeated; all by default")
    parser.add_argument("--minutes", type=float, help="stop after so long, each kind after its part")
    parser.add_argument("--cli", type=float, default=0.02, help="share that also goes through the command line")
    parser.add_argument("--only", type=int, help="one input by its number, to repeat a failure")
    parser.add_argument("--through-cli", action="store_true", help="with --only: by the command line")
    parser.add_argument("--keep", type=Path, default=Path("out/fuzz"), help="where inputs that fail are kept")
    parser.add_argument("--messages", action="store_true", help="also the most frequent refusals: are the inputs deep?")
    options = parser.parse_args(arguments)
    chosen = options.kind or kinds()
    if options.only is not None:
        return repeat(chosen[0], options)
    share = {kind: kind_module(kind).SHARE for kind in chosen}
    met: list[Met] = []
    started = time.monotonic()
    for kind in chosen:
        n = round(options.n * share[kind] / sum(share.values()))
        until = None if options.minutes is None else 60 * options.minutes * share[kind] / sum(share.values())
        met += run_kind(kind, range(n), options, until)
    met.sort(key=lambda each: each.kind == "command line")
    print(table(met))
    print(f"\nseed {options.seed}, {len(met):,} inputs in {(time.monotonic() - started) / 60:.1f} min")
    print(failures(met, options.seed) or "no failure")
    print(slowest(met, options.seed))
    if options.messages:
        print(refusals(met))
    return 1 if any(each.faults for each in met) else 0


def run_kind(kind: str, numbers: Sequence[int], options: argparse.Namespace, until_s: float | None) -> list[Met]:
    """Meets the inputs of one kind, in a sandbox of its own, with a new worker whenever one is gone."""
    met: list[Met] = []
    start = time.monotonic()
    kept: dict[str, int] = {}
    with sandbox_of_run() as sandbox:
        worker: Worker | None = None
        for number in numbers:
            if until_s is not None and time.monotonic() - start > until_s:
                break
            if worker is None or not worker.is_alive:
                worker = Worker(options.seed, sandbox)
            found = [worker.meet(kind, number)]
            wanted = random_of(kind, options.seed, number, "cli").random() < options.cli
            if wanted and found[0].command is not None:
                worker = worker if worker.is_alive else Worker(options.seed, sandbox)
                found.append(through_command_line(worker.meet(kind, number, "make"), sandbox))
            for each in found:
                if each.faults:
                    _keep(each, sandbox, options, kept)
            met += found
            shutil.rmtree(sandbox.root / "inputs" / f"{kind}-{number}", ignore_errors=True)
            if sys.stderr.isatty() and number % 50 == 0:
                print(f"\r{kind} {number:,}/{len(numbers):,}", end="", file=sys.stderr, flush=True)
        if worker is not None:
            worker.close()
    n_failed = sum(bool(each.faults) for each in met)
    print(
        f"\r{kind}: {len(met):,} inputs, {n_failed} failed, {time.monotonic() - start:.0f} s",
        file=sys.stderr,
        flush=True,
    )
    return met


def repeat(kind: str, options: argparse.Namespace) -> int:
    """One input again, its files kept, with all that is known of it."""
    with sandbox_of_run() as sandbox:
        worker = Worker(options.seed, sandbox)
        met = worker.meet(kind, options.only, "make" if options.through_cli else "act")
        met = through_command_line(met, sandbox) if options.through_cli else met
        worker.close()
        where = _keep(met, sandbox, options, {})
    print(f"{met.kind} {met.number}: {met.how}: {met.outcome}, {met.seconds:.2f} s, {met.peak / 2**30:.2f} GB")
    print("\n".join([f"  {fault}: {what}" for fault, what in met.faults] or [f"  {met.message!a}"]))
    print(f"  files: {where}")
    return 1 if met.faults else 0


def _keep(met: Met, sandbox: Sandbox, options: argparse.Namespace, kept: dict[str, int]) -> Path:
    """A copy of a failing input, the first few of each fault."""
    kind = met.how.partition(":")[0] if met.kind == "command line" else met.kind
    target = options.keep / f"{kind}-{options.seed}-{met.number}"
    signs = {what.partition(": ")[0][:80] for _, what in met.faults}
    if met.faults and all(kept.get(sign, 0) >= KEPT_PER_FAULT for sign in signs):
        return target
    for sign in signs:
        kept[sign] = kept.get(sign, 0) + 1
    shutil.rmtree(target, ignore_errors=True)
    source = sandbox.root / "inputs" / f"{kind}-{met.number}"
    options.keep.mkdir(parents=True, exist_ok=True)
    if sum(path.lstat().st_size for path in source.rglob("*")) < 50_000_000:
        shutil.copytree(source, target, symlinks=True, ignore_dangling_symlinks=True)
    else:
        target.mkdir()
    (target / "failure.txt").write_text(f"{replay(met, options.seed)}\n{met}\n", errors="backslashreplace")
    return target


if __name__ == "__main__":
    sys.exit(main())
