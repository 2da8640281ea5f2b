"""A plug-in in one file (`--plugin FILE.py`): its bytes are the plug-in, on every machine.

The file is executed as a module whose name holds the hash of its bytes. An object of one of its classes takes the bytes
along when it is pickled, so a worker on another node runs the same source without having the file.
"""

from __future__ import annotations

import copyreg
import hashlib
import linecache
import re
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, SupportsInt

from chexray.errors import PluginError
from chexray.text import first_line, quoted, shown

MAX_BYTES = 500_000
"""Size of a file: it travels with every piece of work, and in a ConfigMap, which holds 1 MB."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\.py")
_PREFIX = "chexray_plugin_"
_LOADED: dict[str, PluginFile] = {}
"""{module name: the file it was made of} in this process."""


@dataclass(frozen=True)
class PluginFile:
    """A file of plug-in classes. name: `meandiff.py`, without its folder. source: its bytes."""

    name: str
    source: bytes

    @property
    def code(self) -> str:
        """`meandiff.py+<16 hex>`, the hex being the front of the sha256 of the file."""
        return f"{self.name}+{hashlib.sha256(self.source).hexdigest()[:16]}"

    @property
    def module_name(self) -> str:
        return _PREFIX + re.sub(r"\W", "_", self.code)

    def module(self) -> ModuleType:
        """The executed file, once in a process. Raises PluginError, in one line, for whatever it raises."""
        name = self.module_name
        if name in sys.modules:
            return sys.modules[name]
        module = ModuleType(name)
        # Dataclasses look their module up; tracebacks and inspect read the source from here, as there may be no file.
        sys.modules[name] = module
        try:
            code = compile(self.source, f"<{self.code}>", "exec", dont_inherit=True)
            text = self.source.decode("utf-8", "replace")
            linecache.cache[f"<{self.code}>"] = (len(text), None, text.splitlines(keepends=True), f"<{self.code}>")
            exec(code, module.__dict__)
        except KeyboardInterrupt:
            del sys.modules[name]
            raise
        except SyntaxError as error:
            del sys.modules[name]
            raise PluginError(f"{self.name} line {error.lineno}: is not Python ({first_line(error.msg)}).") from None
        except BaseException as error:  # whatever a file does when it is executed, sys.exit() too
            del sys.modules[name]
            raise PluginError(f"{self.name} cannot be loaded: {told(error)}. {_hint(error)}") from None
        _LOADED[name] = self
        for each in self.classes():
            if each.__reduce_ex__ is object.__reduce_ex__ and each.__reduce__ is object.__reduce__:
                each.__reduce_ex__ = _reduced  # pyright: ignore[reportAttributeAccessIssue]
        return module

    def classes(self) -> list[type]:
        """The classes that the file defines itself, in their order."""
        own = {id(each): each for each in vars(self.module()).values() if isinstance(each, type)}
        return [each for each in own.values() if each.__module__ == self.module_name]


def read_plugin(path: str | Path) -> PluginFile:
    """The plug-in file at a path. Raises PluginError in one line."""
    where = shown(path)
    name = Path(path).name
    if not _NAME.fullmatch(name):
        raise PluginError(
            f"--plugin {where}: expected a Python file, named by letters, digits, '.', '_' and '-', such as mine.py."
        )
    try:
        with Path(path).open("rb") as file:
            source = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise PluginError(f"--plugin {where}: {(error.strerror or type(error).__name__).lower()}.") from None
    if len(source) > MAX_BYTES:
        raise PluginError(
            f"--plugin {where}: larger than {MAX_BYTES // 1000} kB. Keep data out of it, or install it as a package."
        )
    beside = [name for name in _imported(source) if _is_beside(Path(path).resolve().parent, name)]
    if beside:
        raise PluginError(
            f"--plugin {where}: imports {quoted(beside[0])}, a module beside it, which does not travel to workers. "
            "Put it into the same file, or install both as a package."
        )
    return PluginFile(name, source)


def loaded_modules() -> list[ModuleType]:
    """The modules of the plug-in files in this process."""
    return [sys.modules[name] for name in _LOADED if name in sys.modules]


def told(error: BaseException) -> str:
    """`mine.py line 12: KeyError: 'x'`: an error of a plug-in with the last line of it that was reached."""
    frames = traceback.extract_tb(error.__traceback__)
    frames = [frame for frame in frames if frame.filename.startswith("<") and ".py+" in frame.filename] or frames
    at = f"{Path(frames[-1].filename.strip('<>').partition('+')[0]).name} line {frames[-1].lineno}: " if frames else ""
    return f"{at}{type(error).__name__}: {first_line(error) or 'no message'}".rstrip(".")


def _hint(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError):
        return "Install what it imports, on every node."
    return "Correct the file."


def _imported(source: bytes) -> list[str]:
    """The first parts of the names that a file imports; nothing of one that is no Python, which is said later."""
    import ast

    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name.partition(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [(node.module or "").partition(".")[0] if not node.level else "."]
    return found


def _is_beside(folder: Path, name: str) -> bool:
    if name == ".":
        return True
    if not name or name in sys.stdlib_module_names or folder.name in ("site-packages", "dist-packages"):
        return False
    return (folder / f"{name}.py").is_file() or (folder / name / "__init__.py").is_file()


def _reduced(self: object, protocol: SupportsInt) -> tuple[Any, ...]:
    """What pickle writes of an object of a plug-in's class: the file and the class's name in place of the class."""
    maker, arguments, *rest = object.__reduce_ex__(self, max(2, int(protocol)))
    cls = type(self)
    file = _LOADED.get(cls.__module__)
    if file is None or "<locals>" in cls.__qualname__:
        return (maker, arguments, *rest)
    if maker is copyreg.__newobj__:  # pyright: ignore[reportAttributeAccessIssue]
        return (_made, (file, cls.__qualname__, arguments[1:], {}), *rest)
    if maker is copyreg.__newobj_ex__:  # pyright: ignore[reportAttributeAccessIssue]
        return (_made, (file, cls.__qualname__, *arguments[1:]), *rest)
    return (maker, arguments, *rest)


def _made(file: PluginFile, qualname: str, arguments: tuple[object, ...], named: dict[str, Any]) -> Any:
    """An empty object of a class of the file; where the file cannot be loaded, one that says so when it is used."""
    try:
        cls: Any = file.module()
    except PluginError as error:
        return _Unavailable(str(error))
    for part in qualname.split("."):
        cls = getattr(cls, part)
    return cls.__new__(cls, *arguments, **named)


class _Unavailable:
    """In place of an object whose file cannot be loaded on this node: an error while unpickling has no place to go."""

    def __init__(self, why: str):
        self.__dict__["why"] = why

    def __setstate__(self, state: object) -> None:
        """What the object held means nothing here."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise PluginError(self.__dict__["why"])
