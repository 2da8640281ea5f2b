"""What a report says, apart from how it is shown: sections of grids, callouts and notes.

Pure functions build it from rows. Texts are as they came from files and users, and nothing is wrapped: to escape, cut
and lay out is the work of a renderer, such as `chexray.report.terminal`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Tone = Literal["", "strong", "alarm", "quiet"]
"""strong: a clear winner. alarm: what must not be overlooked. quiet: set back."""


@dataclass(frozen=True)
class Cell:
    """One place of a grid: a number with what belongs to it, or a name.

    text: the rounded value, or the name. marks: signs after it that a legend explains. interval: `[0.1, 0.2]` or
    `± 0.1`. aside: what else stands beside it, such as its real floor in brackets. number: the unrounded value, to sort
    by. link: the id of a section or an image.
    """

    text: str = ""
    marks: str = ""
    interval: str = ""
    aside: str = ""
    tone: Tone = ""
    number: float | None = None
    link: str = ""

    @property
    def parts(self) -> tuple[str, ...]:
        """The cell in at most two pieces: the value, and the rest, which may stand below it."""
        rest = " ".join(part for part in (self.interval, self.aside) if part)
        return tuple(part for part in (f"{self.text}{self.marks}", rest) if part)


EMPTY = Cell()


@dataclass(frozen=True)
class Column:
    """head: its name; over, under: smaller lines around it, such as a generator's name or n.

    alike: one of several of a kind (sets, runs, metrics), which may be put into blocks below each other. Other columns
    are repeated in each block. rank: where width is short, columns of the highest rank are left out first, and named;
    those of rank 0 never. width: longer texts fold. once: a text that stands in the line above is not repeated.
    """

    head: str
    over: str = ""
    under: str = ""
    align: Literal["left", "right"] = "left"
    alike: bool = False
    rank: int = 0
    width: int = 0
    once: bool = False


@dataclass(frozen=True)
class Line:
    """One row of a grid. kind: lines of different kinds are set apart. above: a heading over lines that share it."""

    cells: tuple[Cell, ...]
    kind: str = ""
    above: str = ""


@dataclass(frozen=True)
class Grid:
    """A table. one_line: columns are rather left out than intervals put below their values. elsewhere: where the
    columns are that are left out."""

    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    tone: Tone = ""
    one_line: bool = False
    elsewhere: str = "results.csv"


@dataclass(frozen=True)
class Callout:
    """A verdict. about: the set or file. verdict: in a few words. texts: what it rests on, one fact each."""

    about: str
    verdict: str = ""
    texts: tuple[str, ...] = ()
    tone: Tone = ""

    @property
    def line(self) -> str:
        """The callout as one line."""
        head = ": ".join(part for part in (self.about, self.verdict) if part)
        return ": ".join(part for part in (head, "; ".join(self.texts)) if part)


@dataclass(frozen=True)
class Note:
    """A footnote: how to read the numbers, or why some are missing."""

    text: str
    tone: Tone = "quiet"


@dataclass(frozen=True)
class Figure:
    """A plot. name: the file that holds it. says: what it shows, in words. behind: its numbers."""

    name: str
    says: str
    behind: Grid | None = None


@dataclass(frozen=True)
class Section:
    """id: unique in the document."""

    title: str
    parts: tuple[Grid | Callout | Note | Figure | Section, ...] = ()
    id: str = ""
    tone: Tone = "strong"


Part = Grid | Callout | Note | Figure | Section


@dataclass(frozen=True)
class Document:
    """sections: every table of a run. verdicts: one section a suite, then what to read with care."""

    sections: tuple[Section, ...] = ()
    verdicts: tuple[Section, ...] = field(default=())
