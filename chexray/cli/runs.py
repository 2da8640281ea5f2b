"""`chexray run` and `chexray validate`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from chexray.cli import options as opt
from chexray.cli.options import console, examples, print_lines, read_config, with_image_roots
from chexray.errors import ConfigProblems
from chexray.text import one_line, shown

if TYPE_CHECKING:
    import pandas as pd

    from chexray.config import RunConfig

EXAMPLES = examples(
    "chexray init --real test.csv --synthetic generated/    # writes chexray.yaml; then: chexray run chexray.yaml",
    "chexray run --real test.csv --synthetic generated.csv --encoders rad_dino --metrics fid,kid,prdc --output out/",
    "chexray run CONFIG --set encode.batch_size=64 --limit 500 --dry-run",
)


def add_to(app: typer.Typer) -> None:
    app.command(epilog=EXAMPLES)(run)
    app.command()(validate)


def run(
    config: opt.ConfigFile = None,
    real: opt.Real = None,
    synthetic: opt.Synthetic = None,
    image_root: opt.ImageRoot = None,
    synthetic_image_root: opt.SyntheticImageRoot = None,
    training: opt.Training = None,
    heldout: opt.HeldOut = None,
    suite: Annotated[str | None, typer.Option(help="fidelity, privacy, utility, or several: fidelity,privacy")] = None,
    reid_weights: opt.ReidWeights = None,
    encoders: opt.Encoders = None,
    metrics: Annotated[str | None, typer.Option(help="names, comma-separated (chexray ls metrics)")] = None,
    subsets: Annotated[str | None, typer.Option(help="all, findings, or columns such as sex,view")] = None,
    protocol: Annotated[str | None, typer.Option(help="chexray ls protocols")] = None,
    output: opt.Output = None,
    name: opt.Name = None,
    limit: opt.Limit = None,
    setting: opt.Setting = None,
    plugin: opt.Plugins = None,
    dry_run: opt.DryRun = False,
    once: opt.Once = False,
    verbose: opt.Verbose = False,
    fail_on: opt.FailOn = None,
) -> None:
    """Encode both sets once and compute every number asked for. Run it again to resume."""
    with all_problems(config):
        parsed = read_config(
            config, with_image_roots(synthetic_image_root, setting), reid_weights=reid_weights,
            real=real, synthetic=synthetic or None, image_root=image_root, training=training, heldout=heldout,
            suite=suite, encoders=encoders, metrics=metrics, subsets=subsets, protocol=protocol,
            output=output, name=name, limit=limit,
        )  # fmt: skip
        plan_or_run(parsed, dry_run=dry_run, once=once, verbose=verbose, fail_on=fail_on)


def validate(
    config: Annotated[Path, typer.Argument(help="a YAML run config")],
    setting: opt.Setting = None,
    plugin: opt.Plugins = None,
) -> None:
    """Check a config, its sets, weights and output, without starting anything. All that is wrong is said at once."""
    with all_problems(config):
        _print_plan(read_config(config, setting), stores=False)
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


def plan_or_run(
    config: RunConfig, *, dry_run: bool, once: bool, verbose: bool, fail_on: Sequence[str] | None = None
) -> None:
    """The plan of a config and what of it is done already; or the run, its tables, its gates and its exit code."""
    from chexray.cli.gates import prepared

    gates = prepared(fail_on, config)
    if dry_run:
        _print_plan(config, stores=True)
        return
    from chexray.plan import make_storage
    from chexray.results.judged_by import without_numbers
    from chexray.run.evaluation import evaluate

    shown: list[pd.DataFrame] = []

    def show(_: str, frame: pd.DataFrame) -> None:
        """The tables of a suite that has ended."""
        shown.append(frame)
        _print_tables(frame)

    try:
        finished = evaluate(config, verbose=verbose, once=once, on_suite=show)
    except BaseException:
        for frame in shown:  # what ended before the failure is not lost
            _print_last_page(frame, [])
        raise
    if not shown:
        _print_tables(finished.results)
    _print_last_page(finished.results, finished.notes)
    print(f"results: {finished.uri}", flush=True)
    empty = without_numbers(finished.results)
    print_lines(console(), [f"NOTHING COMPUTED: {line}" for line in empty])
    broken = gates.exit_code(finished.uri, finished.results, make_storage(config.storage))
    raise typer.Exit(broken or finished.exit_code or int(bool(empty)))


def _print_plan(config: RunConfig, *, stores: bool) -> None:
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
        images = plan.images
        for label, (_, spec) in plan.encoders.items():
            wanted = images.keys_for(label)
            left = pending(wanted, store.done(spec))
            lines.append(f"pending    {label}: {len(left):,} of {len(wanted):,} images to encode")
    print_lines(console(), lines)


def _print_tables(frame: pd.DataFrame) -> None:
    from chexray.report.console import render

    for part in render(frame):
        console().print(part)
    sys.stdout.flush()


def _print_last_page(frame: pd.DataFrame, notes: list[str]) -> None:
    """What the rows say of each set, and what to read with care."""
    from chexray.report.console import last_page

    console().print(last_page(frame))
    print_lines(console(), [f"note: {one_line(note)}" for note in notes])
    sys.stdout.flush()
