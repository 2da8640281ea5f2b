"""How numbers and names are put on a terminal: rounded by their error, free of markup and control characters."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chexray.text import shown

DATA_CHARS = 400
"""A name takes 20; the reasons why numbers are missing, which our own code joins, up to 300."""
SCIENTIFIC_BELOW = 1e-5
"""An error this small would need more than six decimals: the number is then written with an exponent."""

_PLAIN = {"↓": "(lower)", "↑": "(higher)", "→": "(floor)", "±": "+/-", "–": "-", "·": "|", "×": "x", "…": "..."}


_FINGERPRINTED = re.compile(r"(.+)@([0-9a-f]{8,})$", re.DOTALL)


@dataclass(frozen=True)
class Wording:
    """The characters a stream can carry. unicode: False for pipes and terminals whose encoding is not UTF-8."""

    unicode: bool = True

    @classmethod
    def for_encoding(cls, encoding: str) -> Wording:
        return cls(encoding.lower().replace("_", "-").startswith("utf"))

    def own(self, text: str) -> str:
        """Our own text, its arrows and dashes spelled out where the stream is ASCII."""
        if self.unicode:
            return text
        for mark, plain in _PLAIN.items():
            text = text.replace(mark, plain)
        return text.encode("ascii", "backslashreplace").decode()

    def data(self, text: Any) -> str:
        """Text that came from files or users: hidden characters as escapes, at most DATA_CHARS of it."""
        kept = shown(text, DATA_CHARS)
        return kept if self.unicode else kept.encode("ascii", "backslashreplace").decode()

    def arrow(self, better: str) -> str:
        """The direction in which a metric gets better, with a space before it; empty when there is none."""
        return self.own({"lower": " ↓", "higher": " ↑", "floor": " →"}.get(better, ""))

    def value(self, row: Mapping[str, Any], error: float | None = None) -> str:
        """`0.1234`, to the second significant digit of its error, or of the one given."""
        return self.own("–") if row["value"] is None else number(row["value"], error or error_of(row))

    def interval(self, row: Mapping[str, Any], error: float | None = None) -> str:
        """`[0.117, 0.130]`, the 95% interval; `± 0.0031` where only an error is known; empty where nothing is."""
        if row["value"] is None:
            return ""
        error = error or error_of(row)
        if row["ci_low"] is not None and row["ci_high"] is not None:
            return f"[{number(row['ci_low'], error)}, {number(row['ci_high'], error)}]"
        return "" if row["std_error"] is None else self.own(f"± {number(row['std_error'], error)}")

    def value_and_error(self, row: Mapping[str, Any], error: float | None = None) -> str:
        """`0.1234 ± 0.0031`, the value alone where no error is known."""
        if row["value"] is None or row["std_error"] is None:
            return self.value(row, error)
        return self.own(f"{self.value(row, error)} ± {number(row['std_error'], error or error_of(row))}")


def number(value: float, error: float | None = None) -> str:
    """`value` rounded to the second significant digit of `error`, to four significant digits when there is none."""
    scale = error if error and math.isfinite(error) else abs(value) / 100
    if scale == 0:
        return "0"
    if scale < SCIENTIFIC_BELOW:
        return f"{value:.2e}"
    decimals = max(0, 1 - math.floor(math.log10(float(f"{scale:.1e}"))))
    text = f"{value:,.{decimals}f}" if abs(value) < 1e7 else f"{value:.3e}"
    return text[1:] if text.startswith("-") and not text.strip("-0.,") else text


def set_name(identity: str) -> str:
    """A set as people call it: `name` of `name@fingerprint`."""
    match = _FINGERPRINTED.match(identity)
    return match[1] if match else identity


def fingerprint(identity: str) -> str:
    """What identifies a set: the fingerprint of `name@fingerprint`, or the whole text where there is none."""
    match = _FINGERPRINTED.match(identity)
    return match[2] if match else identity


def has_fingerprint(identity: str) -> bool:
    """Whether the text is `name@fingerprint`."""
    return _FINGERPRINTED.match(identity) is not None


def error_of(row: Mapping[str, Any]) -> float | None:
    """The error a row's numbers are rounded by: its own, or what its interval is worth."""
    if row["std_error"]:
        return row["std_error"]
    low, high = row["ci_low"], row["ci_high"]
    return None if low is None or high is None or high <= low else (high - low) / 3.92
