"""`chexray ls`, `chexray show` and `chexray compare`: what there is, and what was found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from chexray.cli.options import FailOn, Plugins, StorageSetting, console, examples, print_lines, read_storage
from chexray.errors import ConfigError
from chexray.text import printable, quoted

if TYPE_CHECKING:
    from chexray.registry import Entry

SHOW = examples("chexray show out/quickstart-1a2b3c4d5e", "chexray show s3://bucket/out/run-1a2b3c4d5e privacy")
KINDS = ("metrics", "encoders", "sources", "protocols")


def add_to(app: typer.Typer) -> None:
    app.command("ls")(list_names)
    app.command(epilog=SHOW)(show)
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


def _told(entry: Entry) -> tuple[str]:
    options = f" Options: {entry.options}." if entry.options else ""
    return (f"{printable(entry.summary)}{options}",)


def show(
    run: Annotated[str, typer.Argument(help="a run folder or a results file, local or s3://")],
    suite: Annotated[str | None, typer.Argument(help="fidelity, privacy or utility; by default all")] = None,
    storage: StorageSetting = None,
) -> None:
    """Show the tables of a finished run, then its verdicts."""
    from chexray.report.console import last_page, render
    from chexray.results.reading import read_results

    frame = read_results(run, read_storage(storage))
    if suite is not None:
        known = list(dict.fromkeys(frame["suite"]))
        if suite not in known:
            raise ConfigError(f"this run has no numbers of {quoted(suite)}. It has {', '.join(known) or 'none'}.")
        frame = frame[frame["suite"] == suite]
    for part in (*render(frame), last_page(frame)):
        console().print(part)


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
    from chexray.report.comparison import render_compare
    from chexray.results.aligned import compare as compare_frames
    from chexray.results.reading import read_results

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
