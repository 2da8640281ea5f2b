"""`chexray ls` and `chexray compare`: what there is, and what there was."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from chexray.cli.options import Plugins, console, print_lines
from chexray.errors import ConfigError
from chexray.text import printable, quoted

KINDS = ("metrics", "encoders", "sources", "protocols")


def add_to(app: typer.Typer) -> None:
    app.command("ls")(list_names)
    app.command()(compare)


def list_names(kind: Annotated[str, typer.Argument(help=" | ".join(KINDS))], plugin: Plugins = None) -> None:
    """Name what can be written in a config, where it comes from, and what options an encoder has."""
    if kind == "protocols":
        from chexray.protocols import PROTOCOLS

        rows = [(preset.name, preset.summary) for preset in PROTOCOLS.values()]
    elif kind in KINDS:
        from chexray.registry import entries

        rows = [(each.name, each.origin, *_told(each)) for each in entries(kind)]
    else:
        raise ConfigError(f"there is no kind {quoted(kind)}. Known: {', '.join(KINDS)}.")
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print_lines(console(), ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows])


def _told(entry: Any) -> tuple[str]:
    options = f" Options: {entry.options}." if entry.options else ""
    return (f"{printable(entry.summary)}{options}",)


def compare(
    runs: Annotated[list[str], typer.Argument(help="two or more run folders or results files, local or s3://")],
) -> None:
    """Put runs side by side; no winner is named where intervals overlap."""
    if len(runs) < 2:
        raise ConfigError(f"compare needs at least two runs, found {len(runs)}.")
    from chexray.config import StorageConfig
    from chexray.plan import make_storage
    from chexray.results.compare import compare as compare_frames
    from chexray.results.compare import render_compare
    from chexray.results.rows import read_results

    storage = make_storage(StorageConfig())
    frames = {}
    for place in runs:
        *folders, label = place.rstrip("/").split("/")
        # Files are called alike in every run.
        label = folders[-1] if folders and label.endswith((".parquet", ".json", ".csv")) else label
        frames[label if label not in frames else place] = read_results(place, storage)
    console().print(render_compare(compare_frames(frames)))
