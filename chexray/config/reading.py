"""YAML, flags and overrides to a `RunConfig`. All that is wrong is said at once, a line each with the next move."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from chexray.config.base import split_list
from chexray.config.models import RunConfig
from chexray.config.named import named, one_set, several_sets
from chexray.config.problems import problems_of
from chexray.config.secrets import refuse_on_command_line
from chexray.config.yaml_text import MAX_BYTES, MAX_DEPTH, NotYaml, check_plain, parse_yaml
from chexray.errors import ConfigError, ConfigProblems
from chexray.suite_names import DEFAULT_ENCODERS, FIDELITY, PRIVACY, UTILITY, default_suite
from chexray.text import quoted, shown


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The config in a YAML file with `key.path=value` overrides applied. Raises ConfigError in one line."""
    return parse_config(read_yaml(path), overrides, origin=str(path))


def read_yaml(path: str | Path) -> Data:
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


def as_mapping(text: str | bytes, where: str) -> Data:
    """The mapping that YAML text holds, unvalidated. Raises ConfigError in one line."""
    data = parse_yaml(text, where)
    if not isinstance(data, dict):
        found = "nothing" if data is None else type(data).__name__
        raise ConfigError(f"{where}: expected a mapping of settings, found {found}. See configs/.")
    return data


Data = dict[str, Any]
"""Settings as YAML or flags give them, not validated yet."""

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
    data: Data, overrides: Sequence[str] = (), *, flags: Data | None = None, origin: str = "config"
) -> RunConfig:
    """A RunConfig from plain data, then whole settings (`flags`), then `key.path=value` overrides.

    Paths may be pathlib's. Errors name `origin`. Raises ConfigProblems with a line for each key that is unknown,
    missing or of another type.
    """
    origin = shown(origin)
    data = {key: _without_paths(value) for key, value in {**data, **(flags or {})}.items()}
    check_plain(data, origin)
    data = copy.deepcopy(data)
    # Short forms are spelled out first, so that an override can reach into them (synthetic.0.name=...).
    for key, spell_out in _SHORT_FORMS.items():
        if key in data:
            data[key] = spell_out(data[key])
    wrong = [problem for override in overrides if (problem := _apply(data, override))]
    check_plain(data, origin)
    try:
        config = RunConfig.model_validate(data)
    except ValidationError as error:
        lines, rest = problems_of(data, error)
        raise ConfigProblems(origin, [*wrong, *lines], rest) from None
    if wrong:
        raise ConfigProblems(origin, wrong, config)
    check_plain(config.model_dump(exclude={"storage"}), origin)  # text that was read as a number
    return config


def _without_paths(data: object, depth: int = MAX_DEPTH) -> object:
    """The same data with text in place of pathlib's paths; deeper than a config may be it stays as it is."""
    if isinstance(data, PathLike):
        return os.fspath(data)
    if depth and isinstance(data, dict):
        return {key: _without_paths(value, depth - 1) for key, value in data.items()}
    if depth and isinstance(data, list | tuple):
        return [_without_paths(value, depth - 1) for value in data]
    return data


def default_encoders(flags: Data) -> Data:
    """The settings of a run without a config file, with the encoders that its suites need where none are named."""
    suite = flags.get("suite") or default_suite(flags)
    asked = {suite} if isinstance(suite, str) and "," not in suite else set(split_list(suite))
    if "encoders" in flags or asked == {UTILITY}:
        return flags
    return {**flags, "encoders": DEFAULT_ENCODERS[PRIVACY if PRIVACY in asked else FIDELITY]}


def with_reid_weights(data: Data, flags: Data, weights: str) -> tuple[Data, Data]:
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


def _apply(data: Data, override: str) -> str:
    """Sets what an override says, or returns what is wrong with it. Raises ConfigError for a secret."""
    key, found, value = override.partition("=")
    parsed = _parsed(value)
    refuse_on_command_line(override, parsed)
    if not found or not key:
        return f"--set {quoted(override)}: expected key=value, such as encode.batch_size=64."
    *parents, last = key.split(".")
    node: Any = data
    try:
        for part in parents:
            node = _only(node, part)
            node = node[int(part)] if isinstance(node, list) else node.setdefault(part, {})
        node = _only(node, last)
        if isinstance(node, list):
            node[int(last)] = parsed
        else:
            node[last] = parsed
    except (TypeError, ValueError, IndexError, AttributeError):
        where = f"--set {quoted(override)}: {quoted(key)} does not lead to a setting of this config."
        return f"{where}{_lists(data)}"
    return ""


def _only(node: object, part: str) -> object:
    """The one member of a list that a key leads to without a number, such as synthetic.image_root."""
    return node[0] if isinstance(node, list) and len(node) == 1 and not part.isdigit() else node


def _lists(data: object) -> str:
    """How the sets of a config are told apart, for a key that leads nowhere."""
    found = data.get("synthetic") if isinstance(data, dict) else None
    n = len(found) if isinstance(found, list) else 0
    return f" Its {n} synthetic sets are synthetic.0 to synthetic.{n - 1}." if n > 1 else ""


def _parsed(value: str) -> object:
    """The value of an override: as in a config file, or as plain text where it is none: `*.dcm`, `{IM*,x}`, `[a`."""
    if value[:1] in ("*", "&", "!", "%", "@") or (value[:1] == "{" and ":" not in value):
        return value
    try:
        return parse_yaml(value, "--set")
    except NotYaml:
        return value
