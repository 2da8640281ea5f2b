"""`chexray train`: the utility suite alone."""

from __future__ import annotations

from typing import Annotated

import typer

from chexray.cli import options as opt
from chexray.cli.options import examples, read_config, with_image_roots
from chexray.cli.runs import all_problems, plan_or_run
from chexray.suite_names import UTILITY

EXAMPLES = examples(
    "chexray train configs/utility.yaml",
    "chexray train --real test.csv --training train.csv --synthetic generated.csv --model resnet50 --seeds 3",
    "chexray train CONFIG --settings real,synthetic,mixed_25 --set utility.epochs=5 --dry-run",
)
Training = Annotated[str | None, typer.Option(help="the real training set")]


def add_to(app: typer.Typer) -> None:
    app.command(epilog=EXAMPLES)(train)


def train(
    config: opt.ConfigFile = None,
    real: opt.Real = None,
    training: Training = None,
    synthetic: opt.Synthetic = None,
    image_root: opt.ImageRoot = None,
    synthetic_image_root: opt.SyntheticImageRoot = None,
    settings: Annotated[
        str | None, typer.Option(help="real, synthetic, mixed, mixed_25, augmented, pretrain_synthetic_finetune_real")
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="trainings of each setting")] = None,
    model: Annotated[str | None, typer.Option(help="a timm network, such as resnet50")] = None,
    weights: Annotated[str | None, typer.Option(help="pretrained, none, a hub id, a path or a URL")] = None,
    epochs: Annotated[int | None, typer.Option(help="length of every training")] = None,
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
    """Train classifiers on real and synthetic images and test them on real ones. Run it again to resume."""
    asked = {"settings": settings, "seeds": seeds, "epochs": epochs}
    network = {"name": model, "weights": weights}
    given = [f"utility.{key}={value}" for key, value in asked.items() if value is not None]
    given += [f"utility.model.{key}={value}" for key, value in network.items() if value is not None]
    with all_problems(config):
        parsed = read_config(
            config, [*given, *with_image_roots(synthetic_image_root, setting)], suite=UTILITY,
            real=real, training=training, synthetic=synthetic or None, image_root=image_root,
            output=output, name=name, limit=limit,
        )  # fmt: skip
        plan_or_run(parsed, dry_run=dry_run, once=once, verbose=verbose, fail_on=fail_on)
