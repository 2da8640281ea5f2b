"""YAML, flags and overrides to a `RunConfig`. Whatever is wrong is one line that names the key and the next move."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from chexray.config.models import RunConfig, named, one_set, several_sets
from chexray.errors import ConfigError


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The config in a YAML file with `key.path=value` overrides applied. Raises ConfigError in one line."""
    return parse_config(read_yaml(path), overrides, origin=str(path))


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file, unvalidated. Raises ConfigError in one line."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config file. Start from one in configs/.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as a config ({error}).") from None
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}:{where} is not YAML: {getattr(error, 'problem', error)}.") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected a mapping of settings, found {type(data).__name__}. See configs/.")
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

    Errors name `origin`.
    """
    data = {**copy.deepcopy(data), **(flags or {})}
    # Short forms are spelled out first, so that an override can reach into them (synthetic.0.name=...).
    for key, spell_out in _SHORT_FORMS.items():
        if key in data:
            data[key] = spell_out(data[key])
    for override in overrides:
        _apply(data, override)
    try:
        return RunConfig.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{origin}: {_first_problem(error)}") from None


def with_reid_weights(
    data: dict[str, Any], flags: dict[str, Any], weights: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(data, flags) whose re-identification encoder reads `weights`; it is added when the config names none."""
    holder = flags if "encoders" in flags else data
    encoders = [dict(item) if isinstance(item, dict) else item for item in named(holder.get("encoders") or [])]
    siamese = [item for item in encoders if isinstance(item, dict) and item.get("name") == REID]
    for item in siamese:
        item["weights"] = weights
    holder = {**holder, "encoders": encoders if siamese else [*encoders, {"name": REID, "weights": weights}]}
    return (data, holder) if "encoders" in flags else (holder, flags)


def _apply(data: dict[str, Any], override: str) -> None:
    key, found, value = override.partition("=")
    if not found or not key:
        raise ConfigError(f"--set {override!r}: expected key=value, such as encode.batch_size=64.")
    *parents, last = key.split(".")
    node: Any = data
    try:
        for part in parents:
            node = node[int(part)] if isinstance(node, list) else node.setdefault(part, {})
        parsed = yaml.safe_load(value)
        if isinstance(node, list):
            node[int(last)] = parsed
        else:
            node[last] = parsed
    except (TypeError, ValueError, IndexError, AttributeError, yaml.YAMLError):
        raise ConfigError(f"--set {override!r}: {key!r} does not lead to a setting of this config.") from None


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
        near = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Known keys: {', '.join(known)}."
        return f"unknown key {where!r}. {hint}{rest}"
    if problem["type"] == "missing":
        return f"{where!r} is required.{rest}"
    message = problem["msg"].removeprefix("Value error, ")
    # A rejected secret must not be echoed.
    value = None if "password" in message else problem.get("input")
    shown = f", found {value!r}" if isinstance(value, str | int | float | bool) and "storage" not in where else ""
    return f"{where}: {message}{shown}.{rest}"
