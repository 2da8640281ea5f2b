"""What the parts of a config share."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """Immutable, every unknown key is an error, and so is a number that is not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def words(value: Any) -> Any:
    """`a, b` to a list; anything else as it is."""
    return [word.strip() for word in value.split(",")] if isinstance(value, str) else value


def groups(values: list[Any] | None) -> list[Any] | None:
    """Subsets as they are. Raises ValueError where {column, bins} does not name a column."""
    for value in values or []:
        if isinstance(value, dict) and not isinstance(value.get("column", ""), str):
            raise ValueError("the column of a subset is a name, such as {column: age, bins: [40, 60]}")
    return values


def once(values: list[Any]) -> list[Any]:
    """Each value once, in its first place."""
    return list(dict.fromkeys(values))
