"""Rounding by the error, and text that cannot harm a terminal."""

from __future__ import annotations

import pytest

from chexray.results.wording import Wording, fingerprint, number, set_name


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
    words = Wording()
    assert f"{words.value(row)} {words.interval(row)}" == "0.1234 [0.1173, 0.1295]"
    assert words.value_and_error(row) == "0.1234 ± 0.0031"
    assert words.interval(row | {"ci_low": None}) == "± 0.0031"
    assert words.interval(row | {"ci_low": None, "std_error": None}) == ""
    assert words.value(row | {"value": None}) == "–"
    assert Wording(unicode=False).value_and_error(row) == "0.1234 +/- 0.0031"


def test_data_cannot_steer_the_terminal():
    evil = "a\x1b[31mred\x07\nb\u202egnp.exe\u200b\t[bold]"
    assert Wording().data(evil) == r"a\x1b[31mred\x07\nb\u202egnp.exe\u200b\t[bold]"
    assert len(Wording().data("x" * 10**6)) <= 400
    assert Wording(unicode=False).data("Röntgen ✓") == "R\\xf6ntgen \\u2713"


def test_sets_are_named_and_identified():
    assert (set_name("nih@0123456789abcdef"), fingerprint("nih@0123456789abcdef")) == ("nih", "0123456789abcdef")
    assert set_name("me@home") == fingerprint("me@home") == "me@home"
