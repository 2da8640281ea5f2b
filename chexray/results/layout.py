"""Pieces that the tables of this package share: their frame, footnotes, and the marks on a number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich import box
from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from chexray.results.published import best, comparable
from chexray.results.rows import bias_dominated
from chexray.results.wording import Wording, error_of, number

Row = Mapping[str, Any]


RULED = box.SIMPLE_HEAD
RULED_ASCII = box.Box(str(RULED).replace("─", "-"), ascii=True)
"""One line under the head and none elsewhere."""

UNBOUNDED = 10_000
"""Columns given to a table to learn how wide it would like to be."""


def house_table(wording: Wording) -> Table:
    """An empty table in the style of this project, safe on ASCII streams."""
    frame = RULED if wording.unicode else RULED_ASCII
    return Table(box=frame, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))


def fits(table: Table, console: Console, width: int) -> bool:
    """Whether no cell of the table needs folding at `width`."""
    return Measurement.get(console, console.options.update(width=UNBOUNDED), table).maximum <= width


def dim(lines: Iterable[str]) -> Iterable[RenderableType]:
    """Footnotes, set back a little."""
    return (Padding(Text(line, style="dim"), (0, 0, 0, 1), expand=False) for line in lines)


def marks(row: Row, won: bool) -> str:
    """`*` the clear winner (bold alone would be lost on a pipe), `!` mostly bias."""
    return ("*" if won else "") + ("!" if bias_dominated(row) else "")


def floor_text(row: Row) -> str:
    return "" if row["real_floor"] is None else number(row["real_floor"], error_of(row))


def n_text(row: Row) -> str:
    return f"{row['n_real']:,} / {row['n_synthetic']:,}"


def paper_cell(row: Row, wording: Wording) -> str:
    """`54.225 Sana`, the paper's best for this row; `?` marks a suspect cell; empty where nothing may stand there."""
    found = None if comparable(row) else best(row["metric"], row["encoder"], row["subset"])
    if found is None:
        return ""
    return wording.own(f"{found.value}{'?' if found.suspect else ''} {found.model}")
