"""Rows as cells of a grid: rounded alike along a line, with their marks, floors and the paper's best."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from chexray.outputs import output_of
from chexray.report.document import EMPTY, Cell, Tone
from chexray.results.numbers import error_of, interval_text, number, value_text
from chexray.results.published import best, comparable
from chexray.results.rows import Row, bias_dominated
from chexray.results.standing import beyond_floor, n_copies

Errors = Mapping[float, float]
"""Number -> the error it is rounded by."""

_IN_UNITS = ("value", "std_error", "ci_low", "ci_high", "real_floor", "real_floor_std_error")


def value_cell(
    row: Row | None, errors: Errors | None = None, *, marked: str = "", tone: Tone = "", short: bool = False
) -> Cell:
    """`0.1234* [0.117, 0.130]`, with a star in bold; short: `0.1234* ± 0.0031`. EMPTY without a row."""
    if row is None:
        return EMPTY
    shown = displayed(row)
    error = (errors or {}).get(shown["value"])
    interval = interval_text({**shown, "ci_low": None} if short else shown, error or error_of(shown))
    tone = tone or ("strong" if "*" in marked else "")
    return Cell(value_text(shown, error), marked, interval, tone=tone, number=row["value"])


def floor_cell(row: Row, errors: Errors) -> Cell:
    """`0.0252 ± 0.0031`, the real floor; EMPTY where there is none."""
    shown = displayed(row)
    floor, own = shown["real_floor"], shown.get("real_floor_std_error")
    if floor is None:
        return EMPTY
    error = errors.get(floor)
    return Cell(number(floor, error), interval=f"± {number(own, error)}" if own else "", number=row["real_floor"])


def paper_cell(row: Row) -> Cell:
    """`54.225 Sana`, the paper's best for this row; `?` marks a suspect cell; EMPTY where nothing may stand there."""
    found = None if comparable(row) else best(row)
    if found is None:
        return EMPTY
    return Cell(str(found.value), "?" if found.suspect else "", aside=found.model, number=found.value)


def displayed(row: Row) -> Row:
    """The row in the units that its metric is shown in."""
    return scaled(row, output_of(row).scale)


def scaled(row: Row, factor: float) -> Row:
    """The row in other units."""
    if factor == 1:
        return row
    return {**row, **{name: factor * row[name] for name in _IN_UNITS if row.get(name) is not None}}


def marks(row: Row, won: bool) -> str:
    """`*` the clear winner (bold alone would be lost on a pipe), `!` mainly sample size, `^` better than other real
    images get, `=` copies of the real images among the synthetic ones."""
    found = {"*": won, "!": bias_dominated(row), "^": beyond_floor(row) == "better", "=": n_copies(row)}
    return "".join(mark for mark, is_so in found.items() if is_so)


def errors_of(rows: Iterable[Row]) -> Errors:
    """By which error each value and each floor of a line is rounded, the smallest of those that come with it.

    Sets have errors of their own and share a floor: rounded by each, one floor would read as two, 0.025 and 0.0252. The
    floors of a line are rounded alike for the same reason.
    """
    values: dict[float, float] = {}
    floors: dict[float, float] = {}
    for row in map(displayed, rows):
        own = error_of(row)
        for found, number_, error in (
            (values, row["value"], own),
            (floors, row["real_floor"], row.get("real_floor_std_error") or own),
        ):
            if number_ is not None and error:
                found[number_] = min(error, found.get(number_, error))
    return {**values, **dict.fromkeys(floors, min(floors.values(), default=0.0))}


def n_text(rows: Sequence[Row]) -> str:
    """`400 / 400`, real and synthetic; `200-400 / 400` where it differs between the rows."""
    sides = ([row[name] for row in rows] for name in ("n_real", "n_synthetic"))
    return " / ".join(f"{min(side):,}" if min(side) == max(side) else f"{min(side):,}-{max(side):,}" for side in sides)


def n_words(rows: Sequence[Row]) -> str:
    """`n = 400 / 400`, real and synthetic; empty where it differs between the rows."""
    sizes = {(row["n_real"], row["n_synthetic"]) for row in rows}
    return f"n = {n_text(rows)}" if len(sizes) == 1 else ""


def ordered_by_rank(keys: Iterable[Any], row_of: Callable[[Any], Row]) -> list[Any]:
    """Headlines first, as their metrics rank them; the others as they came. row_of: a row of a key."""
    return sorted(keys, key=lambda key: output_of(row_of(key)).rank or 1_000)
