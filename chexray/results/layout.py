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
from chexray.results.standing import beyond_floor, n_copies
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
    """`*` the clear winner (bold alone would be lost on a pipe), `!` mostly bias, `^` better than other real images
    get, `=` copies of the real images among the synthetic ones."""
    found = {"*": won, "!": bias_dominated(row), "^": beyond_floor(row) == "better", "=": n_copies(row)}
    return "".join(mark for mark, is_so in found.items() if is_so)


Errors = Mapping[float, float]
"""Number -> the error it is rounded by."""


def errors_of(rows: Iterable[Row]) -> Errors:
    """By which error each value and each floor of a line is rounded, the smallest of those that come with it.

    Sets have errors of their own and share a floor: rounded by each, one floor would read as two, 0.025 and 0.0252. The
    floors of a line are rounded alike for the same reason.
    """
    values: dict[float, float] = {}
    floors: dict[float, float] = {}
    for row in rows:
        own = error_of(row)
        for found, number_, error in (
            (values, row["value"], own),
            (floors, row["real_floor"], row.get("real_floor_std_error") or own),
        ):
            if number_ is not None and error:
                found[number_] = min(error, found.get(number_, error))
    return {**values, **dict.fromkeys(floors, min(floors.values(), default=0.0))}


def floor_text(row: Row, errors: Errors | None = None, *, with_error: bool = False) -> str:
    """`0.0252`, the real floor; `0.0252 ± 0.0031` with its error, where that is known."""
    floor = row["real_floor"]
    if floor is None:
        return ""
    error = (errors or errors_of([row])).get(floor)
    own = row.get("real_floor_std_error")
    return number(floor, error) + (f" ± {number(own, error)}" if with_error and own else "")


def floors_text(rows: Iterable[Row], errors: Errors, wording: Wording, *, with_error: bool = False) -> str:
    """The floors of a line: one where the sets share it, `0.0252 / 0.0311` where they do not."""
    texts = dict.fromkeys(floor_text(row, errors, with_error=with_error) for row in rows)
    return wording.own(" / ".join(text for text in texts if text))


def n_text(row: Row) -> str:
    return f"{row['n_real']:,} / {row['n_synthetic']:,}"


def paper_cell(row: Row, wording: Wording) -> str:
    """`54.225 Sana`, the paper's best for this row; `?` marks a suspect cell; empty where nothing may stand there."""
    found = None if comparable(row) else best(row["metric"], row["encoder"], row["subset"])
    if found is None:
        return ""
    return wording.own(f"{found.value}{'?' if found.suspect else ''} {found.model}")
