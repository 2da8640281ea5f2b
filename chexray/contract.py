"""What a metric, an encoder or a source must have, told in one line; docs/PLUGINS.md says the same at length."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

from chexray.outputs import Output, check_declared
from chexray.text import first_line, quoted, shown

EXPECTED = {
    "metrics": 'class Name: reads = "features"; outputs = ("name",); better = "lower"; '
    "def compute(self, real, synthetic): return a number, of two (n, d) arrays",
    "encoders": "class Name: def resolve(self): return EncoderSpec(...); def load(self, device); "
    'def prepare(self, image): return an array; def encode(self, batch): return {"features": (n, d) float32}',
    "sources": "class Name: def read(self, origin, storage): return a table with the columns sample_id and uri",
}
"""The shortest form of each kind."""

MARKS = {
    "metrics": ("compute", "score_images", "summarise", "outputs", "reads"),
    "encoders": ("encode", "prepare", "resolve"),
    "sources": ("read",),
}
"""What a class is recognised by."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What may be written in a config; for outputs, in the results."""

_BETTER = ("lower", "higher", "")
_ABSENT = object()


def kind_of(cls: type) -> str:
    """The kind that a class looks like, by most of MARKS; "" for a helper."""
    marks = {kind: sum(_has(cls, name) for name in names) for kind, names in MARKS.items()}
    most = max(marks.values())
    return next(kind for kind, n in marks.items() if n == most) if most else ""


def problem(kind: str, cls: object) -> str:
    """What keeps an object from being a plug-in of a kind, without the expected form; "" for nothing."""
    if not isinstance(cls, type):
        what = "a function" if inspect.isroutine(cls) else f"a {type(cls).__name__}"
        return f"is {what}, expected a class"
    if inspect.isabstract(cls):
        return f"has abstract methods ({shown(', '.join(sorted(cls.__abstractmethods__)), 60)})"
    return _CHECKS[kind](cls)


def _metric(cls: type) -> str:
    for name, fits, expected in (
        ("reads", are_reads, '"features" or "logits", or a Reads of several'),
        ("outputs", _are_outputs, 'a tuple such as ("name",), or of Output("name", better="lower")'),
    ):
        if not _has(cls, name):
            return f"has no `{name}`"
        if wrong := _wrong(cls, name, fits, expected):
            return wrong
    if wrong := misdeclared(_static(cls, "outputs")):
        return wrong
    optional: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
        ("requires", _is_name, '"features" or "logits"'),
        ("better", lambda value: isinstance(value, str) and value in _BETTER, '"lower", "higher" or ""'),
        ("needs_real", lambda value: isinstance(value, bool), "True or False"),
        ("min_samples", lambda value: type(value) is int and value > 0, "a whole number from 1"),
    )
    for name, fits, expected in optional:
        if _has(cls, name) and (wrong := _wrong(cls, name, fits, expected)):
            return wrong
    if scores_itself(cls):
        return _method(cls, "score_images", 2, ("seed", "mapper", "floor"))
    if not _has(cls, "compute"):
        return "has no method `compute`"
    return _method(cls, "compute", 2) or (_method(cls, "summarise", 1) if _has(cls, "summarise") else "")


def scores_itself(cls: type) -> bool:
    """Whether a metric writes its own scores, with their errors and floors."""
    found = getattr(cls, "score_images", None)
    return found is not None and getattr(found, "__qualname__", "") != "ScoreFromImages.score_images"


def _encoder(cls: type) -> str:
    for name, n in (("resolve", 0), ("load", 1), ("prepare", 1), ("encode", 1)):
        if wrong := _method(cls, name, n):
            return wrong
    return ""


def _source(cls: type) -> str:
    return _method(cls, "read", 2)


_CHECKS = {"metrics": _metric, "encoders": _encoder, "sources": _source}


def _has(cls: type, name: str) -> bool:
    return _static(cls, name) is not _ABSENT or name in getattr(cls, "__dataclass_fields__", {})


def _static(cls: type, name: str) -> object:
    return inspect.getattr_static(cls, name, _ABSENT)


def _wrong(cls: type, name: str, fits: Callable[[object], bool], expected: str) -> str:
    """What is wrong with an attribute; one that depends on the parameters is looked at where it is used."""
    value = _static(cls, name)
    if value is _ABSENT or (hasattr(type(value), "__get__") and not inspect.isroutine(value)):
        return ""
    return "" if fits(value) else f"has `{name}` {quoted(value, 60)}, expected {expected}"


def _is_name(value: object) -> bool:
    return isinstance(value, str) and NAME.fullmatch(value) is not None


def are_reads(value: object) -> bool:
    """Whether a value is the name of an output, or names the outputs of the real and of the synthetic side."""
    if _is_name(value):
        return True
    sides = [getattr(value, side, None) for side in ("real", "synthetic")]
    return all(isinstance(side, tuple) and bool(side) and all(map(_is_name, side)) for side in sides)


def _are_outputs(value: object) -> bool:
    """Whether a value is a list of names or of Outputs, each once."""
    if not isinstance(value, tuple | list) or not value:
        return False
    names = [each if isinstance(each, str) else getattr(each, "name", None) for each in value]
    ways = [getattr(each, "better", "") for each in value if not isinstance(each, str)]
    return all(map(_is_name, names)) and len(set(names)) == len(names) and all(way in _BETTER for way in ways)


def misdeclared(outputs: object) -> str:
    """What is wrong with a field of an Output; "" for nothing, and for what holds no Outputs."""
    for each in outputs if isinstance(outputs, tuple | list) else ():
        try:
            if isinstance(each, Output):
                check_declared(each.declared)
        except (TypeError, ValueError) as error:
            return f"has the output {quoted(each.name, 60)}, of which {first_line(error)}"
    return ""


def _method(cls: type, name: str, n: int, named: tuple[str, ...] = ()) -> str:
    """What is wrong with a method that is called with n values, and others by name."""
    raw = _static(cls, name)
    if raw is _ABSENT:
        return f"has no method `{name}`"
    function = raw.__func__ if isinstance(raw, staticmethod | classmethod) else raw
    if not callable(function):
        return f"has `{name}` {quoted(raw, 60)}, expected a method"
    own = [] if isinstance(raw, staticmethod) else [None]
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of compiled code
        return ""
    try:
        signature.bind(*own, *[None] * n, **dict.fromkeys(named))
    except TypeError:
        values = _VALUES.get(name, ())
        asked = ", ".join([*(["self"] if own else []), *values[:n], *(["*", *named] if named else [])])
        return f"has `{name}{shown(signature, 80)}`, expected `{name}({asked})`"
    if inspect.iscoroutinefunction(function):
        return f"has `{name}` as a coroutine, expected a plain method"
    return ""


_VALUES = {
    "compute": ("real", "synthetic"),
    "score_images": ("real", "synthetic"),
    "summarise": ("rows",),
    "load": ("device",),
    "prepare": ("image",),
    "encode": ("batch",),
    "read": ("origin", "storage"),
}
"""What the arguments are called."""
