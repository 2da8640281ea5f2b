"""`chexray filter` and `chexray privacy audit`: acting on verdicts, and knowing how far they may be believed."""

from __future__ import annotations

from typing import Annotated

import typer

from chexray.cli import options as opt
from chexray.cli.options import console, examples, print_lines, read_config, read_storage, with_image_roots
from chexray.suite_names import PRIVACY

EXAMPLES = examples(
    "chexray privacy audit configs/privacy.yaml --images 200",
    "chexray privacy audit --real train.csv --heldout test.csv --synthetic seeds.csv --encoders pixels,patches",
)


def add_to(app: typer.Typer) -> None:
    example = examples("chexray filter out/privacy-0123456789 --by privacy --output filtered/")
    app.command("filter", epilog=example)(filter_sets)
    group = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Further commands of the privacy suite.")
    group.callback()(_group)
    group.command(epilog=EXAMPLES)(audit)
    app.add_typer(group, name="privacy")


def _group() -> None:
    # A group of one command would otherwise be that command.
    pass


def filter_sets(
    run: Annotated[str, typer.Argument(help="the folder of a run with the privacy suite, local or s3://")],
    by: Annotated[str, typer.Option(help="whose verdicts: privacy")] = PRIVACY,
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME", help="a synthetic set of the run; by default all")
    ] = None,
    output: Annotated[str | None, typer.Option(help="folder or s3:// URL; by default filtered/ in the run's")] = None,
    storage: opt.StorageSetting = None,
    plugin: opt.Plugins = None,
) -> None:
    """Write synthetic sets without the images a run flagged or rejected, and a table of what was dropped and why."""
    from chexray.curation.filtering import filter_run

    lines = []
    for done in filter_run(
        run, by, sets=sets or (), output=output or "", storage=read_storage(storage) if storage else None
    ):
        lines.append(f"{done.name}: {done.n_kept:,} images kept, {done.n_dropped:,} dropped")
        lines += [f"  {n:>6,} dropped: {kind}" for kind, n in done.reasons.items()]
        if done.n_left_out:
            lines.append(f"  {done.n_left_out:,} more rows were not part of the run and are in neither table")
        lines += [
            f"  what is kept: no copy found by {'; '.join(done.judged_by)}",
            *(f"  NOT JUDGED by {line}" for line in done.untested),
            f"  kept     {done.path}",
            f"  dropped  {done.dropped_path}",
            f"  config   {done.config_path}  (chexray run CONFIG {done.flags})",
        ]
    print_lines(
        console(), [*lines, f"measure sensitivity: chexray privacy audit {run.rstrip('/')}/config.yaml --output DIR"]
    )


def audit(
    config: opt.ConfigFile = None,
    images: Annotated[int, typer.Option(min=1, help="training images to plant copies of")] = 100,
    real: opt.Real = None,
    synthetic: opt.Synthetic = None,
    image_root: opt.ImageRoot = None,
    synthetic_image_root: opt.SyntheticImageRoot = None,
    training: opt.Training = None,
    heldout: opt.HeldOut = None,
    reid_weights: opt.ReidWeights = None,
    encoders: opt.Encoders = None,
    output: opt.Output = None,
    name: opt.Name = None,
    limit: opt.Limit = None,
    setting: opt.Setting = None,
    plugin: opt.Plugins = None,
    verbose: opt.Verbose = False,
) -> None:
    """Test the filter itself: on planted copies, on unseen patients, on altered images. Run it again to resume."""
    parsed = read_config(
        config, with_image_roots(synthetic_image_root, setting), reid_weights=reid_weights,
        suite=None if config else PRIVACY, real=real, synthetic=synthetic or None, image_root=image_root,
        training=training, heldout=heldout, encoders=encoders, output=output, name=name, limit=limit,
    )  # fmt: skip
    from chexray.curation.filter_test import audit as audit_filter
    from chexray.report.filter_test import render

    done = audit_filter(parsed, images, verbose=verbose)
    target = console()
    target.print(render(done.table))
    print_lines(target, [f"note: {note}" for note in done.notes])
    print(f"results: {done.uri}")
    raise typer.Exit(done.exit_code)
