"""Finds metrics, encoders and sources by name: `metrics/kid.py` is `kid`, and no table needs editing.

A plug-in is a module `chexray/<kind>/<name>.py` that defines a class whose name is the file name without underscores
(`inception_score` -> `InceptionScore`; case is ignored), or an entry point of a third-party package in the group
`chexray.<kind>`. Names and one-line descriptions are read from source text, so listing imports neither torch nor ray.
"""

from __future__ import annotations

import ast
import difflib
import importlib
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from chexray.errors import ConfigError
from chexray.text import first_line, listed, quoted

KINDS = {"metrics": "chexray.metrics", "encoders": "chexray.encoders", "sources": "chexray.data.sources"}


def _fold(name: str) -> str:
    return name.replace("_", "").lower()


@cache
def _modules(kind: str) -> dict[str, str]:
    """Registry name -> first line of the class docstring, for the modules of this package."""
    folder = Path(__file__).parent.joinpath(*KINDS[kind].split(".")[1:])
    found = {}
    for path in sorted(folder.glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and _fold(node.name) == _fold(path.stem):
                found[path.stem] = (ast.get_docstring(node) or "").split("\n")[0]
    return found


def _plugins(kind: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=f"chexray.{kind}")}


def plugin(kind: str, name: str) -> EntryPoint | None:
    """The entry point of a third-party package that `find` would load; None for what this package brings itself."""
    return None if name in _modules(kind) else _plugins(kind).get(name)


def names(kind: str) -> dict[str, str]:
    """Name -> one-line description of everything registered under `kind` ("metrics", "encoders" or "sources")."""
    plugins = {name: f"plug-in {point.value}" for name, point in _plugins(kind).items()}
    return dict(sorted({**plugins, **_modules(kind)}.items()))


def find(kind: str, name: str) -> Any:
    """The class registered under `name`. Raises ConfigError with the nearest known name when there is none."""
    if name in _modules(kind):
        module = importlib.import_module(f"{KINDS[kind]}.{name}")
        matches = (value for key, value in vars(module).items() if _fold(key) == _fold(name))
        return next(value for value in matches if isinstance(value, type))
    if name in _plugins(kind):
        try:
            return _plugins(kind)[name].load()
        except Exception as error:  # whatever another package does when it is imported
            what = f"the plug-in {quoted(name)} of {kind} cannot be loaded"
            raise ConfigError(f"{what} ({type(error).__name__}: {first_line(error)}). Mend its package.") from error
    known = list(names(kind))
    near = difflib.get_close_matches(name[:100], known, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else f"Known: {listed(known, 40)}."
    raise ConfigError(f"unknown {kind.removesuffix('s')} {quoted(name)}. {hint}")
