"""What commands share: the flags that name sets and settings, how they become a config, and the console."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from chexray.errors import ConfigError
from chexray.text import printable

ConfigFile = Annotated[Path | None, typer.Argument(metavar="CONFIG", help="a YAML run config; flags override it")]
Real = Annotated[str | None, typer.Option(help="table, folder or Parquet of real images, local or s3://")]
Synthetic = Annotated[list[str] | None, typer.Option(help="the same for synthetic ones; may be repeated")]
Training = Annotated[
    str | None, typer.Option(help="what the generator learned from, if not --real; utility: to train on")
]
HeldOut = Annotated[str | None, typer.Option(help="privacy: real images of other patients, the null")]
ReidWeights = Annotated[str | None, typer.Option(help="checkpoint of the siamese_reid encoder")]
Encoders = Annotated[str | None, typer.Option(help="names, comma-separated (chexray ls encoders)")]
Output = Annotated[str | None, typer.Option(help="folder or s3:// URL for results and features")]
Limit = Annotated[int | None, typer.Option(help="at most this many images of each set")]
Setting = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override a setting, e.g. encode.batch_size=64")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="check everything, print the plan, start nothing")]
Once = Annotated[bool, typer.Option("--once", help="show a run that is done already instead of computing it again")]
Verbose = Annotated[bool, typer.Option("--verbose", help="let Ray talk")]


def read_config(
    path: Path | None, flags: dict[str, Any], settings: list[str] | None, *, reid_weights: str | None = None
) -> Any:
    """The RunConfig of a file, flags (those of value None were not given) and `--set` overrides."""
    from chexray.config import parse_config, read_yaml, with_reid_weights
    from chexray.config.reading import default_encoders
    from chexray.config.secrets import refuse_in_location

    if path:
        refuse_in_location(str(path), "CONFIG")
    flags = {key: value for key, value in flags.items() if value is not None}
    data = read_yaml(path) if path else {}
    if not path and not {"real", "synthetic"} <= set(flags):
        raise ConfigError("nothing to run: give a config file, or --real and --synthetic. See chexray run --help.")
    flags = flags if path else default_encoders(flags)
    if reid_weights:
        data, flags = with_reid_weights(data, flags, reid_weights)
    return parse_config(data, settings or [], flags=flags, origin=str(path or "command line"))


def console() -> Any:
    """Where tables go."""
    from rich.console import Console

    # A pipe has no width of its own; 100 columns keep every table whole.
    return Console(width=None if sys.stdout.isatty() else 100, highlight=False)


def print_lines(target: Any, lines: list[str]) -> None:
    """Lines as they are: not wrapped, so that they can be searched and copied, and free of markup and of control
    characters, since names in them come from files."""
    for line in lines:
        target.print(printable(line), markup=False, highlight=False, soft_wrap=True)


def _registered(files: list[Path] | None) -> list[Path] | None:
    from chexray.registry import use

    use(files or [])
    return files


Plugins = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin",
        metavar="FILE.py",
        callback=_registered,
        help="metrics, encoders and sources of your own (docs/PLUGINS.md); may be repeated",
    ),
]
