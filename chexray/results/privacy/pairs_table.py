"""Re-identification scores and distances of real and synthetic images of one prompt, for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from rich.console import Console, RenderableType
from rich.text import Text

from chexray.results.grouping import Group
from chexray.results.layout import dim, paper_cell
from chexray.results.notes import paper_doubts
from chexray.results.privacy.groups import Audit, Line
from chexray.results.privacy.layout import Extra, Matrix, papers_best, real_floor, value_and_interval, whole_interval
from chexray.results.privacy.names import COUNT_PREFIX, DISTANCES, FPR_PREFIX, REID_SCORES, UPSTREAM_PIXELS, WRAPS
from chexray.results.privacy.remarks import has_no_pairs, remarks
from chexray.results.privacy.words import nobody, percent, plural
from chexray.results.published import is_random, prompts_and_seeds
from chexray.results.rows import params_of
from chexray.results.wording import Wording

Row = Mapping[str, Any]
Parts = Iterable[RenderableType]

UNKNOWN = "unknown"
COUNTS_NEED = (
    "a count means nothing without its false-positive rate: how many pairs of real images of different patients score "
    "above the threshold"
)


def reidentification(audit: Audit, wording: Wording, console: Console, width: int) -> Parts:
    """Scores and counts of each network, its false-positive rates beside the counts, and how good it is at all."""
    for group in audit.groups:
        lines, unpaired = _paired(audit, audit.lines(*REID_SCORES, prefix=COUNT_PREFIX, group=group), wording)
        calibration = audit.lines("reid_auc", "reid_threshold", prefix=FPR_PREFIX, group=group)
        if not (lines or unpaired or calibration):
            continue
        yield Text(f"\nre-identification: {_network(audit, group, wording)}", style="bold")
        if is_random(vars(group)):
            yield Text("RANDOM WEIGHTS: this network recognises nobody, its scores mean nothing", style="bold red")
        for text in nobody(calibration, wording):
            yield Text(f"NO VERDICT: {text}; ignore its scores", style="bold red")
        shown = [line for line in lines if not _repeats(line)]
        if shown:
            names = [REID_SCORES.get(line.metric) or _count_label(line, calibration) for line in shown]
            labels = [f"{name}{_after(line, wording)}" for name, line in zip(names, shown, strict=True)]
            extras = [
                Extra("false pos. on\nreal pairs", partial(_rate_of, rates=_rates(calibration))),
                real_floor(wording),
                papers_best(wording),
            ]
            cell = partial(_score_or_count, wording=wording)
            yield Matrix(audit, "score of a pair", shown, labels, cell, extras, wording).fit(console, width)
        if any(line.metric.startswith(COUNT_PREFIX) for line in shown):
            yield from dim([COUNTS_NEED])
        yield from dim(_prompts(audit, lines, wording))
        yield from dim(unpaired)
        yield from dim(_quality(calibration, wording))
        yield from _remarks([*shown, *calibration], wording)


def distances(audit: Audit, wording: Wording, console: Console, width: int) -> Parts:
    """Distances in each latent space and in grey levels; upstream's pixel distance only with what is wrong with it."""
    lines, unpaired = _paired(audit, audit.lines(*DISTANCES, UPSTREAM_PIXELS), wording)
    if not (lines or unpaired):
        return
    yield Text("\ndistances of pairs", style="bold")
    shown = [line for line in lines if not _repeats(line)]
    if shown:
        labels = [_distance_label(audit, line, wording) for line in shown]
        cell = partial(value_and_interval, wording=wording)
        extras = [real_floor(wording), papers_best(wording)]
        yield Matrix(audit, "space: distance", shown, labels, cell, extras, wording).fit(console, width)
    if any(line.metric == UPSTREAM_PIXELS for line in shown):
        yield Text(f" {UPSTREAM_PIXELS} is {WRAPS}. It is there to be set beside old tables only.", style="bold red")
    yield from dim(_prompts(audit, [line for line in lines if "_min" in line.metric], wording, extremes="minima fall"))
    yield from dim(unpaired)
    yield from _remarks(shown, wording)


def _paired(audit: Audit, lines: Sequence[Line], wording: Wording) -> tuple[list[Line], list[str]]:
    """The lines without the sets that have no pairs at all, and a remark that names those."""
    rows = [(column, row) for line in lines for column, row in line.rows.items()]
    without = {column for column, _ in rows} - {column for column, row in rows if not has_no_pairs(row)}
    kept = [
        replace(line, rows={column: row for column, row in line.rows.items() if column not in without})
        for line in lines
    ]
    names = [audit.label(column, wording) for column in audit.columns if column in without]
    return [line for line in kept if line.rows], [f"{', '.join(names)}: no pairs"] if names else []


def _repeats(line: Line) -> bool:
    """Whether the line says the mean again: the mean of the extremes over a single seed a prompt."""
    one_seed = all(params_of(row).get("n_seeds_max") == 1 for row in line.rows.values())
    return line.metric.endswith(("_max_mean", "_min_mean")) and one_seed


