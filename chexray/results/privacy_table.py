"""The privacy numbers on a terminal: what was found, how often chance would find it, and what a search cannot see.

Sections appear only when they have rows. The verdict of the memorisation search comes first; numbers for comparison
with other tools follow it, dim, with their blind spots in words.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from chexray.results.layout import dim, fits, house_table
from chexray.results.notes import RANDOM_WEIGHTS, reasons
from chexray.results.privacy_groups import Audit, Line, Row, Search, searches
from chexray.results.privacy_layout import Extra, Matrix, real_floor, scaled, value_and_interval, whole_interval
from chexray.results.privacy_names import DUPLICATES, HEADLINE, PEERS
from chexray.results.privacy_pairs_table import distances, reidentification
from chexray.results.privacy_words import Verdict, count_text, expected, percent, plural, rate, sentences, verdict
from chexray.results.published import is_random
from chexray.results.rows import params_of
from chexray.results.wording import Wording

Parts = Iterable[RenderableType]

NULLS = {"held-out": "held-out real images", "training patients": "training images, each against other patients'"}
"""What chance was measured on, by params["null"]."""

FLOOR_ELSEWHERE = frozenset({*HEADLINE, *DUPLICATES})
"""Metrics whose floor is shown under another name."""


def show(audit: Audit, wording: Wording, console: Console, width: int) -> Parts:
    """The sections of one real set, for `chexray.results.table.View`."""
    yield Text(audit.title(wording), style="bold")
    random = {audit.encoder(group, wording) for group in audit.groups if is_random(vars(group))}
    if random:
        yield Text(f"{RANDOM_WEIGHTS} ({', '.join(sorted(random))})", style="bold red")
    for section in (_memorisation, _peers, _duplicates, reidentification, distances, _others):
        yield from section(audit, wording, console, width)
    lines = []
    if any(row["real_floor"] is not None and row["metric"] not in FLOOR_ELSEWHERE for row in _all_rows(audit)):
        lines.append("real floor: what other real images score in place of the synthetic ones")
    if audit.subsets():
        lines.append(f"{plural(audit.subsets(), 'subset')} besides all images: see results.csv")
    yield from dim(lines)
    yield Text("")


def _all_rows(audit: Audit) -> Iterable[Row]:
    return (row for group in audit.groups for rows in group.overall.values() for row in rows.values())


def _memorisation(audit: Audit, wording: Wording, console: Console, width: int) -> Parts:
    found = [(search, verdict(search, wording)) for search in searches(audit, wording)]
    if not found:
        return
    yield Text("\nmemorisation", style="bold")
    several = len(audit.columns) > 1
    for copied, line in sentences(audit, wording):
        yield Text(line, style="bold red" if copied else "")
    tables = (_search_table(audit, found, wording, with_verdict=verdict) for verdict in (True, False))
    yield next((table for table in tables if fits(table, console, width)), _search_table(audit, found, wording))
    yield from dim(_how_flagged([search for search, _ in found], wording))
    yield from dim(reasons(_rows_of(audit.lines(*HEADLINE)), wording, several_sets=several))


def _search_table(
    audit: Audit, found: Sequence[tuple[Search, Verdict]], wording: Wording, *, with_verdict: bool = False
) -> Table:
    """One row an encoder and set."""
    several = len(audit.columns) > 1
    table = house_table(wording)
    table.add_column("encoder", overflow="fold")
    if several:
        table.add_column("synthetic set", overflow="fold")
    table.add_column("flagged")
    table.add_column(Text("by\nchance"), justify="right")
    table.add_column(Text("excess, %\n[95% interval]"))
    if with_verdict:
        table.add_column("verdict")
    encoder = None
    for search, words in found:
        style = "bold" if words.found else ""
        line = [Text("" if search.encoder == encoder else search.encoder)]
        line += [Text(audit.label(search.column, wording))] if several else []
        excess = wording.own("–")
        if search.excess is not None:
            excess = value_and_interval(scaled(search.excess, 100), wording)
        line += [Text(_flagged(search, wording), style=style), Text(_expected(search, wording)), Text(excess)]
        table.add_row(*line, *([Text(words.text.partition(",")[0], style=style)] if with_verdict else []))
        encoder = search.encoder
    return table


def _flagged(search: Search, wording: Wording) -> str:
    """`20 of 400 (5 %)`."""
    if search.flagged is None:
        return wording.own("–")
    n = search.row["n_synthetic"]
    return f"{search.flagged:,} of {n:,} ({percent(search.flagged / max(1, n))})"


def _expected(search: Search, wording: Wording) -> str:
    return wording.own("–") if search.expected is None else expected(search)


def _how_flagged(found: Sequence[Search], wording: Wording) -> list[str]:
    """What a flag means, and on what chance was measured."""
    said: dict[str, list[str]] = {}
    for search in found:
        params = params_of(search.row)
        if search.false_positives is not None and "null" in params:
            of = "" if params.get("n_null") is None else f"{params['n_null']:,} "
            null = NULLS.get(params["null"], f"real images (null: {wording.data(params['null'])})")
            chance = f"by chance: what the same search flags among {of}{null}, {rate(search)} of them"
            said.setdefault(chance, []).append(search.encoder)
        if params.get("smallest_share_noticed") is not None:
            least = percent(params["smallest_share_noticed"])
            times = percent(params.get("smallest_share_noticed_power", 0.8))
            power = f"power: a share of {least} copies, all of them flagged, is noticed in {times} of such audits"
            said.setdefault(power, []).append(search.encoder)
    least, most = min(search.row["n_real"] for search in found), max(search.row["n_real"] for search in found)
    searched = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    lines = [f"flagged: nearer to one of {searched} training images than to others, beyond what chance explains"]
    encoders = {search.encoder for search in found}
    for text, of_encoders in said.items():
        lines.append(text if set(of_encoders) == encoders else f"{text} ({_names(of_encoders)})")
    decided = sum(verdict(search, wording).found is not None for search in found)
    if decided > 1:
        lines.append(f"without any copy, about 1 in 40 audits alarms: {decided} searches are allowed for")
    blind = dict.fromkeys(_cannot_see(search.share) for search in found if search.share is not None)
    return lines + [f"blind spot: {wording.data(text)}" for text in blind if text]


def _peers(audit: Audit, wording: Wording, console: Console, width: int) -> Parts:
    for group in audit.groups:
        lines = audit.lines(*PEERS, group=group)
        if not lines:
            continue
        yield Text(f"\nfor comparison with other tools ({audit.encoder(group, wording)})", style="dim")
        yield _plain(audit, lines, wording, style="dim").fit(console, width)
        yield from dim(_blind_spots(lines, wording))
        yield from dim(reasons(_rows_of(lines), wording, several_sets=len(audit.columns) > 1))


def _blind_spots(lines: Sequence[Line], wording: Wording) -> list[str]:
    """`authenticity, c_t: cannot see ...`, as the metrics themselves say."""
    by_text: dict[str, list[str]] = {}
    for line in lines:
        for row in line.rows.values():
            if text := _cannot_see(row):
                by_text.setdefault(wording.data(text), []).append(wording.data(line.metric))
    return [f"blind spot of {_names(metrics)}: {text}" for text, metrics in by_text.items()]


def _cannot_see(row: Row) -> str:
    return str(params_of(row).get("cannot_see") or "")


def _names(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))


def _duplicates(audit: Audit, wording: Wording, console: Console, width: int) -> Parts:
    lines = audit.lines(*DUPLICATES)
    if not lines:
        return
    yield Text("\nduplicates", style="bold")
    labels = [f"{DUPLICATES[line.metric]}{line.group.variant(line.key, wording)}" for line in lines]
    cell = partial(_count_of, wording=wording)
    chance = Extra("real images\nin their place", _chance)
    yield Matrix(audit, "synthetic images that are", lines, labels, cell, [chance], wording).fit(console, width)
    yield from dim(_blind_spots(lines, wording))
    yield from dim(reasons(_rows_of(lines), wording, several_sets=len(audit.columns) > 1))


def _chance(row: Row) -> str:
    """How many of as many real images would be duplicates."""
    return "" if row["real_floor"] is None else count_text(row["real_floor"])


def _count_of(row: Row, wording: Wording) -> str:
    """`12 of 400 [6, 21]`."""
    if row["value"] is None:
        return wording.own("–")
    return f"{round(row['value']):,} of {row['n_synthetic']:,} {whole_interval(row)}".rstrip()


def _others(audit: Audit, wording: Wording, console: Console, width: int) -> Parts:
    lines = audit.others()
    if not lines:
        return
    yield Text("\nfurther numbers", style="bold")
    yield _plain(audit, lines, wording, with_encoder=True).fit(console, width)
    yield from dim(reasons(_rows_of(lines), wording, several_sets=len(audit.columns) > 1))


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
