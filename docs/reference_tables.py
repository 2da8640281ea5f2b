"""How types, defaults and commands are written in the reference."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import re
import textwrap
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

WORDS = {str: "text", int: "whole number", float: "number", bool: "true or false", dict: "mapping", Any: "any"}
BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
WRITTEN = {"str": "text", "int": "whole number", "float": "number", "bool": "true or false"}
"""Types of dataclasses, which are kept as text."""


def table(head: Sequence[str], rows: Iterable[Sequence[str | None]]) -> str:
    """A Markdown table; columns that are empty in all rows are left out."""
    lines = [[_cell(cell) for cell in row] for row in rows]
    kept = [i for i in range(len(head)) if any(line[i] for line in lines)]
    shown = [[head[i] for i in kept], ["---"] * len(kept), *([line[i] for i in kept] for line in lines)]
    return "\n".join(f"| {' | '.join(row)} |" for row in shown)


def _cell(text: str | None) -> str:
    return escaped(" ".join((text or "").split())).replace("|", "\\|")


def escaped(text: str) -> str:
    """Text that Markdown shows as it stands, but for `code`."""
    parts = text.split("`")
    return "`".join(part if i % 2 else re.sub(r"([\\*_<\[\]])", r"\\\1", part) for i, part in enumerate(parts))


def attribute_docs(cls: type) -> dict[str, str]:
    """{attribute: the text below it} of a class and its bases, from their source."""
    found: dict[str, str] = {}
    for each in reversed(cls.__mro__):
        if each.__module__.startswith("chexray"):
            body = ast.parse(textwrap.dedent(inspect.getsource(each))).body[0].body  # pyright: ignore
            for one, after in pairwise(body):
                text = getattr(getattr(after, "value", None), "value", None)
                if isinstance(one, ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(text, str):
                    found[one.target.id] = text  # pyright: ignore
    return found


def field_kind(annotation: Any, metadata: Sequence[Any]) -> str:
    """A type in words: "list of text", "`a`, `b`", "whole number ≥ 1"."""
    if isinstance(annotation, str):
        kinds = [part.strip() for part in re.sub(r"\[.*?\]", "", annotation).split("|")]
        return " or ".join(WRITTEN.get(part, "mapping") for part in kinds if part != "None")
    bounds = [
        f"{sign} {getattr(each, name):,g}"
        for each in metadata
        for name, sign in BOUNDS.items()
        if getattr(each, name, None) is not None
    ]
    return f"{_kind(annotation)} {' and '.join(bounds)}".strip()


def _kind(annotation: Any) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if hasattr(annotation, "__metadata__"):
        inner = getattr(annotation.__metadata__[0], "metadata", ())
        return field_kind(parts[0], inner)
    if origin is Literal:
        return ", ".join(f"`{each}`" for each in parts)
    if origin in (Union, UnionType):
        return " or ".join(_kind(each) for each in parts if each is not NoneType)
    if origin is list:
        return f"list of {_kind(parts[0])}"
    if hasattr(annotation, "model_fields"):
        return "mapping"
    return WORDS.get(origin or annotation, "text")


def shown_default(field: Any) -> str:
    """The default of a field of a pydantic model or a dataclass."""
    factory = field.default_factory
    is_required = field.is_required() if hasattr(field, "is_required") else (
        field.default is dataclasses.MISSING and factory is dataclasses.MISSING
    )  # fmt: skip
    if is_required:
        return "required"
    value = factory() if callable(factory) else field.default
    if value is None or value == "" or hasattr(type(value), "model_fields"):
        return ""
    if isinstance(value, list):
        return f"`[{', '.join(str(getattr(each, 'name', each)) for each in value)}]`"
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def command_tables(command: Any) -> list[str]:
    """The parts of a command's section: its help, its examples, its arguments and its flags."""
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option"]
    parts = [escaped(_paragraphs(command.help))]
    if examples := _examples(command.epilog):
        parts.append(f"```\n{examples}\n```")
    if arguments:
        rows = [(f"`{_metavar(each)}`", "required" if each.required else "optional", each.help) for each in arguments]
        parts.append(table(("argument", "", "description"), rows))
    rows = [(f"`{'`, `'.join(each.opts)}`", _metavar(each), _default(each), each.help) for each in options]
    return [*parts, table(("flag", "value", "default", "description"), rows)] if rows else parts


def _metavar(param: Any) -> str:
    if getattr(param, "is_flag", False):
        return ""
    return param.metavar or (param.name.upper() if param.param_type_name == "argument" else _type(param))


def _type(param: Any) -> str:
    kind = param.type_descriptor.annotation
    kind = (*get_args(kind), kind)[0]
    return "number" if kind in (int, float) else "path" if kind is Path else "text"


def _default(param: Any) -> str:
    value = getattr(param, "default", None)
    if value is None or value is False or isinstance(value, tuple | list) or callable(value):
        return ""
    return f"`{value}`"


def _paragraphs(text: str | None) -> str:
    return "\n\n".join(" ".join(part.split()) for part in inspect.cleandoc(text or "").split("\n\n"))


def _examples(epilog: str | None) -> str:
    lines = [line for line in (epilog or "").split("\n") if line.startswith("  ")]
    return textwrap.dedent("\n".join(lines))
