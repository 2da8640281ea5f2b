"""What the sets of a run are called, in its config and in its results."""

from __future__ import annotations

import re
from collections.abc import Sequence

from chexray.config import RunConfig, SetConfig
from chexray.errors import ConfigError
from chexray.storage import absolute
from chexray.storage.uris import split
from chexray.text import quoted


def key_of(config: RunConfig, item: SetConfig) -> str:
    """Where the settings of one of the sets stand in the config: real, training, heldout, or synthetic.0."""
    named = {"real": config.real, "training": config.training, "heldout": config.heldout}
    named |= {f"synthetic.{place}": each for place, each in enumerate(config.synthetic)}
    return next((key for key, each in named.items() if each is item), "real")


def distinct_names(items: Sequence[tuple[str, SetConfig]]) -> list[str]:
    """A name for each (role, set), distinct: the given one or the stem of its path, with as many of the folders above
    it as tell it from the others.

    Raises ConfigError for two sets of one given name, and for one path that is given twice.
    """
    steps = [_steps(item) for _, item in items]
    depth = max(map(len, steps), default=0)
    names: list[str] = []
    for n in range(1, depth + 2):
        longer = ["-".join(each[-n:]) or item.source or role for each, (role, item) in zip(steps, items, strict=True)]
        # Only those that are called like another one get longer.
        names = names or [item.name or name for name, (_, item) in zip(longer, items, strict=True)]
        doubles = {name for name in names if names.count(name) > 1}
        names = [
            new if name in doubles and not item.name else name
            for name, new, (_, item) in zip(names, longer, items, strict=True)
        ]
    if len(set(names)) < len(names):
        role, item = items[names.index(max(names, key=names.count))]
        double = item.name or "".join(_steps(item)[-1:]) or item.source or role
        raise ConfigError(
            f"two sets are called {quoted(double)}: give each its own `name`, on the command line with --set "
            "synthetic.0.name=NAME."
        )
    return names


def _steps(item: SetConfig) -> list[str]:
    """The folders of a set's path and the stem of its last part without signs of a pattern; [] for a set without a
    path."""
    path = item.options.get("path")
    if not isinstance(path, str) or not path.strip("/"):
        return []
    *folders, last = split(absolute(path.rstrip("/")))[1].split("/")
    stem = re.sub(r"\{\d+\.\.\d+\}|[*?]+", "", last).split(".")[0].strip("-_") or ("" if folders else last)
    return [*folders, stem] if stem else folders
