"""A comparison of runs: their numbers with intervals, and a verdict in words on each line."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from chexray.grouping import grouped
from chexray.report.cells import errors_of, value_cell
from chexray.report.document import EMPTY, Cell, Column, Grid, Note, Part, Section
from chexray.report.document import Line as GridLine
from chexray.report.groups import encoder_label
from chexray.report.terminal import View
from chexray.report.utility.names import line_params, setting_name, threshold_of
from chexray.report.wording import arrow
from chexray.results.decisions import SIDES
from chexray.results.rows import ABSENT, to_records
from chexray.spelling import plural

if TYPE_CHECKING:
    import pandas as pd

Line = dict[str, Any]
"""A row of what `compare` returns, None for null."""

SUBSET_WIDTH = 18
VERDICT_WIDTH = 30
RANDOM = "RANDOM WEIGHTS: these numbers compare with nothing but each other"
SHORT = {"tie": "tie", "not comparable": "n/c", "unknown": "?", "no winner": "none"}


def render_compare(comparison: pd.DataFrame, *, width: int | None = None) -> View:
    """What `chexray.results.aligned.compare` returned, as a rich renderable."""
    return View(tuple(compared(comparison)), width)


def compared(comparison: pd.DataFrame) -> Iterator[Part]:
    """Numbers for all images, then one line a subset with who is better by which metric; `compare` has the numbers."""
    runs = [name.removesuffix(".value") for name in comparison.columns if name.endswith(".value")]
    if any("random weights" in note for note in comparison["note"]):
        yield Note(RANDOM, "alarm")
    shared = ("suite", "encoder", "encoder_options", "protocol")
    every = to_records(comparison)
    for told, lines in grouped(((*(line[name] for name in shared), _setting(line)), line) for line in every).items():
        # Settings that use no synthetic set have runs of their own.
        having = [name for name in runs if told[0] != "utility" or any(_n(line, name) for line in lines)]
        overall, subsets = ([line for line in lines if (line["subset"] == "all") is whole] for whole in (True, False))
        parts: list[Part] = []
        if overall:
            notes = list(dict.fromkeys(line["note"] for line in overall if line["note"]))
            parts += [_numbers(overall, having, notes)]
            parts += [Note(f"({position}) {note}") for position, note in enumerate(notes, 1)]
        if subsets:
            parts.append(Section("by subset: which run is better", tuple(_by_subset(subsets, having))))
        yield Section(_title(told), tuple(parts))
    yield from (Note(line, "") for line in tally(comparison))


def tally(comparison: pd.DataFrame) -> Iterator[str]:
    """How the verdicts fell, in one line, and how to read them."""
    kinds = Counter(_kind(verdict) for verdict in comparison["verdict"])
    counts = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    yield f"{plural(len(comparison), 'comparison')}: {counts}."
    yield "better: its 95% interval overlaps no other. Nothing corrects for the number of comparisons."
    if any(better == "floor" for better in comparison["better"]):
        yield "→: the nearer to what other real images get, the better."


def _title(told: tuple[str, ...]) -> str:
    suite, encoder, options, protocol, setting = told
    title = [] if suite == ABSENT["suite"] else [suite]
    if suite == "utility":
        title += [f"model: {encoder or 'none'}", f"setting: {setting}"]
    else:
        title.append(f"encoder: {encoder_label(encoder, options)}")
    return " · ".join([*title, f"protocol: {protocol}"])


def _kind(verdict: str) -> str:
    if verdict.startswith(("better", "only")):
        return verdict
    return "tie" if verdict.startswith("tie") else re.split("[:;]", verdict)[0]


def _numbers(lines: list[Line], runs: list[str], notes: list[str]) -> Grid:
    """One line a number, one column a run; n over a column where its numbers share it, else in their cells."""
    sizes = {name: {_n(line, name) for line in lines if _n(line, name)} for name in runs}
    columns = [Column("metric")]
    columns += [
        Column(name, under=f"n = {next(iter(sizes[name]))}" if len(sizes[name]) == 1 else "", alike=True)
        for name in runs
    ]
    columns.append(Column("verdict", width=VERDICT_WIDTH))
    shown = []
    for line in lines:
        # All that the line shows, so that one number reads alike in each run.
        errors = errors_of(_row(line, other) for other in runs if _n(line, other))
        cells = []
        for name in runs:
            tone = "strong" if line[f"{name}.standing"] == "better" else ""
            cell = value_cell(_row(line, name), errors, tone=tone) if _n(line, name) else EMPTY
            aside = f"n = {_n(line, name)}" if len(sizes[name]) > 1 and cell.text else ""
            cells.append(Cell(cell.text, "", cell.interval, aside, tone, cell.number))
        mark = f" ({notes.index(line['note']) + 1})" if line["note"] else ""
        name = Cell(f"{_name(line)}{arrow(line['better'])}")
        shown.append(GridLine((name, *cells, Cell(f"{line['verdict']}{mark}"))))
    return Grid(tuple(columns), tuple(shown))


def _by_subset(lines: list[Line], runs: list[str]) -> Iterator[Part]:
    """Subsets by metrics: the letter of the better run, "tie", "n/c" for not comparable, "?" for unknown; "-B" where
    there is no winner and B is worse."""
    letters = {name: chr(ord("A") + place) if len(runs) <= 26 else str(place + 1) for place, name in enumerate(runs)}
    metrics = list(dict.fromkeys(_name(line) for line in lines))
    columns = [Column("subset", width=SUBSET_WIDTH), Column("n", over="least", align="right")]
    columns += [Column(metric, rank=rank) for rank, metric in enumerate(metrics)]
    by_subset = grouped((line["subset"], line) for line in lines)
    least = {subset: _least(found, runs) for subset, found in by_subset.items()}
    shown = []
    for subset, found in sorted(by_subset.items(), key=lambda item: -least[item[0]]):
        marks = (", ".join(_mark(line, letters) for line in found if _name(line) == metric) for metric in metrics)
        labels = (Cell(subset.removeprefix("finding:")), Cell(f"{least[subset]:,}"))
        shown.append(GridLine((*labels, *map(Cell, marks))))
    yield Grid(tuple(columns), tuple(shown), one_line=True, elsewhere="what chexray.compare returns")
    every = {_mark(line, letters) for line in lines}
    said = [", ".join(f"{letter} {name}" for name, letter in letters.items())]
    if any(mark.startswith("-") for mark in every):
        said.append(f"-{next(iter(letters.values()))}: no winner, and this one is worse")
    said += ["none: no winner, see the verdict"] if "none" in every else []
    yield Note("; ".join([*said, "tie: intervals overlap", "n/c: not comparable", "?: no value or no interval"]))


def _mark(line: Line, letters: dict[str, str]) -> str:
    best = [letter for name, letter in letters.items() if line[f"{name}.standing"] == "better"]
    worse = " ".join(f"-{letter}" for name, letter in letters.items() if line[f"{name}.standing"] == "worse")
    return "=".join(best) or worse or SHORT.get(_kind(line["verdict"]), "")


def _least(lines: list[Line], runs: list[str]) -> int:
    """The smallest n, of either side, behind any of these numbers. Utility's have one side often: the other is 0."""
    sizes = [line[f"{name}.{side}"] for line in lines for name in runs if _n(line, name) for side in SIDES]
    one_sided = any(line["suite"] == "utility" for line in lines)
    return min((int(size) for size in sizes if size or not one_sided), default=0)


def _setting(line: Line) -> str:
    """The setting that a utility number is of; empty for other suites."""
    return setting_name(str(line_params(line["method"]).get("setting", ""))) if line["suite"] == "utility" else ""


def _name(line: Line) -> str:
    """`recall_macro (tuned)`: the metric, of utility with its threshold."""
    threshold = threshold_of(line_params(line["method"])) if line["suite"] == "utility" else ""
    return f"{line['metric']} ({threshold})" if threshold else line["metric"]


def _n(line: Line, name: str) -> str:
    """`222 / 222`, real and synthetic; empty when the run has no such number."""
    sizes = [line[f"{name}.{side}"] for side in SIDES]
    return "" if any(size is None for size in sizes) else " / ".join(f"{int(size):,}" for size in sizes)


def _row(line: Line, name: str) -> Line:
    fields = ("value", "std_error", "ci_low", "ci_high", "real_floor")
    return {"metric": line["metric"], **{field: line[f"{name}.{field}"] for field in fields}}
