"""One rule lays out every grid: what fits, leaves out least, and has the fewest lines."""

from __future__ import annotations

from results.test_wording import shown

from chexray.report.document import Callout, Cell, Column, Grid, Line, Note, Section
from chexray.report.layout import BARE, BELOW, BESIDE, layout_of

NUMBER = Cell("0.1234", "*", "[0.1173, 0.1295]")


def grid(columns=3, *, alike=True, ranks=False, **changes):
    """Three lines of numbers, 24 characters each, beside names of 4."""
    heads = [Column(f"m{place}", alike=alike, rank=place if ranks else 0) for place in range(columns)]
    lines = tuple(Line((Cell(f"set{n}"), *[NUMBER] * columns)) for n in range(3))
    return Grid((Column("name"), *heads), lines, **changes)


def laid_out(one, width, beside=()):
    found = layout_of(one, width, str, beside)
    return [len(block.columns) - 1 for block in found.blocks], found.form, [column.head for column in found.left_out]


def test_intervals_stand_beside_then_below_then_in_blocks():
    assert laid_out(grid(), 4 + 3 * 26) == ([3], BESIDE, [])
    assert laid_out(grid(), 4 + 3 * 26 - 1) == ([3], BELOW, [])
    assert laid_out(grid(), 4 + 2 * 18) == ([2, 1], BELOW, [])
    assert laid_out(grid(4), 4 + 2 * 26) == ([2, 2], BESIDE, [])
    assert laid_out(grid(), 10) == ([1, 1, 1], BELOW, [])  # names and numbers fold


def test_columns_that_are_not_alike_are_left_out_by_rank():
    assert laid_out(grid(alike=False, ranks=True), 4 + 2 * 18) == ([2], BELOW, ["m2"])
    assert laid_out(grid(alike=False, ranks=True, one_line=True), 4 + 2 * 26) == ([2], BESIDE, ["m2"])
    assert laid_out(grid(alike=False, ranks=True), 10) == ([1], BELOW, ["m1", "m2"])  # rank 0 stays


def test_grids_of_a_kind_leave_out_the_same():
    wide = grid(2, alike=False, ranks=True, one_line=True)
    assert laid_out(wide, 4 + 2 * 26) == ([2], BESIDE, [])
    longer = Grid(wide.columns, (Line((Cell("a longer name"), NUMBER, NUMBER)),), one_line=True)
    assert laid_out(wide, 4 + 2 * 26, [longer]) == ([1], BESIDE, ["m1"])
    page = Section("t", (Section("a", (wide,)), Section("b", (longer,))))
    assert shown(page, width=4 + 2 * 26).count("not shown at this width: m1; see results.csv") == 2


def test_numbers_that_are_set_back_lose_their_intervals_and_say_where_they_are():
    assert laid_out(grid(tone="quiet"), 4 + 3 * 9) == ([3], BARE, [])
    assert "intervals: see results.csv" in shown(grid(tone="quiet"), width=31)


def test_a_name_is_said_once_and_a_heading_over_lines_that_share_it():
    columns = (Column("encoder", once=True), Column("set"))
    lines = tuple(Line((Cell(e), Cell(s)), above="all") for e, s in (("a", "x"), ("a", "x"), ("b", "x")))
    text = shown(Grid(columns, lines))
    assert [text.count(word) for word in ("all", "a ", "b ", "x")] == [1, 1, 1, 3]


def test_callouts_are_columns_where_these_are_wide_enough():
    said = [Callout("good", "differs", ("a fact", "another")), Callout("a" * 60, "differs", ("a fact",))]
    assert shown(Section("", tuple(said[:1]))).splitlines()[0].split() == ["good", "differs", "a", "fact"]
    narrow = shown(Section("", tuple(said)), width=80)
    assert "good: differs: a fact; another" in narrow
    assert max(map(len, narrow.splitlines())) <= 80
    assert shown(Note("plain"), width=80).strip() == "plain"
