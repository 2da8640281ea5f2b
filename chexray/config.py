"""The run config: YAML (or flags) to a validated, immutable `RunConfig`, and back to YAML that runs again.

Precedence: `--set key=value`, then flags, then the file, then defaults. Paths are relative to the working directory.
Unknown keys are errors with the nearest known key, at any depth.
"""

from __future__ import annotations

import copy
import difflib
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError, model_validator

from chexray.errors import ConfigError


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SetConfig(BaseModel):
    """One set of images. Keys other than these are the source's own (`chexray ls sources` names them)."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = ""
    """What the set is called in the results; by default the stem of its path."""
    source: str = ""
    """A registered source; inferred from the path when empty."""
    on_duplicate: Literal["error", "first"] = "error"
    """What to do with a second row of the same id: refuse the set, or keep the first row and count the others."""

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class EncoderConfig(BaseModel):
    """One encoder. Keys other than these are the encoder's own options, such as `resize` or `side`."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str
    id: str = ""
    """The name in the results; needed only to tell two uses of one encoder apart."""
    weights: str | None = None
    """A hub id, a local path, an fsspec URL, or `random:SEED` (then shouted in every summary)."""
    precision: Literal["fp32", "bf16"] = "fp32"

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})

    @property
    def label(self) -> str:
        return self.id or self.name


class MetricConfig(BaseModel):
    """One metric. Keys other than `name` are its parameters, such as `k` of prdc."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


def _named(value: Any) -> Any:
    """`a,b` or `[a, {name: b, k: 3}]` to a list of mappings with a name."""
    items = value.split(",") if isinstance(value, str) else value
    if isinstance(items, dict):
        items = [items]
    if not isinstance(items, Sequence):
        return value
    return [{"name": item.strip()} if isinstance(item, str) else item for item in items]


def _words(value: Any) -> Any:
    return [word.strip() for word in value.split(",")] if isinstance(value, str) else value


def _one_set(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


def _sets(value: Any) -> Any:
    """A path, a mapping, a list of either, or a mapping of name to set."""
    if isinstance(value, dict) and value and all(isinstance(item, dict) for item in value.values()):
        is_options = bool(set(value) & {"path", "source", "columns"})
        if not is_options:
            return [{"name": name, **item} for name, item in value.items()]
    items = value if isinstance(value, list) else [value]
    return [_one_set(item) for item in items]


class EncodeConfig(_Strict):
    """How images become features. None of it changes a number beyond the last bits; `auto` suits the machine."""

    batch_size: int | Literal["auto"] = Field(default="auto", description="images an encoder sees at once")
    chunk_size: int | Literal["auto"] = Field(default="auto", description="images a commit; what a crash can cost")
    actors: int | Literal["auto"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    layout: Literal["auto", "fused", "split"] = "auto"
    """`split` decodes in tasks of their own, so that a GPU does not wait for Pillow; `fused` saves the copy on CPUs."""
    io_threads: int = Field(default=16, ge=1, le=256)
    max_pixels: int = Field(default=64_000_000, ge=1)
    max_reject_fraction: float = Field(default=0.01, ge=0, le=1)

    @model_validator(mode="after")
    def _positive(self) -> EncodeConfig:
        for key in ("batch_size", "chunk_size", "actors"):
            value = getattr(self, key)
            if value != "auto" and value < 1:
                raise ValueError(f"{key} is {value}: it must be at least 1, or 'auto'")
        return self


class StorageConfig(_Strict):
    """S3 settings; what is empty comes from the environment, the profile, or the pod's web identity."""

    endpoint_url: str | None = None
    region: str | None = None
    profile: str | None = None
    anon: bool = False
    key: SecretStr | None = None
    secret: SecretStr | None = None
    token: SecretStr | None = None
    retries: int = Field(default=4, ge=0, le=20)
    timeout_s: float = Field(default=30.0, gt=0)


class RayConfig(_Strict):
    """Where to run: RAY_ADDRESS (or `address`) joins a cluster, otherwise a local one is started and ended."""

    address: str | None = None
    num_cpus: int | None = Field(default=None, ge=1)
    object_store_gb: float | None = Field(default=None, gt=0)


class RunConfig(_Strict):
    """One evaluation: a real set, one or more synthetic sets, encoders, metrics and subsets."""

    name: str = Field(default="run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    protocol: str = "standard"
    real: Annotated[SetConfig, BeforeValidator(_one_set)]
    synthetic: Annotated[list[SetConfig], BeforeValidator(_sets)] = Field(min_length=1)
    encoders: Annotated[list[EncoderConfig], BeforeValidator(_named)] = Field(min_length=1)
    metrics: Annotated[list[MetricConfig], BeforeValidator(_named)] = Field(
        default_factory=lambda: [MetricConfig(name=name) for name in ("fid", "fid_infinity", "kid", "prdc", "cmmd")],
        min_length=1,
    )
    subsets: Annotated[list[str | dict[str, Any]], BeforeValidator(_words)] = ["all"]
    label_policy: Literal["u_zeros", "u_ones", "u_ignore"] = "u_zeros"
    output: str = "out"
    feature_store: str | None = None
    """Where features are kept and shared between runs; by default `features/` in `output`."""
    limit: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0)
    floor: bool = True
    """Compute the real-against-real floor beside each number (about doubles the cost of the reduce stage)."""
    encode: EncodeConfig = EncodeConfig()
    storage: StorageConfig = StorageConfig()
    ray: RayConfig = RayConfig()

    @model_validator(mode="before")
    @classmethod
    def _no_credentials_in_urls(cls, data: Any) -> Any:
        """config.yaml and the results repeat locations, so none may hold a password."""
        for text in _texts(data):
            parts = text.partition("://")
            if parts[1] and "@" in parts[2].split("/")[0]:
                raise ValueError(
                    f"a {parts[0]}:// location holds a user or password: put credentials in the environment"
                )
        return data

    @model_validator(mode="after")
    def _distinct(self) -> RunConfig:
        labels = [encoder.label for encoder in self.encoders]
        if len(set(labels)) < len(labels):
            raise ValueError(f"two encoders are called {max(labels, key=labels.count)!r}: give one of them an `id`")
        return self

    def to_yaml(self) -> str:
        """YAML that runs again. Secrets are left out: they come from the environment."""
        data = self.model_dump(mode="json", exclude={"storage": {"key", "secret", "token"}}, exclude_defaults=True)
        return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=110)

    @property
    def fingerprint(self) -> str:
        """10 hex digits over what determines the numbers; where and how fast they are computed is left out."""
        data = self.model_dump(
            mode="json", exclude={"output", "feature_store", "encode", "storage", "ray"}, exclude_defaults=True
        )
        data["max_pixels"] = self.encode.max_pixels
        return hashlib.blake2b(json.dumps(data, sort_keys=True).encode(), digest_size=5).hexdigest()


def _texts(data: Any) -> Iterator[str]:
    if isinstance(data, str):
        yield data
    elif isinstance(data, dict | list):
        for item in data.values() if isinstance(data, dict) else data:
            yield from _texts(item)


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
    for key, spell_out in (("real", _one_set), ("synthetic", _sets), ("encoders", _named), ("metrics", _named)):
        if key in data:
            data[key] = spell_out(data[key])
    for override in overrides:
        _apply(data, override)
    try:
        return RunConfig.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{origin}: {_first_problem(error)}") from None


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
