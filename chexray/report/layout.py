"""How a grid is laid out on so many characters of width.

The layout that leaves out least, then that of fewest lines: intervals beside or below their values, columns of a kind
in one block or in several below each other. What is left out is known to the caller, who names it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from rich.cells import cell_len

from chexray.report.document import Cell, Column, Grid, Line

BESIDE, BELOW, BARE = "beside", "below", "bare"
"""Where intervals stand; bare: nowhere, for grids that are set back."""

GAP = 2
"""Characters between columns."""
HEAD_BREAKS_AT = 12
"""Longer heads break after their first underscore."""

NUMBER_WIDTH, NAME_WIDTH = 24, 6
"""Characters of the widest number with its interval; of the narrowest name that folds."""

Clean = Callable[[str], str]
"""What a text becomes on the stream."""


@dataclass(frozen=True)
class Layout:
    """blocks: below each other. left_out: columns that the width has no place for."""

    blocks: tuple[Grid, ...]
    form: str = BESIDE
    left_out: tuple[Column, ...] = ()


def layout_of(grid: Grid, width: int, clean: Clean, beside: Sequence[Grid] = ()) -> Layout:
    """The layout of a grid at `width`. beside: grids of the same kind, which leave out the same columns."""
    left_out: list[Column] = []
    found, others = _lightest(grid, width, clean), list(beside)
    for column in sorted((column for column in grid.columns if column.rank), key=lambda column: -column.rank):
        if found and all(_lightest(other, width, clean) for other in others):
            break
        left_out.insert(0, column)
        grid, others = _without(grid, column), [_without(other, column) for other in others]
        found = _lightest(grid, width, clean)
    narrowest = Layout(tuple(_blocks(grid, max(1, sum(column.alike for column in grid.columns)))), BELOW)
    return replace(found or narrowest, left_out=tuple(left_out))


def parts_of(cell: Cell, form: str) -> tuple[str, ...]:
    """The value, and what stands beside or below it."""
    return (replace(cell, interval="") if form == BARE else cell).parts or ("",)


def heads_of(grid: Grid) -> list[list[str]]:
    """The lines over each column, of equal number, the first ones empty."""
    heads = [list(_head(column)) for column in grid.columns]
    height = max(map(len, heads))
    return [[""] * (height - len(head)) + head for head in heads]


def _head(column: Column) -> Iterator[str]:
    first, mark, rest = column.head.partition("_")
    broken = (f"{first}{mark}", rest) if len(column.head) > HEAD_BREAKS_AT else (column.head,)
    return (text for text in (column.over, *broken, column.under) if text)


def _lightest(grid: Grid, width: int, clean: Clean) -> Layout | None:
    """The layout of fewest lines among those that fit; None where none does."""
    forms = (BESIDE, BARE) if grid.tone == "quiet" else (BESIDE,) if grid.one_line else (BESIDE, BELOW)
    for count in range(1, max(1, sum(column.alike for column in grid.columns)) + 1):
        blocks = _blocks(grid, count)
        fitting = [form for form in forms if all(_width(block, form, clean) <= width for block in blocks)]
        if fitting:  # more blocks are longer
            form = min(fitting, key=lambda form: (sum(_height(block, form) for block in blocks), forms.index(form)))
            return Layout(tuple(blocks), form)
    return None


def unbroken(grid: Grid, form: str, width: int, clean: Clean) -> set[int]:
    """The columns of numbers, which stay whole where only folding makes the grid fit, and names leave them the room."""
    widths = list(_widths(grid, form, clean))
    firm = {place for place, column in enumerate(grid.columns) if not column.width and widths[place] <= NUMBER_WIDTH}
    room = width - GAP * (len(widths) - 1) - sum(widths[place] for place in firm)
    return firm if room >= NAME_WIDTH * (len(widths) - len(firm)) else set()


def _width(grid: Grid, form: str, clean: Clean) -> int:
    return sum(_widths(grid, form, clean)) + GAP * (len(grid.columns) - 1)


def _widths(grid: Grid, form: str, clean: Clean) -> Iterator[int]:
    for place, (column, head) in enumerate(zip(grid.columns, heads_of(grid), strict=True)):
        texts = [*head, *(line.above for line in grid.lines if place == 0)]
        for line in grid.lines:
            parts = parts_of(line.cells[place], form)
            texts += parts if form == BELOW else [" ".join(parts)]
        widest = max(cell_len(clean(text)) for text in texts)
        yield min(widest, column.width) if column.width else widest


def _height(grid: Grid, form: str) -> int:
    """Lines, the folds of long names aside."""
    lines = [max(len(parts_of(cell, form)) if form == BELOW else 1 for cell in line.cells) for line in grid.lines]
    return sum(lines) + len(heads_of(grid)[0])


def _without(grid: Grid, column: Column) -> Grid:
    return _of(grid, [place for place, other in enumerate(grid.columns) if other != column])


def _of(grid: Grid, places: Sequence[int]) -> Grid:
    columns = tuple(grid.columns[place] for place in places)
    lines = tuple(Line(tuple(line.cells[place] for place in places), line.kind, line.above) for line in grid.lines)
    return replace(grid, columns=columns, lines=lines)


def _blocks(grid: Grid, count: int) -> list[Grid]:
    """The grid in `count` blocks of about as many columns of a kind; other columns are in each."""
    alike = [place for place, column in enumerate(grid.columns) if column.alike]
    if count < 2 or len(alike) < count:
        return [grid]
    size, more = divmod(len(alike), count)
    ends = [size * n + min(n, more) for n in range(count + 1)]
    pieces = [set(alike[start:end]) for start, end in pairwise(ends)]
    return [
        _of(grid, [n for n, column in enumerate(grid.columns) if not column.alike or n in piece]) for piece in pieces
    ]
