"""Which code a plug-in is: its package's version, the bytes of its files, and the versions of what it requires; or the
bytes of its one file.

chexray's own encoders raise `code_version` when they compute something else. Whoever writes a plug-in edits a file
between two runs and thinks of no version, so what was stored by the code before must not be served to the code after.
Not covered: files that it reads elsewhere, and another edition of a package on the nodes of a cluster. A file given as
--plugin travels to the nodes itself.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from importlib.machinery import ModuleSpec
from importlib.metadata import Distribution, EntryPoint
from pathlib import Path

from chexray import __version__
from chexray.registry import find, plugin, plugin_file, used
from chexray.text import printable

LARGE = 64_000_000
"""Bytes of a file beyond which its size and time of change stand for what it holds."""

_SKIPPED = {"__pycache__", "node_modules"}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def code_of(kind: str, name: str) -> str:
    """`package==1.0+<16 hex>` or `mine.py+<16 hex>` for a plug-in, "" for what chexray brings itself.

    Of a file, its bytes count and chexray's version. Of a package, every file of the top-level packages or modules that
    hold the entry point, its class, or belong to the same distribution; so do chexray's version and the installed
    versions of what the distribution requires. Raises as `find` does.
    """
    if file := plugin_file(kind, name):
        return f"{file.code} (chexray {__version__})"
    point = plugin(kind, name)
    if point is None:
        return ""
    cls = find(kind, name)
    own = point.dist
    digest = hashlib.blake2b(digest_size=8)
    for requirement in [f"chexray=={__version__}", *(_requirements(own) if own else ())]:
        digest.update(f"{requirement}\0".encode())
    for path, shown in _files(_modules(point, cls, own)):
        digest.update(f"{shown}\0".encode())
        digest.update(_content(path))
    title = f"{own.name}=={own.version}" if own else point.module
    return f"{title}+{digest.hexdigest()}"


def header(codes: Mapping[str, str]) -> str:
    """Comment lines for the head of a config.yaml: which plug-ins a run used. They load nothing. codes: {name: code}"""
    files = [file.name for file in used() if any(code.startswith(f"{file.code} ") for code in codes.values())]
    lines = [f"plug-in {name}: {code}" for name, code in sorted(codes.items())]
    if files:
        lines.append("runs again with " + " ".join(f"--plugin {name}" for name in files))
    return "".join(f"# {printable(line)}\n" for line in lines)


def unused(asked: Iterable[str]) -> tuple[str, ...]:
    """A note for each registered file of which a run uses nothing. asked: the codes of what it uses."""
    codes = list(asked)
    return tuple(
        f"--plugin {file.name}: the config names nothing of it"
        for file in used()
        if not any(code.startswith(f"{file.code} ") for code in codes)
    )


def _requirements(own: Distribution) -> Iterator[str]:
    """`numpy==2.4.6` of each requirement that is installed, by name; those of extras too, since they may be used."""
    for name in sorted({found[0].lower() for text in own.requires or () if (found := _NAME.match(text))}):
        try:
            yield f"{name}=={importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            continue


def _modules(point: EntryPoint, cls: object, own: Distribution | None) -> set[str]:
    """The modules whose files are the plug-in's. chexray's own are left out: its version stands for them."""
    names = {point.module, str(getattr(cls, "__module__", point.module))}
    if own is not None:
        names |= set((own.read_text("top_level.txt") or "").split())
        # Builders that write no top_level.txt list the files; those of an editable one are elsewhere.
        names |= {str(file).removesuffix(".py") for file in own.files or () if _is_module(file.parts)}
        names |= {file.parts[0] for file in own.files or () if len(file.parts) == 2 and file.name == "__init__.py"}
    return {name for name in names if name.split(".")[0] != "chexray"}


def _is_module(parts: tuple[str, ...]) -> bool:
    """Of a single-file module at the top of site-packages; an editable package's finder is a name of the builder's."""
    return len(parts) == 1 and parts[0].endswith(".py") and not parts[0].startswith("_")


def _files(modules: Iterable[str]) -> list[tuple[Path, str]]:
    """(file, its name below its package) of the top-level package or module of each, once, in a fixed order."""
    found: dict[Path, str] = {}
    for module in modules:
        spec = _top(module)
        if spec is None:
            continue
        for folder in spec.submodule_search_locations or ():
            for path in _below(Path(folder)):
                found[path] = f"{spec.name}/{path.relative_to(folder).as_posix()}"
        if not spec.submodule_search_locations and spec.origin and os.path.isfile(spec.origin):
            found[Path(spec.origin)] = spec.name
    return sorted(found.items(), key=lambda item: (item[1], str(item[0])))


def _top(module: str) -> ModuleSpec | None:
    """The outermost package of a dotted name that is no namespace shared with others, or the module itself."""
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):
        try:
            spec = importlib.util.find_spec(".".join(parts[:depth]))
        except (ImportError, ValueError, AttributeError):
            return None
        if spec is None or spec.origin is not None or depth == len(parts):
            return spec
    return None


def _below(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in _SKIPPED and not name.startswith("."))
        yield from (Path(parent, name) for name in files if not name.endswith((".pyc", ".pyo")))


def _content(path: Path) -> bytes:
    """16 bytes that change with the file."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        about = path.stat()
        if about.st_size > LARGE:
            digest.update(f"{about.st_size} {about.st_mtime_ns}".encode())
        else:
            digest.update(path.read_bytes())
    except OSError as error:
        digest.update(type(error).__name__.encode())
    return digest.digest()
