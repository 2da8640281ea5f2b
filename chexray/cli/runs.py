"""`chexray run` and `chexray validate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from chexray.cli.options import (
    ConfigFile,
    DryRun,
    Encoders,
    HeldOut,
    Limit,
    Once,
    Output,
    Plugins,
    Real,
    ReidWeights,
    Setting,
    Synthetic,
    Training,
    Verbose,
    console,
    print_lines,
    read_config,
)
from chexray.text import one_line

EXAMPLES = (
    "Examples: chexray run configs/quickstart.yaml | "
    "chexray run --real test.csv --synthetic generated.csv --encoders rad_dino --metrics fid,kid,prdc --output out/ | "
    "chexray run CONFIG --set encode.batch_size=64 --limit 500 --dry-run"
)


def add_to(app: typer.Typer) -> None:
    app.command(epilog=EXAMPLES)(run)
    app.command()(validate)


def run(
    config: ConfigFile = None,
    real: Real = None,
    synthetic: Synthetic = None,
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
) -> None:
    """Encode both sets once and compute every number asked for. Run it again to resume."""
    flags = {
        "real": real,
        "synthetic": synthetic or None,
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
    parsed = read_config(config, flags, setting, reid_weights=reid_weights)
    plan_or_run(parsed, dry_run=dry_run, once=once, verbose=verbose)


def validate(
    config: Annotated[Path, typer.Argument(help="a YAML run config")],
    setting: Setting = None,
    plugin: Plugins = None,
) -> None:
    """Check a config, its manifests and weights, without starting anything."""
    _print_plan(read_config(config, {}, setting), stores=False)
    print("valid")


def plan_or_run(config: Any, *, dry_run: bool, once: bool, verbose: bool) -> None:
    """The plan of a config and what of it is done already; or the run, its tables and its exit code."""
    if dry_run:
        _print_plan(config, stores=True)
        return
    from chexray.evaluation import evaluate

    finished = evaluate(config, verbose=verbose, once=once)
    _print_results(finished.results, finished.notes)
    print(f"results: {finished.uri}")
    raise typer.Exit(finished.exit_code)


def _print_plan(config: Any, *, stores: bool) -> None:
    """What a run would do. stores: also what of it is done already."""
    from chexray.plan import make_plan

    plan = make_plan(config)
    lines = [*plan.describe(), *(f"note       {one_line(note)}" for note in plan.notes)]
    if stores:
        from chexray.engine.features import FeatureStore, pending

        store = FeatureStore(plan.store_uri, plan.storage)
        for label, (_, spec) in plan.encoders.items():
            left = pending(plan.wanted[label], store.done(spec))
            lines.append(f"pending    {label}: {len(left):,} of {len(plan.wanted[label]):,} images to encode")
    print_lines(console(), lines)


def _print_results(frame: Any, notes: list[str]) -> None:
    """The tables of a run, then what must not be overlooked."""
    from chexray.results.table import render, summary_lines

    target = console()
    for part in render(frame):
        target.print(part)
    print_lines(target, [*summary_lines(frame), *(f"note: {one_line(note)}" for note in notes)])
