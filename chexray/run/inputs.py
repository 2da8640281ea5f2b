"""What Python users hand to `evaluate`, as a RunConfig: a config, a file, a mapping or keywords; tables as sets."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path

import yaml

from chexray.config import RunConfig, parse_config, read_yaml
from chexray.config.reading import default_encoders
from chexray.errors import ConfigError
from chexray.text import shown

ROLES = ("real", "training", "heldout", "synthetic")


def as_config(given: object = None, settings: Mapping[str, object] | None = None) -> RunConfig:
    """The config of a RunConfig, a YAML file, a mapping as in such a file, or None, with whole settings replaced.

    A set is what a config says (a path, a mapping), or a table in memory: a pandas DataFrame with one row an image, by
    itself or as the `path` of a mapping. Raises ConfigError in one line.
    """
    flags = {key: _without_frames(key, value) if key in ROLES else value for key, value in (settings or {}).items()}
    if isinstance(given, RunConfig):
        if not flags:
            return given
        changed = parse_config(yaml.safe_load(given.to_yaml()), flags=flags, origin="evaluate")
        # Its YAML leaves secrets out.
        return changed if "storage" in flags else changed.model_copy(update={"storage": given.storage})
    if given is None:
        missing = [key for key in ("real", "synthetic") if key not in flags]
        missing = missing if "training" not in flags else [key for key in missing if key != "real"]
        if missing:
            raise ConfigError(
                f"evaluate was given no {' and no '.join(missing)}. Give a config, its path, or real=, synthetic= ..."
            )
        return parse_config({}, flags=default_encoders(flags), origin="evaluate")
    if isinstance(given, str | PathLike):
        return parse_config(read_yaml(Path(given)), flags=flags, origin=str(given))
    if not isinstance(given, Mapping):
        raise ConfigError(
            f"evaluate was given {shown(type(given).__name__, 60)}, expected a RunConfig, the path of a YAML file, a "
            "mapping, or keyword arguments such as real=... and synthetic=..."
        )
    data = {key: _without_frames(str(key), value) if key in ROLES else value for key, value in given.items()}
    return parse_config(data, flags=flags, origin="evaluate")


def _without_frames(role: str, value: object) -> object:
    """A set, or several, with each table in memory replaced by the source that reads it."""
    from chexray.data.sources._frames import is_frame
    from chexray.data.sources.frame import keep

    def one(item: object, name: str) -> object:
        if is_frame(item):
            return {"name": name, "source": "frame", "path": keep(item, name)}
        if isinstance(item, Mapping) and is_frame(item.get("path")):
            kept = keep(item["path"], str(item.get("name") or name))
            return {"name": name, "source": "frame", **item, "path": kept}
        return item

    if role == "synthetic" and isinstance(value, list | tuple):
        return [one(item, f"synthetic-{n}" if len(value) > 1 else "synthetic") for n, item in enumerate(value, 1)]
    if role == "synthetic" and isinstance(value, Mapping) and "path" not in value:  # {name: set}
        return {name: one({"path": item} if is_frame(item) else item, str(name)) for name, item in value.items()}
    return one(value, role)
