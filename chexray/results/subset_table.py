"""One line a subset: findings and groups by size, as many metrics as the width holds, floors beside biased ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from chexray.results.fidelity_notes import no_floor, not_told_apart, standings
from chexray.results.grouping import Column, Group, Key
from chexray.results.layout import Errors, errors_of, fits, floor_text, house_table, marks, n_text, paper_cell
from chexray.results.notes import paper_doubts, reasons
from chexray.results.standing import NEAREST_TO_FLOOR
from chexray.results.wording import Wording

Row = Mapping[str, Any]

PREFERRED = ("kid", "fid", "fid_infinity", "coverage", "recall", "precision", "density")
"""Which metrics a narrow table keeps: KID first, since it alone is unbiased at the small n of a finding."""

WITH_FLOOR = NEAREST_TO_FLOOR | {"fid", "frd"}
"""Metrics whose value means nothing without the floor at that n: it differs tenfold between findings, or is the aim."""


SUBSET_WIDTH = 18
"""Holds "Cardiomediastinum"; longer names fold."""


def subset_tables(
    group: Group, wording: Wording, console: Console, width: int
) -> Iterable[tuple[str, Table, list[str]]]:
    """(heading, table, footnotes) for each synthetic set of the group that has subsets besides "all"."""
    lines = {column: found for column in group.columns if (found := _lines(group, column))}
    keys = list(dict.fromkeys(key for found in lines.values() for cells in found.values() for key in cells))
    keys.sort(key=lambda key: PREFERRED.index(key[0]) if key[0] in PREFERRED else len(PREFERRED))
    # One choice for all sets, and no metric past the first that does not fit: the eye goes back and forth between them.
    count = len(keys)
    while count > 1 and not all(
        fits(_table(group, column, found, keys[:count], wording), console, width) for column, found in lines.items()
    ):
        count -= 1
    for column, found in lines.items():
        shown = [cells[key] for cells in found.values() for key in keys[:count] if key in cells]
        remarks = reasons([row for row in shown if row["value"] is None], wording) + paper_doubts(shown, wording)
        remarks += [
            *no_floor(shown, wording),
            *not_told_apart(shown, wording),
            *standings(group, found, keys[:count], column, wording),
        ]
        if count < len(keys):
            left_out = ", ".join(group.metric_name(key, wording) for key in keys[count:])
            remarks.append(f"not shown for want of width: {left_out}; see results.csv")
        heading = f"by subset: {group.label(column, wording)}"
        yield heading, _table(group, column, found, keys[:count], wording), remarks


def _lines(group: Group, column: Column) -> dict[str, dict[Key, Row]]:
    """Subset -> the set's rows, by kind (finding, sex ...) and within it the largest first."""
    found = {
        subset: {key: rows[column] for key, rows in lines.items() if column in rows}
        for subset, lines in group.subsets.items()
        if subset != "all"
    }
    kinds = list(dict.fromkeys(_kind(subset) for subset in found))
    order = sorted(found, key=lambda subset: (kinds.index(_kind(subset)), -_size(found[subset])))
    return {subset: found[subset] for subset in order if found[subset]}


def _table(
    group: Group, column: Column, lines: Mapping[str, Mapping[Key, Row]], keys: list[Key], wording: Wording
) -> Table:
    table = house_table(wording)
    table.add_column("subset", overflow="fold", max_width=SUBSET_WIDTH)
    table.add_column(Text("n real /\nsynth."), justify="right")
    paper = {key: {s: paper_cell(cells[key], wording) for s, cells in lines.items() if key in cells} for key in keys}
    for key in keys:
        floor = " (floor)" if key[0] in WITH_FLOOR else ""
        name = group.metric_label(key, wording).replace("_", "_\n", 1)
        table.add_column(Text(f"{name}{floor}"), justify="right")
        if any(paper[key].values()):
            table.add_column(Text(f"paper's\nbest {wording.data(key[0])}"), overflow="fold")
    kind = None
    for subset, cells in lines.items():
        if kind not in (None, _kind(subset)):
            table.add_section()
        kind = _kind(subset)
        line = [Text(wording.data(subset.removeprefix("finding:"))), Text(n_text(next(iter(cells.values()))))]
        for key in keys:
            won = key in cells and column in group.winners(key, subset)
            errors = errors_of(group.subsets[subset].get(key, {}).values())
            line.append(_cell(cells.get(key), won, errors, wording))
            if any(paper[key].values()):
                line.append(Text(paper[key].get(subset, "")))
        table.add_row(*line)
    return table


def _cell(row: Row | None, won: bool, errors: Errors, wording: Wording) -> Text:
    if row is None:
        return Text("")
    text = wording.value_and_error(row, errors.get(row["value"]))
    value = Text(f"{marks(row, won)}{text}", style="bold" if won else "")
    floored = row["metric"] in WITH_FLOOR and row["value"] is not None and row["real_floor"] is not None
    return Text.assemble(value, f" ({floor_text(row, errors)})" if floored else "")


def _kind(subset: str) -> str:
    return subset.partition(":")[0]


def _size(cells: Mapping[Key, Row]) -> int:
    """What limits a subset: its smaller side."""
    return max((min(row["n_real"], row["n_synthetic"]) for row in cells.values()), default=0)
