"""`chexray run` and `chexray validate`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from chexray.cli.options import (
    ConfigFile,
    DryRun,
    Encoders,
    FailOn,
    HeldOut,
    ImageRoot,
    Limit,
    Once,
    Output,
    Plugins,
    Real,
    ReidWeights,
    Setting,
    Synthetic,
    SyntheticImageRoot,
    Training,
    Verbose,
    console,
    examples,
    print_lines,
    read_config,
    with_image_roots,
)
from chexray.errors import ConfigProblems
from chexray.text import one_line, shown

EXAMPLES = examples(
    "chexray init --real test.csv --synthetic generated/    # writes chexray.yaml; then: chexray run chexray.yaml",
    "chexray run --real test.csv --synthetic generated.csv --encoders rad_dino --metrics fid,kid,prdc --output out/",
    "chexray run CONFIG --set encode.batch_size=64 --limit 500 --dry-run",
)


def add_to(app: typer.Typer) -> None:
    app.command(epilog=EXAMPLES)(run)
    app.command()(validate)


def run(
    config: ConfigFile = None,
    real: Real = None,
    synthetic: Synthetic = None,
    image_root: ImageRoot = None,
    synthetic_image_root: SyntheticImageRoot = None,
    training: Training = None,
    heldout: HeldOut = None,
    suite: Annotated[str | None, typer.Option(help="fidelity, privacy, utility, or several: fidelity,privacy")] = None,
    reid_weights: ReidWeights = None,
    encoders: Encoders = None,
    metrics: Annotated[str | None, typer.Option(help="names, comma-separated (chexray ls metrics)")] = None,
    subsets: Annotated[str | None, typer.Option(help="all, findings, or columns such as sex,view")] = None,
    protocol: Annotated[str | None, typer.Option(help="chexray ls protocols")] = None,
    output: Output = None,
    name: Annotated[str | None, typer.Option(help="what the run is called")] = None,
    limit: Limit = None,
    setting: Setting = None,
    plugin: Plugins = None,
    dry_run: DryRun = False,
    once: Once = False,
    verbose: Verbose = False,
    fail_on: FailOn = None,
) -> None:
    """Encode both sets once and compute every number asked for. Run it again to resume."""
    flags = {
        "real": real,
        "synthetic": synthetic or None,
        "image_root": image_root,
        "training": training,
        "heldout": heldout,
        "suite": suite,
        "encoders": encoders,
        "metrics": metrics,
        "subsets": subsets,
        "protocol": protocol,
        "output": output,
        "name": name,
        "limit": limit,
    }
    with all_problems(config):
        parsed = read_config(config, flags, with_image_roots(synthetic_image_root, setting), reid_weights=reid_weights)
        plan_or_run(parsed, dry_run=dry_run, once=once, verbose=verbose, fail_on=fail_on)


def validate(
    config: Annotated[Path, typer.Argument(help="a YAML run config")],
    setting: Setting = None,
    plugin: Plugins = None,
) -> None:
    """Check a config, its sets, weights and output, without starting anything. All that is wrong is said at once."""
    with all_problems(config):
        _print_plan(read_config(config, {}, setting), stores=False)
    print("valid")


@contextmanager
def all_problems(path: Path | None) -> Iterator[None]:
    """Adds to what is wrong with the keys of a config what is wrong with the sets, encoders and metrics it names."""
    try:
        yield
    except ConfigProblems as error:
        from chexray.plan import other_problems

        others = other_problems(error.rest) if error.rest is not None else []
        raise ConfigProblems(shown(path or error.where), [*error.problems, *others]) from None


def plan_or_run(config: Any, *, dry_run: bool, once: bool, verbose: bool, fail_on: Sequence[str] | None = None) -> None:
    """The plan of a config and what of it is done already; or the run, its tables, its gates and its exit code."""
    from chexray.cli.gates import prepared

    gates = prepared(fail_on, config)
    if dry_run:
        _print_plan(config, stores=True)
        return
    from chexray.evaluation import evaluate
    from chexray.plan import make_storage
    from chexray.results.untested import without_numbers

    shown: list[str] = []

    def show(suite: str, frame: Any) -> None:
        """The tables of a suite that has ended; what to note of it now, where other suites are still to come."""
        shown.append(suite)
        _print_results(frame, is_last=len(shown) == len(config.suite))

    finished = evaluate(config, verbose=verbose, once=once, on_suite=show)
    if not shown:
        _print_results(finished.results, is_last=True)
    _print_summary(finished.results, finished.notes)
    print(f"results: {finished.uri}", flush=True)
    empty = without_numbers(finished.results)
    print_lines(console(), [f"NOTHING COMPUTED: {line}" for line in empty])
    broken = gates.exit_code(finished.uri, finished.results, make_storage(config.storage))
    raise typer.Exit(broken or finished.exit_code or int(bool(empty)))


def _print_plan(config: Any, *, stores: bool) -> None:
    """What a run would do. stores: also what of it is done already."""
    from chexray.plan import make_plan
    from chexray.storage import is_remote

    plan = make_plan(config)
    for place in dict.fromkeys((plan.run_uri, plan.store_uri)):
        if is_remote(place):  # only writing shows whether the credentials reach so far
            plan.storage.check_writable(place)
    lines = [*plan.describe(), *(f"note       {one_line(note)}" for note in plan.notes)]
    if stores:
        from chexray.engine.features import FeatureStore, pending

        store = FeatureStore(plan.store_uri, plan.storage)
        for label, (_, spec) in plan.encoders.items():
            left = pending(plan.wanted[label], store.done(spec))
            lines.append(f"pending    {label}: {len(left):,} of {len(plan.wanted[label]):,} images to encode")
    print_lines(console(), lines)


def _print_results(frame: Any, *, is_last: bool) -> None:
    """The tables of a run or a suite; and its summary, where another suite may yet fail before the last one."""
    from chexray.results.table import render

    target = console()
    for part in render(frame):
        target.print(part)
    if not is_last:
        _print_summary(frame, [])
    sys.stdout.flush()


def _print_summary(frame: Any, notes: list[str]) -> None:
    """What must not be overlooked."""
    from chexray.results.table import summary_lines

    print_lines(console(), [*summary_lines(frame), *(f"note: {one_line(note)}" for note in notes)])
