"""Finds metrics, encoders and sources by name: `metrics/kid.py` is `kid`, and no table needs editing.

A plug-in is a module `chexray/<kind>/<name>.py` that defines a class whose name is the file name without underscores
(`inception_score` -> `InceptionScore`; case is ignored), a class of a file given as `--plugin FILE.py`, or an entry
point of a third-party package in the group `chexray.<kind>`. What chexray brings is listed from its source text, so
listing imports neither torch nor ray. What others bring keeps to `chexray.contract`, or is refused in one line.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from chexray.contract import EXPECTED, NAME, kind_of, problem
from chexray.errors import ConfigError, PluginError
from chexray.plugin_files import PluginFile, read_plugin, told
from chexray.spelling import suggestion
from chexray.text import listed, quoted, shown

KINDS = {"metrics": "chexray.metrics", "encoders": "chexray.encoders", "sources": "chexray.data.sources"}
PAGE = "See docs/PLUGINS.md."


@dataclass(frozen=True)
class Entry:
    """What can be written in a config. origin: "built in", `package 1.0` or the name of a file. options: an encoder's,
    such as `side=16`."""

    name: str
    summary: str
    origin: str
    options: str = ""


_FILES: ContextVar[tuple[PluginFile, ...]] = ContextVar("chexray_plugin_files", default=())


def use(plugins: Sequence[str | Path | PluginFile]) -> tuple[PluginFile, ...]:
    """Registers the classes of files from here on, in place of those registered before. Raises PluginError."""
    files = [each if isinstance(each, PluginFile) else read_plugin(each) for each in plugins]
    chosen = tuple({file.code: file for file in files}.values())
    _check_names(chosen)
    _FILES.set(chosen)
    return chosen


@contextmanager
def using(plugins: Sequence[str | Path | PluginFile]) -> Iterator[tuple[PluginFile, ...]]:
    """Registers the classes of files, beside those registered already, while the block runs."""
    if isinstance(plugins, str | Path):
        plugins = [plugins]
    before = _FILES.get()
    try:
        yield use([*before, *plugins])
    finally:
        _FILES.set(before)


def used() -> tuple[PluginFile, ...]:
    """The files that are registered now."""
    return _FILES.get()


def _fold(name: str) -> str:
    return name.replace("_", "").lower()


# What chexray brings, from its source text.


@cache
def _built_in(kind: str) -> dict[str, ast.ClassDef]:
    """{registry name: the class's source} of the modules of this package."""
    folder = Path(__file__).parent.joinpath(*KINDS[kind].split(".")[1:])
    found = {}
    for path in sorted(folder.glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and _fold(node.name) == _fold(path.stem):
                found[path.stem] = node
    return found


def _assigned(node: ast.ClassDef, name: str) -> ast.expr | None:
    """The value that a class's text gives an attribute."""
    for each in node.body:
        targets = (
            each.targets if isinstance(each, ast.Assign) else [each.target] if isinstance(each, ast.AnnAssign) else []
        )
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return each.value  # pyright: ignore[reportAttributeAccessIssue]
    return None


def _options(node: ast.ClassDef) -> str:
    """`side=32, patch=8` of an encoder's `allowed = {"side": Option(32, int), ...}`."""
    allowed = _assigned(node, "allowed")
    if not isinstance(allowed, ast.Dict):
        return ""
    pairs = [
        (key.value, value.args[0].value)
        for key, value in zip(allowed.keys, allowed.values, strict=True)
        if isinstance(key, ast.Constant) and isinstance(value, ast.Call) and value.args
        and isinstance(value.args[0], ast.Constant)
    ]  # fmt: skip
    return ", ".join(f"{key}" if value is None else f"{key}={value}" for key, value in pairs)


def _owner(output: str) -> str:
    """The metric that returns a number of another name; empty for none."""
    shipped = (name for name in _built_in("metrics") if name != output)
    return next((name for name in shipped if output in {each.name for each in find("metrics", name).outputs}), "")


# What others bring.


def _packages(kind: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=f"chexray.{kind}")}


def _of_files(kind: str, files: Sequence[PluginFile] | None = None) -> dict[str, tuple[PluginFile, type]]:
    """{registry name: (file, class)}. Raises PluginError for a file of none, or with a wrong one."""
    found: dict[str, tuple[PluginFile, type]] = {}
    for file in _FILES.get() if files is None else files:
        for own, name, cls in _registered(file):
            if own == kind:
                if name in found:
                    what = f"{kind.removesuffix('s')} {quoted(name)}"
                    both = file.name if file is found[name][0] else f"{found[name][0].name} and {file.name}"
                    raise PluginError(f"{both}: two classes for the {what}. Give one of them another `name`.")
                found[name] = file, cls
    return found


@cache
def _registered(file: PluginFile) -> tuple[tuple[str, str, type], ...]:
    """(kind, registry name, class) of a file's classes; those that look like none or start with _ are its helpers."""
    found = []
    for cls in file.classes():
        kind = "" if cls.__name__.startswith("_") else kind_of(cls)
        if not kind:
            continue
        if wrong := problem(kind, cls):
            raise PluginError(
                f"{_class(file, cls)} {wrong}. Expected of {_a(kind)}: {EXPECTED[kind]}. {PAGE} Begin the name of a "
                "helper with _."
            )
        name = cls.__dict__.get("name")
        if not isinstance(name, str):  # none of its own, or one that is computed
            name = _fold(cls.__name__)
        if not NAME.fullmatch(name):
            raise PluginError(
                f"{_class(file, cls)} has `name` {quoted(name, 60)}, expected letters, digits, '.', '_' and '-', as "
                "a config writes it."
            )
        found.append((kind, name, cls))
    if not found:
        what = "defines no class of a metric, encoder or source"
        raise PluginError(f"{file.name} {what}. Expected of a metric: {EXPECTED['metrics']}. {PAGE}")
    return tuple(found)


def _class(file: PluginFile, cls: type) -> str:
    return f"{file.name}: class {shown(cls.__name__, 60)}"


def _a(kind: str) -> str:
    return {"metrics": "a metric", "encoders": "an encoder", "sources": "a source"}[kind]


def _check_names(files: Sequence[PluginFile]) -> None:
    """Raises PluginError where a class of a file would hide what is known already."""
    for kind in KINDS:
        for name, (file, cls) in _of_files(kind, files).items():
            point = _packages(kind).get(name)
            if name in _built_in(kind) or point:
                owner = _title(point) if point else "chexray"
                raise PluginError(
                    f"{_class(file, cls)} is called {quoted(name)}, as is {_a(kind)} of {owner}. Give it another name: "
                    'name = "..." in the class.'
                )


def _title(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.module


def plugin(kind: str, name: str) -> EntryPoint | None:
    """The entry point of a third-party package that `find` would load; None for anything else."""
    return None if name in _built_in(kind) or name in _of_files(kind) else _packages(kind).get(name)


def plugin_file(kind: str, name: str) -> PluginFile | None:
    """The file that `find` would take a name from; None for anything else."""
    return None if name in _built_in(kind) else _of_files(kind).get(name, (None, None))[0]


def is_built_in(kind: str, name: str) -> bool:
    """Whether chexray itself brings a name."""
    return name in _built_in(kind)


def entries(kind: str) -> list[Entry]:
    """Everything registered under `kind` ("metrics", "encoders" or "sources"), by name."""
    own = [
        Entry(name, _summary(ast.get_docstring(node)), "built in", _options(node))
        for name, node in _built_in(kind).items()
    ]
    files = [Entry(name, _summary(cls.__doc__), file.name) for name, (file, cls) in _of_files(kind).items()]
    taken = {each.name for each in (*own, *files)}
    packages = [
        Entry(name, f"plug-in {point.value}", _title(point))
        for name, point in _packages(kind).items()
        if name not in taken
    ]
    return sorted([*own, *files, *packages], key=lambda each: each.name)


def _summary(text: str | None) -> str:
    return (text or "").strip().split("\n")[0]


def names(kind: str) -> dict[str, str]:
    """Name -> one-line description of everything registered under `kind`."""
    return {each.name: each.summary for each in entries(kind)}


def find(kind: str, name: str) -> Any:
    """The class registered under `name`. Raises ConfigError with the nearest known name when there is none, PluginError
    where it is no plug-in."""
    if name in _built_in(kind):
        module = importlib.import_module(f"{KINDS[kind]}.{name}")
        matches = (value for key, value in vars(module).items() if _fold(key) == _fold(name))
        return next(value for value in matches if isinstance(value, type))
    files = _of_files(kind)
    if name in files:
        return files[name][1]
    if name in _packages(kind):
        point = _packages(kind)[name]
        what = f"the plug-in {quoted(name)} of {kind} ({_title(point)})"
        try:
            found = point.load()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever another package does when it is imported
            raise PluginError(f"{what} cannot be loaded: {told(error)}. Repair its package.") from error
        if wrong := problem(kind, found):
            raise PluginError(f"{what}: {point.attr} {wrong}. Expected of {_a(kind)}: {EXPECTED[kind]}. {PAGE}")
        return found
    raise ConfigError(unknown(kind, name))


def unknown(kind: str, name: str) -> str:
    """One line on a name that nobody brings."""
    known = list(names(kind))
    otherwise = f"Known: {listed(known, 40)}. One of your own: --plugin FILE.py (see docs/PLUGINS.md)."
    hint = suggestion(name, known, otherwise)
    if kind == "metrics" and (owner := _owner(name.lower())):
        hint = f"It is a number of the metric {quoted(owner)}: ask for that."
    return f"unknown {kind.removesuffix('s')} {quoted(name)}. {hint}"
