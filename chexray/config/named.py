"""What a config names: sets of images, encoders and metrics. Their other keys are options of the thing named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BeforeValidator, field_validator

from chexray.config.base import Open, split_list
from chexray.suite_names import Suite


class SetConfig(Open):
    """One set of images. All other keys, such as `path`, belong to the source that reads the set."""

    name: str = ""
    """Name of the set in the results. Default: the stem of its path."""
    source: str = ""
    """How the set is read: `table`, `folder`, `parquet_images`, `archive`, `phantom` or a plug-in. Default: inferred
    from `path`."""
    on_duplicate: Literal["error", "first"] = "error"
    """What happens when two rows have the same id: `error` refuses the set, `first` keeps the first row and counts the
    others."""
    bits: int | None = None
    """Depth of images with more than 8 bits, which sets what black and white are: 12 for 0 to 4095, -12 for -2048 to
    2047, 1 for floats from 0 to 1. Default: what the files declare, else the smallest of 8, 10, 12, 14 and 16 bits that
    holds a sample of the set."""
    suites: Annotated[list[Suite] | None, BeforeValidator(split_list)] = None
    """Suites that read this synthetic set. Default: all of the run. Fidelity needs images of test prompts, privacy
    several seeds of each training prompt, utility one image of each training prompt."""

    @field_validator("bits")
    @classmethod
    def _is_a_depth(cls, value: int | None) -> int | None:
        if value is not None and value != 1 and not 8 <= abs(value) <= 32:
            raise ValueError(
                f"{value} is no depth: expected 8 to 32, -8 to -32 for signed values, or 1 for floats to 1"
            )
        return value


class EncoderConfig(Open):
    """One encoder. All other keys are options of the encoder, such as `resize` or `side`."""

    name: str
    """Registered name of the encoder (`chexray ls encoders`)."""
    id: str = ""
    """Name of the encoder in the results. Needed only when a run uses one encoder twice."""
    weights: str | None = None
    """A hub id, a local path, an fsspec URL, `package:NAME` for trained weights of an installed package, or
    `random:SEED` for an untrained network, which nearly hides a generator that a trained one rejects. Default: the
    published weights, where the encoder has them."""
    on_missing: Literal["error", "skip"] = "error"
    """What happens when the package of `package:` weights is not installed: `error` refuses the run, `skip` leaves the
    encoder out and says so in the plan."""
    weights_are: Literal["released"] | None = None
    """`released` states that local weights are the published ones. Values of the paper are then shown next to yours
    even though neither a hash nor a hub revision confirms it."""
    precision: Literal["auto", "fp32", "tf32", "bf16"] | None = None
    """Precision of this network. Default: `encode.precision`."""
    subsets: Annotated[list[str] | None, BeforeValidator(split_list)] = None
    """Subsets of the run that fidelity scores on its features: `all`, `findings`, a column, or one subset by its name
    in the results. Default: all of the run."""
    suites: Annotated[list[Suite] | None, BeforeValidator(split_list)] = None
    """Suites that read its features. Default: every suite that can use them."""

    @property
    def label(self) -> str:
        return self.id or self.name


class MetricConfig(Open):
    """One metric. All other keys are parameters of the metric, such as `k` of `prdc`."""

    name: str
    """Registered name of the metric (`chexray ls metrics`)."""


def named(value: object) -> object:
    """`a,b` or `[a, {name: b, k: 3}]` to a list of mappings with a name."""
    items = value.split(",") if isinstance(value, str) else value
    if isinstance(items, dict):
        items = [items]
    if not isinstance(items, Sequence):
        return value
    return [{"name": item.strip()} if isinstance(item, str) else item for item in items]


def one_set(value: object) -> object:
    return {"path": value} if isinstance(value, str) else value


def several_sets(value: object) -> object:
    """A path, a mapping, a list of either, or a mapping of name to set."""
    if isinstance(value, dict) and value and all(isinstance(item, dict) for item in value.values()):
        is_options = bool(set(value) & {"path", "source", "columns"})
        if not is_options:
            return [{"name": name, **item} for name, item in value.items()]
    items = value if isinstance(value, list) else [value]
    return [one_set(item) for item in items]
