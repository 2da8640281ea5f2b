"""Small words around numbers: directions, lists, per cent."""

from __future__ import annotations

from collections.abc import Sequence

from chexray.results.numbers import interval_text, value_text
from chexray.results.rows import Row


def arrow(better: str) -> str:
    """The direction in which a metric gets better, with a space before it; empty when there is none."""
    return {"lower": " ↓", "higher": " ↑", "floor": " →"}.get(better, "")


def value_and_interval(row: Row) -> str:
    """`0.5390 [0.52, 0.56]`."""
    return " ".join(part for part in (value_text(row), interval_text(row)) if part)


def percent(share: float, digits: int = 3) -> str:
    """`4.98 %`."""
    return f"{100 * share:.{digits}g} %"


def some(names: Sequence[str], most: int = 4) -> str:
    """`a, b, c, d and 3 more`."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def both(names: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part) if names else ""
