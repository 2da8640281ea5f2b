"""What a kind of input gives the harness, and what an attempt may come to.

A kind is one file `kinds/<kind>.py` with

    SHARE: int                              its part of the inputs, relative to the other kinds
    prepare(folder) -> seeds                valid files made once a worker, in `folder`
    attempt(seeds, rng, folder) -> Attempt  one hostile input, written into the empty `folder`

An input is known by (kind, seed, number): `rng` is made from these three and nothing else is random.
"""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

KINDS_FOLDER = Path(__file__).parent / "kinds"


class Wrong(Exception):
    """chexray took the input and gave what it must not: other numbers, an array of another shape."""


@dataclass
class Seen:
    """How a call ended that raised nothing. outcome: "ok", or "rejected" for an image that became a Reject.

    lines: what a user would be shown, each of them one line.
    """

    outcome: str = "ok"
    lines: list[str] = field(default_factory=list)


@dataclass
class Attempt:
    """One input. how: which generator made it. act: gives it to chexray; it may raise a ChexrayError.

    command: the arguments of the `chexray` command that reads the same input; None where there is none.
    """

    how: str
    act: Callable[[], Seen]
    command: list[str] | None = None


class Unmade(Exception):
    """The harness failed to make its input: a defect of the harness, and no input was met."""


def unmade(error: Exception) -> Attempt:
    """What stands for an input whose making raised `error`."""

    def act() -> Seen:
        raise Unmade(repr(error)[:200]) from error

    return Attempt("unmade", act)


def kinds() -> list[str]:
    return sorted(path.stem for path in KINDS_FOLDER.glob("[a-z]*.py"))


def kind_module(kind: str) -> ModuleType:
    return importlib.import_module(f"fuzz.kinds.{kind}")


def random_of(kind: str, seed: int, number: int, what: str = "input") -> random.Random:
    """The randomness of one input: the same on every machine."""
    return random.Random(f"{what}/{kind}/{seed}/{number}")
