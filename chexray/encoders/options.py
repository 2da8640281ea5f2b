"""Options of an encoder as a config gives them: checked by name and value before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chexray.errors import ConfigError
from chexray.spelling import nearest, suggestion

AUTO = "auto"
"""A precision that is decided before the network is loaded: see chexray.run.precision."""
PRECISIONS = ("fp32", "tf32", "bf16")


@dataclass(frozen=True)
class Option:
    """One option: its default, its type, its values when they are few, and what it does, for the reference.

    A default of None means "not given".
    """

    default: Any = None
    kind: type = str
    choices: tuple[Any, ...] = ()
    about: str = ""


def read_options(encoder: str, allowed: Mapping[str, Option], given: Mapping[str, Any]) -> dict[str, Any]:
    """Every allowed option with its given or default value. Raises ConfigError naming the option and what it may be."""
    for name in given:
        if name not in allowed:
            hint = suggestion(name, allowed, f"Options: {', '.join(allowed) or 'none'}.")
            raise ConfigError(f"{encoder} has no option {name!r}. {hint}")
    values = {name: given.get(name, option.default) for name, option in allowed.items()}
    for name, value in values.items():
        option = allowed[name]
        if value is None and option.default is None:
            continue
        if not isinstance(value, option.kind) or isinstance(value, bool):
            raise ConfigError(f"{encoder}: {name} is {value!r}; expected {option.kind.__name__}.")
        if option.choices and value not in option.choices:
            near = nearest(str(value), map(str, option.choices))
            hint = f" Did you mean {near!r}?" if near else ""
            choices = ", ".join(map(str, option.choices))
            raise ConfigError(f"{encoder}: {name} is {value!r}; expected one of {choices}.{hint}")
    return values


def read_precision(encoder: str, precision: str) -> str:
    """`precision` if it is auto, fp32, tf32 or bf16. Raises ConfigError."""
    allowed = {"precision": Option("fp32", str, (AUTO, *PRECISIONS))}
    return read_options(encoder, allowed, {"precision": precision})["precision"]
