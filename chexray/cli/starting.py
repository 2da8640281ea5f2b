"""`chexray init`: a first config."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from chexray.cli import options as opt
from chexray.cli.options import examples
from chexray.errors import ConfigError

EXAMPLES = examples(
    "chexray init --real test.csv --synthetic generated/",
    "chexray init --real test.csv --training train.csv --synthetic generated.csv --file mine.yaml",
    "chexray init --template privacy",
)


def add_to(app: typer.Typer) -> None:
    app.command(epilog=EXAMPLES)(init)


def init(
    real: opt.Real = None,
    synthetic: opt.Synthetic = None,
    training: opt.Training = None,
    heldout: opt.HeldOut = None,
    output: opt.Output = None,
    template: Annotated[
        str | None, typer.Option(metavar="NAME", help="copy a config that comes with chexray instead")
    ] = None,
    file: Annotated[Path, typer.Option(metavar="FILE", help="the config to write")] = Path("chexray.yaml"),
    force: Annotated[bool, typer.Option("--force", help="replace that file")] = False,
) -> None:
    """Write a run config from what the named sets hold: labels, groups, absolute paths, encoders that load here."""
    from chexray.text import shown

    if file.exists() and not force:
        raise ConfigError(f"{shown(file)} exists already. Name another with --file, or replace it with --force.")
    if template:
        from chexray.drafting import template as read_template

        text, summary = read_template(template), "set its paths"
    else:
        if not real or not synthetic:
            raise ConfigError(
                "init needs sets to look at: give --real and --synthetic (folders or tables), or --template NAME."
            )
        from chexray.drafting import draft

        done = draft(real, synthetic, training, heldout, output=output or "out")
        text, summary = done.text, done.summary
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"{shown(file)} cannot be written ({(error.strerror or '').lower()}). Name another with --file."
        ) from None
    print(f"{shown(file)}: {summary}")
    print(f"next: chexray run {shown(file)}")