def _network(audit: Audit, group: Group, wording: Wording) -> str:
    name = audit.encoder(group, wording)
    if not group.weights or is_random(vars(group)):
        return name
    return f"{name} ({wording.data(group.weights)})"


def _after(line: Line, wording: Wording) -> str:
    """What tells a repeated metric apart, and its direction."""
    better = line.first["better"]
    return f"{line.group.variant(line.key, wording)}{wording.arrow(better)}"


def _count_label(line: Line, calibration: Sequence[Line]) -> str:
    """`prompts above 0.85`; the calibrated threshold is named with its value."""
    name = line.metric.removeprefix(COUNT_PREFIX)
    if name != "calibrated":
        return f"prompts above {name}"
    known = [params_of(row).get("threshold") for row in line.rows.values()]
    known += [row["value"] for other in calibration if other.metric == "reid_threshold" for row in other.rows.values()]
    threshold = next((value for value in known if value is not None), None)
    return (
        "prompts above the\ncalibrated threshold"
        if threshold is None
        else f"prompts above {threshold:.4g}\n(calibrated)"
    )


def _rates(calibration: Sequence[Line]) -> dict[str, float]:
    """False-positive rates by the name of the threshold, from rows of their own."""
    found = {}
    for line in calibration:
        if line.metric.startswith(FPR_PREFIX):
            value = next((row["value"] for row in line.rows.values() if row["value"] is not None), None)
            if value is not None:
                found[line.metric.removeprefix(FPR_PREFIX)] = value
    return found


def _rate_of(row: Row, rates: Mapping[str, float]) -> str:
    """`31 %`; "unknown" beside a count that was never calibrated; nothing beside a score."""
    if not row["metric"].startswith(COUNT_PREFIX):
        return ""
    rate = params_of(row).get("false_positive_rate")
    rate = rates.get(row["metric"].removeprefix(COUNT_PREFIX)) if rate is None else rate
    return UNKNOWN if rate is None else percent(rate)


def _score_or_count(row: Row, wording: Wording) -> str:
    """`0.539 [0.52, 0.56]`; `434 of 2,000 [398, 471]`."""
    if row["value"] is None or not row["metric"].startswith(COUNT_PREFIX):
        return value_and_interval(row, wording)
    prompts = params_of(row).get("n_prompts")
    count = f"{round(row['value']):,}{'' if prompts is None else f' of {prompts:,}'}"
    return f"{count} {whole_interval(row)}".rstrip()


def _prompts(audit: Audit, lines: Iterable[Line], wording: Wording, *, extremes: str = "maxima grow") -> list[str]:
    """`2,000 prompts; maxima grow with the number of seeds: 10 a prompt`, a line a set where they differ."""
    by_text: dict[str, list[str]] = {}
    for line in lines:
        for column, row in line.rows.items():
            params = params_of(row)
            low, high = params.get("n_seeds_min"), params.get("n_seeds_max")
            if high is None:
                continue
            seeds = f"{high:,}" if low in (None, high) else f"{low:,} to {high:,}"
            prompts = f"{plural(params['n_prompts'], 'prompt')}; " if params.get("n_prompts") is not None else ""
            text = f"{prompts}{extremes} with the number of seeds: {seeds} a prompt"
            text += ", so that their mean is the mean" if high == 1 else ""
            by_text.setdefault(text, []).append(audit.label(column, wording))
    if len(by_text) < 2:
        return list(by_text)
    return [f"{', '.join(dict.fromkeys(names))}: {text}" for text, names in by_text.items()]


def _quality(calibration: Sequence[Line], wording: Wording) -> list[str]:
    """How well the network tells real pairs of one patient from those of two."""
    rows = [row for line in calibration if line.metric == "reid_auc" for row in line.rows.values()]
    values = dict.fromkeys(value_and_interval(row, wording) for row in rows if row["value"] is not None)
    if not values:
        return []
    return [f"AUC of the network, real pairs of one patient against pairs of two: {' / '.join(values)}"]


def _distance_label(audit: Audit, line: Line, wording: Wording) -> str:
    if line.metric == UPSTREAM_PIXELS:
        return f"{UPSTREAM_PIXELS}\n{WRAPS.replace(' wrap', chr(10) + 'wrap')}"
    space = "grey levels" if line.metric.startswith("pixel") else audit.encoder(line.group, wording)
    return f"{space}: {DISTANCES[line.metric]}{_after(line, wording)}"


def _remarks(lines: Sequence[Line], wording: Wording) -> Parts:
    """Why numbers are missing, and what the paper's were computed on where they are shown."""
    rows = [row for line in lines for row in line.rows.values()]
    yield from dim(remarks(rows, wording))
    shown = [row for row in rows if paper_cell(row, wording)]
    if shown:
        prompts, seeds = prompts_and_seeds()
        text = f"paper's best: arXiv 2505.10496, without errors, over {prompts:,} MIMIC-CXR prompts of {seeds} seeds"
        yield from dim([wording.own(text), *paper_doubts(shown, wording)])
