"""What the sets of a run are called in its results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chexray.config import SetConfig
from chexray.errors import ConfigError
from chexray.storage import basename, parent
from chexray.text import quoted


def distinct_names(items: Sequence[tuple[str, SetConfig]]) -> list[str]:
    """A name for each (role, set), distinct: the given one or the stem of its path; where several sets would be called
    so, the folder above is put in front of it, then the role behind it, then a number.

    Raises ConfigError for two sets to which the config gives one name.
    """
    names = [item.name or _stem(item.options.get("path")) or item.source or role for role, item in items]
    for longer in (_with_folder, _with_role):
        doubles = {name for name in names if names.count(name) > 1}
        names = [
            longer(name, role, item) if name in doubles and not item.name else name
            for name, (role, item) in zip(names, items, strict=True)
        ]
    for place in range(len(names)):
        if (n := names[:place].count(names[place])) and not items[place][1].name:
            names[place] = f"{names[place]}-{n + 1}"
    if len(set(names)) < len(names):
        double = max(names, key=names.count)
        raise ConfigError(f"two sets are called {quoted(double)}: give each its own `name`.")
    return names


def _stem(path: Any) -> str:
    return basename(path.rstrip("/")).split(".")[0] if isinstance(path, str) and path.strip("/") else ""


def _with_folder(name: str, role: str, item: SetConfig) -> str:
    path = item.options.get("path")
    above = basename(parent(path.rstrip("/"))) if isinstance(path, str) and path.strip("/") else ""
    return f"{above}-{name}" if above.strip(".") else name


def _with_role(name: str, role: str, item: SetConfig) -> str:
    return f"{name}-{role}"
