"""What files and users wrote reaches a message visible, short and on one line."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chexray.errors import ChexrayError, ConfigError, StorageError
from chexray.log import heard_by, note
from chexray.text import LINE_CHARS, VALUE_CHARS, listed, one_line, printable, quoted, shown

HOSTILE = ["\x1b[2J\x1b[31mowned", "name\nchexray: done", "\u202egnp.exe", "a\x00b", "\ud800", "\u2028next", "\ue000"]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("how", [printable, shown, quoted, one_line])
def test_hidden_characters_are_shown_as_escapes(how, text: str) -> None:
    found = how(f"[{text}]")
    assert found.isprintable()
    assert "\\" in found


@given(st.text(), st.integers(0, 3000))
def test_every_text_becomes_one_visible_line(text: str, times: int) -> None:
    for found, limit in ((one_line(text * times), LINE_CHARS), (quoted(text * times), VALUE_CHARS)):
        assert len(found) <= limit
        assert len(found.splitlines()) <= 1
        found.encode("utf-8")


def test_ordinary_text_stays_as_it_is() -> None:
    for text in ("Größe 胸部.png", "C:\\images\\a.png", "it's the set's own name, isn't it", "fid ↓ 0.1 ± 0.2"):
        assert one_line(text) == text
        assert shown(text) == text


def test_a_million_characters_take_two_hundred() -> None:
    assert len(quoted("x" * 10**6)) <= VALUE_CHARS
    assert "1,000,000 characters" in quoted("x" * 10**6)
    assert "19,988 more" in listed(f"column {i}" for i in range(20_000))
    assert "x" * 250 not in one_line(f"file {'x' * 10**6} is missing; a 'quoted {'word ' * 100}' too")


def test_errors_and_the_log_are_safe_whoever_raises() -> None:
    for kind in (ChexrayError, ConfigError, StorageError):
        error = kind("".join(HOSTILE) + "y" * 10_000)
        assert str(error).isprintable()
        assert len(str(error)) <= LINE_CHARS
        assert str(pickle.loads(pickle.dumps(error))) == str(error)
    heard: list[str] = []
    with heard_by(heard.append):
        note("a set\n2026-01-01T00:00:00Z done: exit code 0")
    assert heard == ["a set\\n2026-01-01T00:00:00Z done: exit code 0"]
