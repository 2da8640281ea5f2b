"""What privacy numbers leave out: those that never have an error estimate, and what each cannot see."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from chexray.outputs import output_of
from chexray.report.reasons import has_error
from chexray.report.reasons import said_of as said_of_any
from chexray.report.wording import both
from chexray.results.rows import Row, params_of

WITHOUT_ERROR = {
    "extreme": "extremes of pairs",
    "exact within": "counts within a set",
    "near within": "counts within a set",
}
"""Role -> what numbers of it are called; they never have an error estimate."""


def said_of(row: Row) -> Iterator[str]:
    """What is remarked of a row; not that it has no error, where it never has one."""
    never = output_of(row).role in WITHOUT_ERROR
    return (text for text in said_of_any(row) if not (never and text.startswith("no error estimate")))


def without_error(rows: Iterable[Row]) -> list[str]:
    """The line about numbers that never have an error estimate, naming the kinds that are there."""
    roles = {output_of(row).role for row in rows if row["value"] is not None and not has_error(row)}
    kinds = list(dict.fromkeys(words for role, words in WITHOUT_ERROR.items() if role in roles))
    return [f"{both(kinds)} have no error estimate: compare them at equal n"] if kinds else []


def blind_spots(rows: Iterable[Row], *, by_role: bool = False) -> list[str]:
    """`blind spot of c_t: a few copies ...`, as the rows or their metrics say, each once. by_role: called by their
    role, such as exact training."""
    by_text: dict[str, list[str]] = {}
    for row in rows:
        output = output_of(row)
        if text := str(params_of(row).get("cannot_see") or output.cannot_see):
            by_text.setdefault(text, []).append(output.role if by_role else output.label or row["metric"])
    return [f"blind spot of {', '.join(dict.fromkeys(names))}: {text}" for text, names in by_text.items()]
