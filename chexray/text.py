"""Text that came from files, services or users, made fit for a terminal, a log or a message: one line, visible, short.

Control characters, bidirectional marks and line breaks can rewrite what a terminal shows, forge a second log line or
reverse a name; they are shown as escapes (\\x1b, \\u202e, \\n). A value takes at most VALUE_CHARS of a message and a
message at most LINE_CHARS, however long a name or an id is.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

VALUE_CHARS = 200
"""Characters of one value that a message may repeat."""
LINE_CHARS = 1500
"""Characters of a whole message. The longest of our own, with a list of known keys, takes about 900."""

_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
_LONG_WORD = re.compile(rf"\S{{{VALUE_CHARS + 1},}}")
_LONG_QUOTE = re.compile(rf"""(?<!\w)(?:'[^']{{{VALUE_CHARS + 1},}}'|"[^"]{{{VALUE_CHARS + 1},}}")(?!\w)""")


def printable(text: object) -> str:
    """`text` as a string in which every control, format, surrogate, private or line-breaking character is an escape."""
    shown = str(text)
    if shown.isascii() and shown.isprintable():  # nearly all of them
        return shown
    return "".join(_escaped(char) if unicodedata.category(char) in _HIDDEN else char for char in shown)


def clipped(text: str, limit: int = VALUE_CHARS) -> str:
    """`text` in at most `limit` characters: its middle is replaced by " ... ", since names differ at either end."""
    if len(text) <= limit:
        return text
    front = (limit - 5) * 3 // 4
    return f"{text[:front]} ... {text[front + 5 - limit :]}"


def shown(value: object, limit: int = VALUE_CHARS) -> str:
    """A value for a message without quotes, such as a path: visible and at most `limit` characters."""
    text = value if isinstance(value, str) else str(value)
    # Cut before escaping, or a value of a million control characters would be escaped first.
    return clipped(printable(clipped(text, 2 * limit)), limit)


def quoted(value: object, limit: int = VALUE_CHARS) -> str:
    """A value for a message as repr() shows it, visible and at most `limit` characters; a long text says its length."""
    if not isinstance(value, str):
        return shown(repr(value), limit)
    if len(value) <= limit:
        return clipped(printable(repr(value)), limit)
    return f"{printable(repr(clipped(value, limit - 40)))[: limit - 25]}... ({len(value):,} characters)"


def listed(names: Iterable[object], at_most: int = 12) -> str:
    """`a, b and 19,990 more`: names for a message, each visible and short, the others counted."""
    every = list(names)
    text = ", ".join(shown(name, 60) for name in every[:at_most])
    return f"{text} and {len(every) - at_most:,} more" if len(every) > at_most else text


def one_line(text: object, limit: int = LINE_CHARS) -> str:
    """A whole message on one visible line of at most `limit` characters, no word or quoted value over VALUE_CHARS.

    The net under every message; where a value is known, `quoted` and `shown` cut it better.
    """
    line = str(text)
    line = line if len(line) <= 4 * limit else clipped(line, 4 * limit)
    line = _LONG_QUOTE.sub(lambda found: f"{found[0][0]}{clipped(found[0][1:-1])}{found[0][0]}", line.strip())
    line = _LONG_WORD.sub(lambda found: clipped(found[0]), line)
    return clipped(printable(line), limit)


def first_line(error: object, limit: int = VALUE_CHARS) -> str:
    """The first line of what a library said that is not empty, for brackets inside a message of our own."""
    lines = (line.strip() for line in str(error)[:10_000].splitlines())
    return shown(next((line for line in lines if line), ""), limit)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode() if char != "\\" else char
