"""What the parts of a config share."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """Immutable. An unknown key is an error, and so is a number that is not finite.

    The text below a field is its description in the reference (docs/generate.py).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class Open(BaseModel):
    """Immutable. Further keys are the options of what the config names: of a source, an encoder or a metric."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


def split_list(value: object) -> Any:
    """`a, b` to a list; anything else as it is."""
    return [word.strip() for word in value.split(",")] if isinstance(value, str) else value


def groups(values: list[Any] | None) -> list[Any] | None:
    """Subsets as they are. Raises ValueError where {column, bins} does not name a column."""
    for value in values or []:
        if isinstance(value, dict) and not isinstance(value.get("column", ""), str):
            raise ValueError("the column of a subset is a name, such as {column: age, bins: [40, 60]}")
    return values


def unique(values: list[Any]) -> list[Any]:
    """Each value once, in its first place."""
    return list(dict.fromkeys(values))
