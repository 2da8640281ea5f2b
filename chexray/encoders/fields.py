"""Values of a JSON file beside the weights, each checked against what it may be before anything is built from it.

A file of a stranger holds any key and any value. Readers name the keys they take and how each is checked; every other
key is ignored, so nothing that a library would act upon ("auto_map", "quantization_config") ever reaches it.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from chexray.errors import WeightsError
from chexray.text import first_line, quoted, shown

LARGEST_JSON = 16_000_000
"""Bytes. A config with the 21,841 names of ImageNet-22k takes 2 MB."""
DEEPEST_JSON = 50
LARGEST_SIDE = 2048
"""Pixels a side that a network may be given; the largest of those in use take 1024."""

Check = Callable[[Any], Any]
"""Returns the value, or raises ValueError with what is expected in its place."""


def whole(low: int, high: int) -> Check:
    """A whole number within [low, high]; true, 2.5 and "2" are none."""

    def check(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError(f"a whole number from {low:,} to {high:,}")
        return value

    return check


def number(low: float, high: float) -> Check:
    """A finite number within [low, high]."""

    def check(value: object) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError(f"a number from {low:g} to {high:g}")
        return value

    return check


def flag(value: object) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def word(*known: str) -> Check:
    """One of a few strings."""

    def check(value: object) -> str:
        if not isinstance(value, str) or value not in known:
            raise ValueError(f"one of {', '.join(known)}")
        return value

    return check


def several(each: Check, fewest: int, most: int) -> Check:
    """A list of `fewest` to `most` values."""

    def check(value: object) -> list[Any]:
        if not isinstance(value, list | tuple) or not fewest <= len(value) <= most:
            raise ValueError(f"a list of {fewest}" + (f" to {most}" if most > fewest else "") + " values")
        try:
            return [each(item) for item in value]
        except ValueError as error:
            raise ValueError(f"a list in which each value is {error}") from None

    return check


def either(*checks: Check) -> Check:
    """What the first check that accepts the value returns."""

    def check(value: object) -> Any:
        expected = []
        for one in checks:
            try:
                return one(value)
            except ValueError as error:
                expected.append(str(error))
        raise ValueError(", or ".join(expected))

    return check


side = whole(1, LARGEST_SIDE)
means = several(number(-1000, 1000), 3, 3)
spreads = several(number(1e-4, 1000), 3, 3)


def taken(config: Mapping[str, Any], checks: Mapping[str, Check], where: object) -> dict[str, Any]:
    """The keys of `checks` that `config` has, each checked; a null counts as absent, and other keys are ignored.

    where: the file, for the message. Raises WeightsError with the key, its value and what is expected.
    """
    found = {}
    for key, check in checks.items():
        if config.get(key) is not None:
            found[key] = checked(config[key], check, key, where)
    return found


def checked(value: object, check: Check, key: str, where: object) -> Any:
    """`value` if it passes `check`. Raises WeightsError with the key, the value and what is expected."""
    try:
        return check(value)
    except ValueError as error:
        raise WeightsError(
            f"{shown(where)}: {key} is {quoted(value, 80)}; expected {error}. Correct the file or fetch it again."
        ) from None


def read_json(path: Path, *, needed_by: str) -> dict[str, Any]:
    """A JSON object beside the weights. Raises WeightsError when it is missing, too large, too deep or no object."""
    place = shown(path)
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):
            raise WeightsError(f"{place} is not a regular file. {needed_by} needs the JSON file of that name.")
        if state.st_size > LARGEST_JSON:
            raise WeightsError(
                f"{place} has {state.st_size:,} bytes; a description of a network has at most {LARGEST_JSON:,}. "
                "Fetch it again."
            )
        value = parse_json(path.read_bytes())
    except FileNotFoundError:
        raise WeightsError(f"{needed_by} needs {path.name} beside the weights; {place} does not exist.") from None
    except (OSError, ValueError) as error:
        raise WeightsError(f"{place} is not readable JSON ({first_line(error)}). Fetch it again.") from None
    if not isinstance(value, dict):
        raise WeightsError(f"{place} holds a {type(value).__name__}, not an object. Fetch it again.")
    return value


def parse_json(data: bytes) -> Any:
    """The JSON value of some bytes. Raises ValueError, also for nesting deeper than DEEPEST_JSON."""
    try:
        value = json.loads(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    level = [value]
    for _ in range(DEEPEST_JSON):
        level = [item for part in level for item in _inside(part)]
        if not level:
            return value
    raise ValueError("it is nested too deeply")


def _inside(value: object) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
