"""A metric of somebody else's, made whole: what docs/PLUGINS.md lets it leave out, and what it returns, checked."""

from __future__ import annotations

import json
import math
import numbers
from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass, replace
from typing import Any

import numpy as np

from chexray.contract import NAME, scores_itself
from chexray.errors import MetricError, PluginError
from chexray.metrics.base import Images, Mapper, Output, Rows, Score, ScoreFromImages, serial
from chexray.metrics.common import Error, Floor, measured, nulls, refusal
from chexray.plugin_files import told
from chexray.text import first_line, quoted, shown

NO_ERROR = "the plug-in estimates none"
_STATUSES = ("ok", "too_few", "undefined", "failed")
_TAKEN = ("synthetic_set", "encoder", "sample_id", "nearest_real_id")
"""Columns that every per-image table has."""


@dataclass(frozen=True, kw_only=True)
class PluggedMetric(ScoreFromImages):
    """A plug-in's metric as the engine calls it. inner: what the plug-in made. code: which code that is.

    One with `compute` alone gives numbers without an error and a floor.
    """

    inner: Any
    code: str
    reads: str
    requires: str
    outputs: tuple[Output, ...]
    needs_real: bool

    def score_images(
        self, real: Rows, synthetic: Rows, *, seed: int = 0, mapper: Mapper = serial, floor: bool = True
    ) -> tuple[list[Score], Images]:
        """The plug-in's scores, each with the param `plugin`. Raises MetricError where they are not as declared."""
        if scores_itself(type(self.inner)):
            found = self.inner.score_images(real, synthetic, seed=seed, mapper=mapper, floor=floor)
            scores, images = self._checked(found), _columns(found[1], len(synthetic))
        else:
            scores, images = self._computed(real, synthetic), {}
        return [replace(score, params={**score.params, "plugin": self.code}) for score in scores], images

    def _computed(self, real: Rows, synthetic: Rows) -> list[Score]:
        least = getattr(self.inner, "min_samples", 1)
        if refused := refusal(self.outputs, real, synthetic, least, self.needs_real):
            return refused
        summarise = getattr(self.inner, "summarise", lambda rows: rows.features)
        values = self.inner.compute(summarise(real) if self.needs_real else None, summarise(synthetic))
        return [self._score(output, value) for output, value in zip(self.outputs, self._values(values), strict=True)]

    def _values(self, found: Any) -> list[Any]:
        """What `compute` returned, a value an output."""
        names = [output.name for output in self.outputs]
        if not isinstance(found, Mapping):
            if len(names) > 1:
                raise MetricError(f"compute returned {_kind(found)}, expected a mapping with {', '.join(names)}")
            return [found]
        if set(found) != set(names):
            raise MetricError(f"compute returned {quoted(list(found), 100)}, expected {quoted(names, 100)}")
        return [found[name] for name in names]

    def _score(self, output: Output, value: Any) -> Score:
        if value is None:
            return nulls([output], "undefined", "compute returned None for these images")[0]
        if getattr(value, "shape", None) == ():
            value = value.item()
        if not isinstance(value, numbers.Real) or isinstance(value, bool):
            raise MetricError(f"compute returned {_kind(value)} for {output.name}, expected a number or None")
        if value != value or value in (float("inf"), float("-inf")):
            return nulls([output], "undefined", f"compute returned {value} for these images")[0]
        return measured(output, float(value), Error(reason=NO_ERROR), Floor(reason=NO_ERROR), **self._parameters())

    def _parameters(self) -> dict[str, Any]:
        """The options of a dataclass, which tell one use of a metric from another."""
        if not is_dataclass(self.inner):
            return {}
        return json.loads(json.dumps(asdict(self.inner), default=str))  # pyright: ignore[reportArgumentType]

    def _checked(self, found: Any) -> list[Score]:
        names = [output.name for output in self.outputs]
        fits = isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], Mapping)
        scores = found[0] if fits and isinstance(found[0], list | tuple) else None
        if scores is None or not all(isinstance(score, Score) for score in scores):
            raise MetricError(f"score_images returned {_kind(found)}, expected (a list of Score, a dict of columns)")
        if [score.metric for score in scores] != names:
            got = quoted([score.metric for score in scores], 100)
            raise MetricError(f"score_images returned scores of {got}, expected {quoted(names, 100)}")
        for score in scores:
            if wrong := _unsound(score):
                raise MetricError(f"score_images returned {score.metric} with {wrong}")
        return list(scores)


def _unsound(score: Score) -> str:
    """What no results file can hold of a score; "" for nothing."""
    for name in ("value", "std_error", "ci_low", "ci_high", "real_floor", "real_floor_std_error"):
        number = getattr(score, name)
        if number is not None and not (isinstance(number, numbers.Real) and math.isfinite(number)):
            return f"{name} {quoted(number, 60)}, expected a finite number or None"
        if number is not None and name.endswith("std_error") and number < 0:
            return f"{name} below 0"
    if score.ci_low is not None and score.ci_high is not None and score.ci_low > score.ci_high:
        return "ci_low above ci_high"
    if (score.value is None) == (score.status == "ok") or score.status not in _STATUSES:
        return f"status {quoted(score.status, 60)} beside value {quoted(score.value, 60)}"
    try:
        json.dumps(score.params, allow_nan=False)
    except (TypeError, ValueError) as error:
        return f"params that are no JSON ({first_line(error, 60)})"
    return ""


def _columns(images: Mapping[str, Any], n: int) -> Images:
    """The columns of a plug-in, one number an image. Raises MetricError for others."""
    for name, values in images.items():
        if not isinstance(name, str) or name in _TAKEN or np.shape(values) != (n,):
            raise MetricError(
                f"score_images returned the column {quoted(name, 60)} of shape {np.shape(values)}, expected ({n},) and "
                f"another name than {', '.join(_TAKEN)}"
            )
    return {name: np.asarray(values) for name, values in images.items()}


def plugged_metric(inner: Any, what: str, code: str) -> PluggedMetric:
    """The metric of a plug-in, which keeps to `chexray.contract`. what: its title in an error.

    Raises PluginError for an attribute that depends on the parameters and is not what it should be.
    """
    better = getattr(inner, "better", "")
    try:
        reads, outputs = inner.reads, inner.outputs
    except Exception as error:  # of a property
        raise PluginError(f"{what}: `reads` or `outputs` failed ({told(error)}).") from error
    if not isinstance(reads, str) or not NAME.fullmatch(reads):
        raise PluginError(f"{what}: `reads` is {quoted(reads, 60)}, expected 'features' or 'logits'.")
    try:
        named = tuple(
            Output(each, better) if isinstance(each, str) else Output(each.name, each.better) for each in outputs
        )
    except (TypeError, AttributeError):
        raise PluginError(f"{what}: `outputs` is {quoted(outputs, 60)}, expected names or Outputs.") from None
    return PluggedMetric(
        inner=inner,
        code=code,
        reads=reads,
        requires=getattr(inner, "requires", reads),
        outputs=named,
        needs_real=bool(getattr(inner, "needs_real", True)),
    )


def _kind(value: Any) -> str:
    shape = getattr(value, "shape", None)
    return f"{shown(type(value).__name__, 60)}{f' of shape {tuple(shape)}' if isinstance(shape, tuple) else ''}"
