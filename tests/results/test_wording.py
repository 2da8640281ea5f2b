"""Rounding by the error, and text that cannot harm a terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from chexray.report.cells import value_cell
from chexray.report.document import Cell, Column, Grid, Line, Note
from chexray.report.terminal import View, ascii_safe
from chexray.report.wording import both, some, value_and_interval
from chexray.results.identity import fingerprint, set_name
from chexray.results.numbers import interval_text, number, value_text


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.12341, 0.0031, "0.1234"),
        (54.2251, 1.33, "54.2"),
        (54.2251, 13.3, "54"),
        (54.2251, None, "54.23"),
        (0.0, None, "0"),
        (-0.00001, 0.003, "0.0000"),
        (-0.0012, 0.003, "-0.0012"),
        (0.099, 0.0996, "0.10"),
        (128897.4, 1234.0, "128,897"),
        (1.5e-7, 3e-8, "1.50e-07"),
        (3.2e9, 1e6, "3.200e+09"),
        (0.8, 0.0, "0.8000"),
    ],
)
def test_numbers_show_two_digits_of_their_error(value, error, text):
    assert number(value, error) == text


def test_intervals_and_errors():
    row = {"value": 0.1234, "std_error": 0.0031, "ci_low": 0.1173, "ci_high": 0.1295}
    assert value_and_interval(row) == "0.1234 [0.1173, 0.1295]"
    assert value_cell(row | {"metric": "kid"}, short=True).interval == "± 0.0031"
    assert interval_text(row | {"ci_low": None}) == "± 0.0031"
    assert interval_text(row | {"ci_low": None, "std_error": None}) == ""
    assert value_text(row | {"value": None}) == "–"
    assert ascii_safe("0.1234 ± 0.0031 – kid ↓") == "0.1234 +/- 0.0031 - kid (lower)"


def test_lists_are_joined_and_cut():
    assert (both(["a"]), both(["a", "b", "c"]), both([])) == ("a", "a, b and c", "")
    assert some(["a", "b", "c"], 2) == "a, b and 1 more"


def shown(part, encoding="utf-8", width=10_000):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, newline="")
    Console(file=stream, width=width).print(View([part]))
    stream.flush()
    return raw.getvalue().decode(encoding)


def test_data_cannot_steer_the_terminal():
    evil = "a\x1b[31mred\x07\nb\u202egnp.exe\u200b\t[bold]"
    escaped = r"a\x1b[31mred\x07\nb\u202egnp.exe\u200b\t[bold]"
    grid = Grid((Column(evil, over=evil, under=evil),), (Line((Cell(evil, evil, evil, evil),), above=evil),))
    assert shown(Note(evil)).strip() == escaped
    assert shown(grid).count(escaped) == 8
    assert len(shown(Note("x" * 10**6)).strip()) <= 1500
    assert shown(Note("Röntgen ✓"), "ascii").strip() == "R\\xf6ntgen \\u2713"


def test_sets_are_named_and_identified():
    assert (set_name("nih@0123456789abcdef"), fingerprint("nih@0123456789abcdef")) == ("nih", "0123456789abcdef")
    assert set_name("me@home") == fingerprint("me@home") == "me@home"
