"""YAML, flags and overrides to a `RunConfig`. Whatever is wrong is one line that names the key and the next move."""

from __future__ import annotations

import copy
import difflib
import os
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from chexray.config.base import words
from chexray.config.models import RunConfig, named, one_set, several_sets
from chexray.config.secrets import refuse_on_command_line
from chexray.config.yaml_text import MAX_BYTES, MAX_DEPTH, NotYaml, check_plain, parse_yaml
from chexray.errors import ConfigError
from chexray.text import quoted, shown


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The config in a YAML file with `key.path=value` overrides applied. Raises ConfigError in one line."""
    return parse_config(read_yaml(path), overrides, origin=str(path))


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file, unvalidated. Raises ConfigError in one line."""
    where = shown(path)
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(f"{where}: no such config file. Start from one in configs/.") from None
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or type(error).__name__).lower()
        raise ConfigError(f"{where}: cannot be read as a config ({reason}).") from None
    return as_mapping(data, where)


def as_mapping(text: str | bytes, where: str) -> dict[str, Any]:
    """The mapping that YAML text holds, unvalidated. Raises ConfigError in one line."""
    data = parse_yaml(text, where)
    if not isinstance(data, dict):
        found = "nothing" if data is None else type(data).__name__
        raise ConfigError(f"{where}: expected a mapping of settings, found {found}. See configs/.")
    return data


REID = "siamese_reid"
"""The encoder that `--reid-weights` is for."""

_SHORT_FORMS = {
    "real": one_set,
    "training": one_set,
    "heldout": one_set,
    "synthetic": several_sets,
    "encoders": named,
    "metrics": named,
}


def parse_config(
    data: dict[str, Any],
    overrides: Sequence[str] = (),
    *,
    flags: dict[str, Any] | None = None,
    origin: str = "config",
) -> RunConfig:
    """A RunConfig from plain data, then whole settings (`flags`), then `key.path=value` overrides.

    Paths may be pathlib's. Errors name `origin`.
    """
    origin = shown(origin)
    data = _without_paths({**data, **(flags or {})})
    check_plain(data, origin)
    data = copy.deepcopy(data)
    # Short forms are spelled out first, so that an override can reach into them (synthetic.0.name=...).
    for key, spell_out in _SHORT_FORMS.items():
        if key in data:
            data[key] = spell_out(data[key])
    for override in overrides:
        _apply(data, override)
    check_plain(data, origin)
    try:
        config = RunConfig.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{origin}: {_first_problem(error)}") from None
    check_plain(config.model_dump(exclude={"storage"}), origin)  # text that was read as a number
    return config


def _without_paths(data: Any, depth: int = MAX_DEPTH) -> Any:
    """The same data with text in place of pathlib's paths; deeper than a config may be it stays as it is."""
    if isinstance(data, PathLike):
        return os.fspath(data)
    if depth and isinstance(data, dict):
        return {key: _without_paths(value, depth - 1) for key, value in data.items()}
    if depth and isinstance(data, list | tuple):
        return [_without_paths(value, depth - 1) for value in data]
    return data


def default_encoders(flags: dict[str, Any]) -> dict[str, Any]:
    """The settings of a run without a config file, with the encoders that its suites need where none are named."""
    suite = flags.get("suite") or "fidelity"
    asked = {suite} if isinstance(suite, str) and "," not in suite else set(words(suite))
    if "encoders" in flags or asked == {"utility"}:
        return flags
    return {**flags, "encoders": "rad_dino,pixels,patches" if "privacy" in asked else "rad_dino"}


def with_reid_weights(
    data: dict[str, Any], flags: dict[str, Any], weights: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(data, flags) whose re-identification encoder reads `weights`; it is added when the config names none."""
    holder = flags if "encoders" in flags else data
    given = named(holder.get("encoders") or [])
    if not isinstance(given, list):
        raise ConfigError(f"encoders: expected a list, found {quoted(given)}.")
    encoders = [dict(item) if isinstance(item, dict) else item for item in given]
    siamese = [item for item in encoders if isinstance(item, dict) and item.get("name") == REID]
    for item in siamese:
        item["weights"] = weights
    holder = {**holder, "encoders": encoders if siamese else [*encoders, {"name": REID, "weights": weights}]}
    return (data, holder) if "encoders" in flags else (holder, flags)


def _apply(data: dict[str, Any], override: str) -> None:
    key, found, value = override.partition("=")
    parsed = _parsed(value)
    refuse_on_command_line(override, parsed)
    if not found or not key:
        raise ConfigError(f"--set {quoted(override)}: expected key=value, such as encode.batch_size=64.")
    *parents, last = key.split(".")
    node: Any = data
    try:
        for part in parents:
            node = node[int(part)] if isinstance(node, list) else node.setdefault(part, {})
        if isinstance(node, list):
            node[int(last)] = parsed
        else:
            node[last] = parsed
    except (TypeError, ValueError, IndexError, AttributeError):
        raise ConfigError(
            f"--set {quoted(override)}: {quoted(key)} does not lead to a setting of this config."
        ) from None


def _parsed(value: str) -> Any:
    """The value of an override: as in a config file, or as plain text where it is none: `*.dcm`, `{IM*,x}`, `[a`."""
    if value[:1] in ("*", "&", "!", "%", "@") or (value[:1] == "{" and ":" not in value):
        return value
    try:
        return parse_yaml(value, "--set")
    except NotYaml:
        return value


def _fields_at(location: tuple[int | str, ...]) -> list[str]:
    """Known keys beside the one at `location`, by walking the model."""
    model: Any = RunConfig
    for part in location[:-1]:
        field = getattr(model, "model_fields", {}).get(part)
        model = getattr(field, "annotation", None)
    return list(getattr(model, "model_fields", {}))


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    # The members of a union are no part of the key.
    parts = [str(part) for part in problem["loc"] if part not in ("int", "str") and "[" not in str(part)]
    where = ".".join(parts) or "config"
    rest = f" ({error.error_count() - 1} more after this one)" if error.error_count() > 1 else ""
    if problem["type"] == "extra_forbidden":
        known = _fields_at(problem["loc"])
        near = difflib.get_close_matches(str(problem["loc"][-1])[:100], known, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Known keys: {', '.join(known)}."
        return f"unknown key {quoted(where)}. {hint}{rest}"
    if problem["type"] == "missing":
        return f"{quoted(where)} is required.{rest}"
    message = problem["msg"].removeprefix("Value error, ")
    # A rejected secret must not be echoed.
    value = None if "password" in message or "storage" in where else problem.get("input")
    found = f", found {quoted(value)}" if isinstance(value, str | int | float | bool) else ""
    return f"{shown(where)}: {message}{found}.{rest}"
