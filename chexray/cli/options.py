"""What commands share: the flags that name sets and settings, how they become a config, and the console."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from chexray.errors import ConfigError
from chexray.text import printable

if TYPE_CHECKING:
    from rich.console import Console

    from chexray.config import RunConfig
    from chexray.storage import Storage

ConfigFile = Annotated[Path | None, typer.Argument(metavar="CONFIG", help="a YAML run config; flags override it")]
Real = Annotated[
    str | None, typer.Option(metavar="PATH", help="table, folder or Parquet of real images, local or s3://")
]
Synthetic = Annotated[
    list[str] | None, typer.Option(metavar="PATH", help="the same for synthetic ones; may be repeated")
]
Training = Annotated[
    str | None,
    typer.Option(metavar="PATH", help="the generator's training set; alone, for privacy; utility: to train on"),
]
HeldOut = Annotated[str | None, typer.Option(metavar="PATH", help="privacy: real images of other patients (baseline)")]
ReidWeights = Annotated[str | None, typer.Option(help="checkpoint of the siamese_reid encoder")]
Encoders = Annotated[str | None, typer.Option(help="names, comma-separated (chexray ls encoders)")]
Output = Annotated[str | None, typer.Option(help="folder or s3:// URL for results and features")]
Name = Annotated[str | None, typer.Option(help="what the run is called")]
Limit = Annotated[int | None, typer.Option(help="at most this many images of each set")]
Setting = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override a setting, e.g. encode.batch_size=64")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="check everything, print the plan, start nothing")]
Once = Annotated[bool, typer.Option("--once", help="show a run that is done already instead of computing it again")]
Verbose = Annotated[bool, typer.Option("--verbose", help="show Ray's logs")]


def examples(*commands: str) -> str:
    """The epilog of a command's help: each example on a line of its own, which click then does not wrap."""
    heading = "Examples:" if len(commands) > 1 else "Example:"
    return "\n".join(["\b", heading, *(f"  {command}" for command in commands)])


def read_config(
    path: Path | None, settings: list[str] | None, /, *, reid_weights: str | None = None, **flags: object
) -> RunConfig:
    """The RunConfig of a file, flags (those of value None were not given) and `--set` overrides."""
    from chexray.config import parse_config, read_yaml, with_reid_weights
    from chexray.config.reading import default_encoders
    from chexray.config.secrets import refuse_in_location

    if path:
        refuse_in_location(str(path), "CONFIG")
    flags = {key: value for key, value in flags.items() if value is not None}
    data = read_yaml(path) if path else {}
    if not path and not ("synthetic" in flags and {"real", "training"} & set(flags)):
        raise ConfigError(
            "nothing to run: give a config file, or --synthetic with --real, or with --training for privacy alone. See "
            "chexray run --help."
        )
    flags = flags if path else default_encoders(flags)
    if reid_weights:
        data, flags = with_reid_weights(data, flags, reid_weights)
    return parse_config(data, settings or [], flags=flags, origin=str(path or "command line"))


def console() -> Console:
    """Where tables go."""
    from rich.console import Console

    # A pipe has no width of its own; 100 columns keep every table whole.
    return Console(width=None if sys.stdout.isatty() else 100, highlight=False)


def print_lines(target: Console, lines: list[str]) -> None:
    """Lines as they are: not wrapped, so that they can be searched and copied, and free of markup and of control
    characters, since names in them come from files."""
    for line in lines:
        target.print(printable(line), markup=False, highlight=False, soft_wrap=True)


StorageSetting = Annotated[
    list[str] | None,
    typer.Option("--storage", metavar="KEY=VALUE", help="how S3 is reached, as storage.KEY of a config: sse=aws:kms"),
]


def read_storage(settings: Sequence[str] | None, option: str = "--storage") -> Storage:
    """The Storage that KEY=VALUE of `option` describe, checked like the storage section of a config."""
    from chexray.config import parse_config
    from chexray.config.secrets import refuse_on_command_line
    from chexray.plan import make_storage

    named = [f"storage.{item}" for item in settings or ()]
    for item in named:
        refuse_on_command_line(item)
    smallest = {"real": "x", "synthetic": "x", "encoders": ["pixels"]}
    return make_storage(parse_config(smallest, named, origin=option).storage)


ImageRoot = Annotated[
    str | None,
    typer.Option(metavar="DIR", help="folder below which tables name their images, by absolute paths, ../ or names"),
]
SyntheticImageRoot = Annotated[
    list[str] | None,
    typer.Option(metavar="DIR", help="the same for the synthetic sets, in their order; may be repeated"),
]


def with_image_roots(folders: list[str] | None, settings: list[str] | None) -> list[str]:
    """The overrides that give each synthetic set its folder, before those of `--set`."""
    return [
        *(f"synthetic.{i}.image_root={json.dumps(folder)}" for i, folder in enumerate(folders or [])),
        *(settings or []),
    ]


FailOn = Annotated[
    list[str] | None,
    typer.Option(
        "--fail-on",
        metavar="GATE",
        help="end with exit code 3 if it is found: copies, duplicates, rejects (rejects:1%), worse-than:RUN, "
        "worse-than:RUN:METRIC; several by commas",
    ),
]


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
