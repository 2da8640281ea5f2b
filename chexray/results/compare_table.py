"""A comparison of runs on a terminal: their numbers with intervals, and a verdict in words on each line."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from chexray.results.grouping import encoder_label
from chexray.results.layout import dim, errors_of, fits, house_table
from chexray.results.rows import ABSENT, to_records
from chexray.results.utility.names import line_params, setting_name, threshold_of
from chexray.results.wording import Wording

if TYPE_CHECKING:
    import pandas as pd

Line = dict[str, Any]
"""A row of what `compare` returns, None for null."""

WITH_SIZE = ("n_real", "n_synthetic")
SUBSET_WIDTH = 18
VERDICT_WIDTH = 30


def show(comparison: pd.DataFrame, wording: Wording, console: Console, width: int) -> Iterable[RenderableType]:
    """Numbers for all images, then one line a subset with who is better by which metric; `compare` has the numbers."""
    runs = [name.removesuffix(".value") for name in comparison.columns if name.endswith(".value")]
    if any("random weights" in note for note in comparison["note"]):
        yield Text("RANDOM WEIGHTS: these numbers compare with nothing but each other", style="bold red")
    together: dict[tuple[str, ...], list[Line]] = {}
    for line in to_records(comparison):
        told = (line["suite"], line["encoder"], line["encoder_options"], line["protocol"], _setting(line))
        together.setdefault(told, []).append(line)
    for (suite, encoder, options, protocol, setting), lines in together.items():
        title = [f"encoder: {encoder_label(encoder, options, wording)}", f"protocol: {wording.data(protocol)}"]
        title = title if suite == ABSENT["suite"] else [wording.data(suite), *title]
        if suite == "utility":
            title[1:2] = [f"model: {wording.data(encoder) or 'none'}", f"setting: {wording.data(setting)}"]
        yield Text("\n" + wording.own(" · ").join(title), style="bold")
        # Settings that use no synthetic set have runs of their own.
        having = [name for name in runs if suite != "utility" or any(_n(line, name) for line in lines)]
        overall = [line for line in lines if line["subset"] == "all"]
        if overall:
            notes = list(dict.fromkeys(line["note"] for line in overall if line["note"]))
            wide = _side_by_side(overall, having, notes, wording)
            yield wide if wide and fits(wide, console, width) else _stacked(overall, having, notes, wording)
            yield from dim(f"({position + 1}) {wording.data(note)}" for position, note in enumerate(notes))
        subsets = [line for line in lines if line["subset"] != "all"]
        if subsets:
            yield Text("\nby subset: which run is better", style="bold")
            yield from _matrix(subsets, having, wording, console, width)
    yield Text("")
    yield from (Text(line) for line in tally(comparison, wording))


def tally(comparison: pd.DataFrame, wording: Wording) -> list[str]:
    """How the verdicts fell, in one line, and how to read them."""
    kinds = Counter(_kind(verdict) for verdict in comparison["verdict"])
    counts = ", ".join(f"{count} {wording.data(kind)}" for kind, count in kinds.most_common())
    total = f"{len(comparison)} comparison{'' if len(comparison) == 1 else 's'}"
    return [
        f"{total}: {counts}.",
        "better: its 95% interval overlaps no other. Nothing corrects for the number of comparisons.",
        *([wording.own(_DISTANCE)] if any(better == "floor" for better in comparison["better"]) else []),
    ]


_DISTANCE = "→: the nearer to what other real images get, the better."


def _kind(verdict: str) -> str:
    if verdict.startswith(("better", "only")):
        return verdict
    return "tie" if verdict.startswith("tie") else re.split("[:;]", verdict)[0]


def _side_by_side(lines: list[Line], runs: list[str], notes: list[str], wording: Wording) -> Table | None:
    """One line a number, one column a run; None when a run's n varies between metrics and so fits no header."""
    table = house_table(wording)
    table.add_column("metric", no_wrap=True)
    for name in runs:
        sizes = {_n(line, name) for line in lines if _n(line, name)}
        if len(sizes) > 1:
            return None
        table.add_column(Text(f"{wording.data(name)}\n{'n = ' if sizes else ''}{''.join(sizes)}"))
    table.add_column("verdict", max_width=VERDICT_WIDTH, overflow="fold")
    for line in lines:
        numbers = [_number(line, name, runs, wording) for name in runs]
        table.add_row(_metric(line, wording), *numbers, _verdict(line, notes, wording))
    return table


def _stacked(lines: list[Line], runs: list[str], notes: list[str], wording: Wording) -> Table:
    """One line a number and run, the verdict on the first."""
    table = house_table(wording)
    table.add_column("metric", no_wrap=True)
    table.add_column("run", overflow="fold")
    table.add_column("value [95% interval]", no_wrap=True)
    table.add_column(Text("n real /\nsynth."), justify="right", no_wrap=True)
    table.add_column("verdict", max_width=VERDICT_WIDTH, overflow="fold")
    for line in lines:
        having = [name for name in runs if _n(line, name)]
        for position, name in enumerate(having):
            head = _metric(line, wording) if position == 0 else Text("")
            tail = _verdict(line, notes, wording) if position == 0 else Text("")
            table.add_row(
                head, Text(wording.data(name)), _number(line, name, runs, wording), Text(_n(line, name)), tail
            )
    return table


