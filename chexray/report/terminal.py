"""Shows a document on a terminal of any width, in ASCII where the stream is not UTF-8.

Here alone are texts escaped: nothing that a file or a set is called can steer the terminal.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from chexray.report.document import Callout, Cell, Grid, Line, Note, Part, Section
from chexray.report.layout import BARE, BELOW, heads_of, layout_of, parts_of, unbroken
from chexray.text import clipped, printable

RULED = box.SIMPLE_HEAD
RULED_ASCII = box.Box(str(RULED).replace("─", "-"), ascii=True)
"""One line under the head and none elsewhere."""

_PLAIN = {"↓": "(lower)", "↑": "(higher)", "→": "(floor)", "±": "+/-", "–": "-", "·": "|", "×": "x", "…": "..."}
TEXT_CHARS = 1500
"""The longest text of our own, with a list of reasons, takes about 900."""
STYLES = {"": "", "strong": "bold", "alarm": "bold red", "quiet": "dim"}


@dataclass(frozen=True)
class View:
    """Parts of a document as a rich renderable. width: to lay out for, where it is not the console's."""

    parts: Sequence[Part]
    width: int | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        utf8 = console.encoding.lower().replace("_", "-").startswith("utf")
        page = Page(console, self.width or options.max_width, plain=not utf8)
        return page.show(self.parts)


@dataclass(frozen=True)
class Page:
    """What to lay out for. plain: in ASCII."""

    console: Console
    width: int
    plain: bool

    def text(self, text: str, style: str = "") -> Text:
        return Text(self.safe(text), style=style)

    def safe(self, text: str) -> str:
        """What the stream can carry and no file name can steer: every hidden character is an escape."""
        shown = printable(clipped(text, TEXT_CHARS))
        return ascii_safe(shown) if self.plain else shown

    def show(self, parts: Iterable[Part], depth: int = 0, beside: Sequence[Grid] = ()) -> Iterator[RenderableType]:
        """The parts one after another; callouts that follow each other share a table. beside: grids of one kind in
        neighbouring sections, which leave out the same columns, since the eye goes back and forth between them."""
        parts, waiting = list(parts), []
        inner = [part for section in parts if isinstance(section, Section) for part in section.parts]
        alike = [part for part in inner if isinstance(part, Grid) and part.one_line]
        for part in parts:
            if isinstance(part, Callout):
                waiting.append(part)
                continue
            yield from self.callouts(waiting)
            waiting = []
            if isinstance(part, Section):
                yield from self.section(part, depth, alike)
            elif isinstance(part, Grid):
                yield from self.grid(part, beside if part.one_line else ())
            elif isinstance(part, Note):
                yield self.note(part)
            else:
                yield self.note(Note(f"{part.name}: {part.says}"))
        yield from self.callouts(waiting)

    def section(self, section: Section, depth: int, alike: Sequence[Grid]) -> Iterator[RenderableType]:
        if section.title:
            yield from [Text("")] * (depth > 0)
            yield self.text(section.title, STYLES[section.tone])
        yield from self.show(section.parts, depth + 1, alike)
        if not depth:
            yield Text("")

    def note(self, note: Note) -> RenderableType:
        return Padding(self.text(note.text, STYLES[note.tone]), (0, 0, 0, 1), expand=False)

    def callouts(self, found: Sequence[Callout]) -> Iterator[RenderableType]:
        """What they are about, the verdict, and one fact a line; without columns where these would be narrow."""
        if not found:
            return
        about = max(len(each.about) for each in found)
        verdict = max(len(each.verdict) for each in found)
        if about + verdict > self.width // 2:
            yield from (self.text(each.line, STYLES[each.tone]) for each in found)
            return
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        heads = [name for name, size in (("about", about), ("verdict", verdict)) if size]
        for _ in heads:
            table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for each in found:
            style = STYLES[each.tone]
            cells = [self.text(getattr(each, name), style) for name in heads]
            table.add_row(*cells, Text("\n".join(map(self.safe, each.texts))))
        yield Padding(table, (0, 0, 0, 1), expand=False)

    def grid(self, grid: Grid, beside: Sequence[Grid] = ()) -> Iterator[RenderableType]:
        """The grid in the layout that suits it, and the names of the columns that are left out."""
        found = layout_of(grid, self.width, self.safe, beside)
        for place, block in enumerate(found.blocks):
            yield from [Text("")] * (place > 0)
            yield self._table(block, found.form)
        if found.form == BARE:
            yield self.note(Note("intervals: see results.csv"))
        if found.left_out:
            names = ", ".join(dict.fromkeys(column.head for column in found.left_out))
            yield self.note(Note(f"not shown at this width: {names}; see {grid.elsewhere}"))

    def _table(self, grid: Grid, form: str) -> Table:
        table = Table(
            box=RULED_ASCII if self.plain else RULED, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0),
            style=STYLES[grid.tone],
        )  # fmt: skip
        whole = unbroken(grid, form, self.width, self.safe)
        for place, (column, head) in enumerate(zip(grid.columns, heads_of(grid), strict=True)):
            text, limit = Text("\n".join(map(self.safe, head))), column.width or None
            table.add_column(text, justify=column.align, overflow="fold", max_width=limit, no_wrap=place in whole)
        before: Line | None = None
        for line in grid.lines:
            if before and line.kind != before.kind:
                table.add_section()
            if line.above and not (before and line.above == before.above):
                table.add_row(self.text(line.above, "bold"))
            told = [before and column.once and cell == old for column, cell, old in
                    zip(grid.columns, line.cells, (before or line).cells, strict=True)]  # fmt: skip
            cells = zip(line.cells, told, strict=True)
            table.add_row(*(Text("") if again else self._cell(cell, form) for cell, again in cells))
            before = line
        return table

    def _cell(self, cell: Cell, form: str) -> Text:
        first, *rest = parts_of(cell, form)
        between = "\n" if form == BELOW else " "
        return Text.assemble(self.text(first, STYLES[cell.tone]), *(between + self.safe(part) for part in rest))


def ascii_safe(text: str) -> str:
    """The text for a stream that is not UTF-8: our arrows and dashes spelled out, other characters as escapes."""
    for mark, plain in _PLAIN.items():
        text = text.replace(mark, plain)
    return text.encode("ascii", "backslashreplace").decode()
