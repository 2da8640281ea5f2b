"""What an unknown word was probably meant to be, and words for counts: one copy of each for every message."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterable

from chexray.text import listed, quoted

_MOST, _CHARS = 2_000, 200
"""Known words that are compared, and characters of each: comparing is quadratic, and a table may have 20,000 columns
with names of any length."""


def fold(text: str) -> str:
    """A name without case, spaces and punctuation: "Pleural Effusion" and pleural_effusion agree."""
    return re.sub(r"[^0-9a-z]", "", text.lower())


def nearest(word: str, known: Iterable[str], cutoff: float = 0.65) -> str:
    """The one known word that `word` was probably meant to be, "" for none.

    The same word in another case or punctuation, the only one that begins like it, or the most similar one.
    cutoff: smallest similarity, from 0 to 1 (`difflib`).
    """
    short = [name for name in itertools.islice(known, _MOST) if len(name) <= _CHARS]
    folded = {fold(name): name for name in reversed(short)}
    asked = fold(word[:_CHARS])
    fronts = [whole for whole in folded if len(asked) >= 3 and whole.startswith(asked)]
    if asked in folded or len(fronts) != 1:
        fronts = difflib.get_close_matches(asked, folded, n=1, cutoff=cutoff) if asked else []
    return folded[fronts[0]] if fronts else ""


def suggestion(word: str, known: Iterable[str], otherwise: str = "", *, at_most: int = 30) -> str:
    """The end of an error: `Did you mean 'kid'?`, or `otherwise`, by default the known words, at most so many."""
    known = list(known)
    near = nearest(word, known)
    return f"Did you mean {quoted(near)}?" if near else otherwise or f"Known: {listed(known, at_most) or 'none'}."


def plural(n: int, noun: str) -> str:
    """`1 image`, `1,204 images`."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