def _matrix(
    lines: list[Line], runs: list[str], wording: Wording, console: Console, width: int
) -> Iterable[RenderableType]:
    """Subsets by metrics: the letter of the better run, "tie", "n/c" for not comparable, "?" for unknown; "-B" where
    there is no winner and B is worse."""
    letters = {name: chr(ord("A") + place) if len(runs) <= 26 else str(place + 1) for place, name in enumerate(runs)}
    metrics = list(dict.fromkeys(_name(line) for line in lines))
    count = len(metrics)
    while count > 1 and not fits(_grid(lines, runs, metrics[:count], letters, wording), console, width):
        count -= 1
    yield _grid(lines, runs, metrics[:count], letters, wording)
    named = ", ".join(f"{letter} {wording.data(name)}" for name, letter in letters.items())
    unclear = any(_mark(line, letters).startswith("-") for line in lines)
    no_winner = "none: no winner, see the verdict; " if any(_mark(line, letters) == "none" for line in lines) else ""
    lost = f"-{next(iter(letters.values()))}: no winner, and this one is worse; " if unclear else ""
    yield from dim(
        [f"{named}; {lost}{no_winner}tie: intervals overlap; n/c: not comparable; ?: no value or no interval"]
    )
    if count < len(metrics):
        left_out = ", ".join(wording.data(metric) for metric in metrics[count:])
        yield from dim([f"not shown for want of width: {left_out}"])


def _grid(lines: list[Line], runs: list[str], metrics: list[str], letters: dict[str, str], wording: Wording) -> Table:
    table = house_table(wording)
    table.add_column("subset", max_width=SUBSET_WIDTH, overflow="fold")
    table.add_column(Text("least\nn"), justify="right")
    for metric in metrics:
        table.add_column(Text(wording.data(metric).replace("_", "_\n", 1)))
    by_subset: dict[str, list[Line]] = {}
    for line in lines:
        by_subset.setdefault(line["subset"], []).append(line)
    least = {subset: _least(found, runs) for subset, found in by_subset.items()}
    for subset, found in sorted(by_subset.items(), key=lambda item: -least[item[0]]):
        marks = {metric: [_mark(line, letters) for line in found if _name(line) == metric] for metric in metrics}
        name = wording.data(subset.removeprefix("finding:"))
        table.add_row(Text(name), f"{least[subset]:,}", *(Text(", ".join(marks[metric])) for metric in metrics))
    return table


def _mark(line: Line, letters: dict[str, str]) -> str:
    best = [letter for name, letter in letters.items() if line[f"{name}.standing"] == "better"]
    if best:
        return "=".join(best)
    worse = " ".join(f"-{letter}" for name, letter in letters.items() if line[f"{name}.standing"] == "worse")
    short = {"tie": "tie", "not comparable": "n/c", "unknown": "?", "no winner": "none"}
    return worse or short.get(_kind(line["verdict"]), "")


def _least(lines: list[Line], runs: list[str]) -> int:
    """The smallest n, of either side, behind any of these numbers. Utility's have one side often: the other is 0."""
    sizes = [line[f"{name}.{side}"] for line in lines for name in runs if _n(line, name) for side in WITH_SIZE]
    one_sided = any(line["suite"] == "utility" for line in lines)
    return min((int(size) for size in sizes if size or not one_sided), default=0)


def _setting(line: Line) -> str:
    """The setting that a utility number is of; empty for other suites."""
    return setting_name(str(line_params(line["params"]).get("setting", ""))) if line["suite"] == "utility" else ""


def _name(line: Line) -> str:
    """`f1_macro (tuned)`: the metric, of utility with its threshold."""
    threshold = threshold_of(line_params(line["params"])) if line["suite"] == "utility" else ""
    return f"{line['metric']} ({threshold})" if threshold else line["metric"]


def _metric(line: Line, wording: Wording) -> Text:
    return Text(f"{wording.data(_name(line))}{wording.arrow(line['better'])}")


def _n(line: Line, name: str) -> str:
    """`222 / 222`, real and synthetic; empty when the run has no such number."""
    sizes = [line[f"{name}.{side}"] for side in WITH_SIZE]
    return "" if any(size is None for size in sizes) else " / ".join(f"{int(size):,}" for size in sizes)


def _number(line: Line, name: str, runs: list[str], wording: Wording) -> Text:
    if not _n(line, name):
        return Text("")
    row = _row(line, name)
    # All that the line shows, so that one number reads alike in each run.
    error = errors_of(_row(line, other) for other in runs if _n(line, other)).get(row["value"])
    won = line[f"{name}.standing"] == "better"
    return Text(f"{wording.value(row, error)} {wording.interval(row, error)}".rstrip(), style="bold" if won else "")


def _row(line: Line, name: str) -> Line:
    return {field: line[f"{name}.{field}"] for field in ("value", "std_error", "ci_low", "ci_high", "real_floor")}


def _verdict(line: Line, notes: list[str], wording: Wording) -> Text:
    mark = f" ({notes.index(line['note']) + 1})" if line["note"] else ""
    return Text(wording.data(line["verdict"]) + mark)
