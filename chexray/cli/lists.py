"""`chexray ls` and `chexray compare`: what there is, and what there was."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from chexray.cli.options import FailOn, Plugins, StorageSetting, console, print_lines, read_storage
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
    storage: StorageSetting = None,
    fail_on: FailOn = None,
) -> None:
    """Put runs side by side; no winner is named where intervals overlap.

    --fail-on looks at every run but the first, which is the baseline of worse-than: `chexray compare BEFORE NOW
    --fail-on worse-than`, or worse-than:METRIC.
    """
    if len(runs) < 2:
        raise ConfigError(f"compare needs at least two runs, found {len(runs)}.")
    from chexray.cli.gates import compared
    from chexray.jobs.status import unfinished
    from chexray.results.compare import compare as compare_frames
    from chexray.results.compare import render_compare
    from chexray.results.rows import read_results

    reached = read_storage(storage)
    frames, places = {}, {}
    for place in runs:
        *folders, label = place.rstrip("/").split("/")
        # Files are called alike in every run.
        label = folders[-1] if folders and label.endswith((".parquet", ".json", ".csv")) else label
        label = label if label not in frames else place
        frames[label], places[label] = read_results(place, reached), place
    gates = compared(fail_on, frames, places)
    console().print(render_compare(compare_frames(frames)))
    print_lines(console(), [f"note: {note}" for place in runs if (note := unfinished(place, reached))])
    if code := gates(reached):
        raise typer.Exit(code)
