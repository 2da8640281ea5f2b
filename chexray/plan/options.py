"""Options of a config's sets, encoders and metrics, checked by name and by type before anything is built of them."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, TypeVar, cast

from chexray.errors import ConfigError
from chexray.spelling import suggestion
from chexray.text import first_line, listed, quoted, shown

T = TypeVar("T")

_WORDS: dict[Any, str] = {
    str: "text", int: "a whole number", float: "a number", bool: "true or false", NoneType: "null",
    dict: "a mapping", list: "a list",
}  # fmt: skip


def checked(cls: Callable[..., T], options: Mapping[str, object], what: str) -> T:
    """An instance of a class from config options; unknown, missing or mistyped options are ConfigErrors.

    Names and types are those of a dataclass's fields. Another class says itself what is wrong.
    """
    if isinstance(cls, type) and is_dataclass(cls):
        hints = _hints(cls)
        known = [item.name for item in fields(cls) if item.init]
        for key, value in options.items():
            if key not in known:
                raise ConfigError(f"{what} has no option {quoted(key)}. {suggestion(key, known)}")
            if not fits(value, hints.get(key, Any)):
                raise ConfigError(f"{what}: {key} is {quoted(value)}, expected {_expected(hints[key])}.")
    try:
        return cast(T, cls(**options))
    except (
        TypeError,
        ValueError,
        ArithmeticError,
        AttributeError,
        LookupError,
        RuntimeError,
        OSError,
        ImportError,
    ) as error:
        raise ConfigError(f"{what}: {first_line(error)}. Options given: {listed(options) or 'none'}.") from None


def accepts(cls: type, name: str) -> bool:
    """Whether a class's constructor has a parameter of this name; one behind `**options` counts, which a class hands on
    to the one that it extends."""
    if is_dataclass(cls):
        return any(item.name == name and item.init for item in fields(cls))
    for each in cls.__mro__:
        maker = each.__dict__.get("__init__")
        if maker is None or each is object:
            continue
        try:
            parameters = inspect.signature(maker).parameters
        except (TypeError, ValueError):  # of compiled code
            return False
        if name in parameters:
            return True
        if not any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values()):
            return False
    return False


def fits(value: object, hint: object) -> bool:
    """Whether a value that YAML can say is of an annotated type. A whole number is a number; true is neither.

    An annotation of another kind, such as a class, fits everything: its owner checks it.
    """
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, UnionType):
        return any(fits(value, each) for each in inner)
    if origin is typing.Literal:
        return any(value == each and type(value) is type(each) for each in inner)
    if origin is typing.Annotated:
        return fits(value, inner[0])
    if hint is None or hint is NoneType:
        return value is None
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint in (str, bool):
        return isinstance(value, hint)
    kind = origin or hint
    if isinstance(kind, type) and issubclass(kind, Mapping):
        keys, values = inner if len(inner) == 2 else (Any, Any)
        return isinstance(value, Mapping) and all(fits(k, keys) and fits(v, values) for k, v in value.items())
    if isinstance(kind, type) and issubclass(kind, Sequence | set | frozenset):
        items = inner[0] if inner else Any
        return isinstance(value, list | tuple) and all(fits(item, items) for item in value)
    return True


def _hints(cls: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls)
    except (NameError, TypeError, AttributeError):  # a plug-in that names types for checkers only
        return {}


def _expected(hint: object) -> str:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, UnionType):
        return " or ".join(_expected(each) for each in inner)
    if origin is typing.Literal:
        return f"one of {listed(inner)}"
    kind = origin or hint
    if isinstance(kind, type) and issubclass(kind, Mapping) and len(inner) == 2:
        return f"a mapping of {_expected(inner[0])} to {_expected(inner[1])}"
    return _WORDS.get(kind, shown(getattr(kind, "__name__", kind), 60))
