"""What the parts of a config share."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """Immutable, and every unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def words(value: Any) -> Any:
    """`a, b` to a list; anything else as it is."""
    return [word.strip() for word in value.split(",")] if isinstance(value, str) else value


def once(values: list[Any]) -> list[Any]:
    """Each value once, in its first place."""
    return list(dict.fromkeys(values))
