"""What a worker answers, as plain values: Ray Data keeps only the text of what is raised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from chexray import errors
from chexray.errors import ChexrayError


def answer(chunk: str, **values: object) -> dict[str, Any]:
    """The row for a chunk, by its name: n_done items that are committed, n_rejected of them as rejects, CPU-seconds.

    kind, message: of the expected error that kept the chunk from being done, from `as_data`.
    """
    return {"chunk": chunk, "n_done": 0, "n_rejected": 0, "cpu_s": 0.0, "kind": "", "message": "", **values}


def as_data(error: ChexrayError) -> dict[str, str]:
    """An expected error as plain values: `kind` is its class in chexray.errors, `message` its line."""
    # StorageFailure and the like are private refinements; the class users know is the first one of chexray.errors.
    kind = next(base.__name__ for base in type(error).__mro__ if base.__module__ == ChexrayError.__module__)
    return {"kind": kind, "message": str(error)}


def raise_told(found: Mapping[str, Any]) -> NoReturn:
    """Raises the error that `as_data` turned into values."""
    raise getattr(errors, found["kind"])(found["message"])


def checked(row: dict[str, Any]) -> dict[str, Any]:
    """The answer of a worker; an expected error in it is raised here as itself."""
    if row["kind"]:
        raise_told(row)
    return row
