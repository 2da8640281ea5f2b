"""The privacy numbers on a terminal: what was found, how often chance would find it, and what a search cannot see.

Sections appear only when they have rows. The verdict of the memorisation search comes first; numbers for comparison
with other tools follow it, dim, with their blind spots in words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from rich.console import Console, RenderableType
from rich.text import Text

from chexray.results.layout import dim
from chexray.results.notes import RANDOM_WEIGHTS
from chexray.results.privacy.groups import Audit, Line, Row
from chexray.results.privacy.layout import Extra, Matrix, real_floor, value_and_interval, whole_interval
from chexray.results.privacy.names import DUPLICATES, HEADLINE, PEERS
from chexray.results.privacy.pairs_table import distances, reidentification
from chexray.results.privacy.planted import planted
from chexray.results.privacy.remarks import remarks, without_error
from chexray.results.privacy.search_table import memorisation
from chexray.results.privacy.sentences import sentences
from chexray.results.privacy.words import count_of, count_text, plural
from chexray.results.published import is_random
from chexray.results.rows import params_of
from chexray.results.wording import Wording

Parts = Iterable[RenderableType]

FLOOR_ELSEWHERE = frozenset({*HEADLINE, *DUPLICATES})
"""Metrics whose floor is shown under another name."""


def show(audit: Audit, wording: Wording, console: Console, width: int) -> Parts:
    """The sections of one real set, for `chexray.results.table.View`."""
    yield Text(audit.title(wording), style="bold")
    random = {audit.encoder(group, wording) for group in audit.groups if is_random(vars(group))}
    if random:
        yield Text(f"{RANDOM_WEIGHTS} ({', '.join(sorted(random))})", style="bold red")
    for section in (memorisation, planted, _peers, _duplicates, reidentification, distances, _others):
        yield from section(audit, wording, console, width)
    lines = without_error(_all_rows(audit))
    if any(row["real_floor"] is not None and row["metric"] not in FLOOR_ELSEWHERE for row in _all_rows(audit)):
        lines.append("real floor: what other real images score in place of the synthetic ones")
    if audit.subsets():
        lines.append(f"{plural(audit.subsets(), 'subset')} besides all images: see results.csv")
    yield from dim(lines)
    yield Text("")


def _all_rows(audit: Audit) -> Iterable[Row]:
    return (row for group in audit.groups for rows in group.overall.values() for row in rows.values())


def _peers(audit: Audit, wording: Wording, console: Console, width: int) -> Parts:
    lines = audit.lines(*PEERS)
    if not lines:
        return
    encoders = [audit.encoder(line.group, wording) for line in lines]
    several = len(set(encoders)) > 1
    matrix = _plain(audit, lines, wording, style="dim")
    matrix = replace(matrix, compact=wording.value, encoders=encoders if several else ())
    table, without_intervals = matrix.choose(console, width)
    said = [] if several else encoders[:1]
    said += ["intervals: see results.csv"] if without_intervals else []
    aside = f" ({'; '.join(said)})" if said else ""
    yield Text(f"\nfor comparison with other tools{aside}", style="dim")
    yield table
    yield from dim(_blind_spots(lines, wording, _peer))
    yield from dim(remarks(_rows_of(lines), wording))


def _peer(metric: str) -> str:
    """The metric; one name for all distances to the closest record, which overlook the same."""
    return "dcr" if metric.startswith("dcr_") else metric


def _blind_spots(lines: Sequence[Line], wording: Wording, name: Callable[[str], str]) -> list[str]:
    """`blind spots · c_t: a few copies ...`, as the metrics themselves say, each once. name: what a metric is called"""
    by_text: dict[str, list[str]] = {}
    for row in _rows_of(lines):
        if text := str(params_of(row).get("cannot_see") or ""):
            by_text.setdefault(wording.data(text), []).append(wording.data(name(row["metric"])))
    spots = [f"{', '.join(dict.fromkeys(metrics))}: {text}" for text, metrics in by_text.items()]
    return [wording.own(" · ").join(["blind spots", *spots])] if spots else []


def _duplicates(audit: Audit, wording: Wording, console: Console, width: int) -> Parts:
    lines = audit.lines(*DUPLICATES)
    if not lines:
        return
    yield Text("\nduplicates", style="bold")
    if not audit.lines(*HEADLINE):
        # There is no search, whose section would say it first.
        for found, line in sentences(audit, wording):
            yield Text(line, style="bold red" if found else "")
    labels = [f"{DUPLICATES[line.metric]}{line.group.variant(line.key, wording)}" for line in lines]
    cell, compact = (partial(_count_of, wording=wording, of_all=of_all) for of_all in (True, False))
    chance = Extra("real\nimages", _chance, "real_floor")
    head = "synthetic images that are"
    yield Matrix(audit, head, lines, labels, cell, [chance], wording, compact=compact).fit(console, width)
    yield from dim(_blind_spots(lines, wording, lambda metric: metric.split("_")[1]))
    yield from dim(remarks(_rows_of(lines), wording, name=lambda metric: ""))


def _chance(row: Row) -> str:
    """How many of as many real images would be duplicates."""
    return "" if row["real_floor"] is None else count_text(row["real_floor"])


def _count_of(row: Row, wording: Wording, of_all: bool) -> str:
    """`12 of 400 [6, 21]`; without the 400 where the head of the column has them."""
    if row["value"] is None:
        return wording.own("–")
    count = count_of(row) if of_all else f"{round(row['value']):,}"
    return f"{count} {whole_interval(row)}".rstrip()


def _others(audit: Audit, wording: Wording, console: Console, width: int) -> Parts:
    lines = audit.others()
    if not lines:
        return
    yield Text("\nfurther numbers", style="bold")
    yield _plain(audit, lines, wording, with_encoder=True).fit(console, width)
    yield from dim(remarks(_rows_of(lines), wording))


def _plain(
    audit: Audit, lines: Sequence[Line], wording: Wording, *, style: str = "", with_encoder: bool = False
) -> Matrix:
    """Metrics under their own names, in the units of the results."""
    labels = [line.group.metric_label(line.key, wording) for line in lines]
    if with_encoder:
        labels = [f"{audit.encoder(line.group, wording)}: {label}" for line, label in zip(lines, labels, strict=True)]
    cell = partial(value_and_interval, wording=wording)
    return Matrix(audit, "metric", lines, labels, cell, [real_floor(wording)], wording, style)


def _rows_of(lines: Iterable[Line]) -> list[Any]:
    return [row for line in lines for row in line.rows.values()]
