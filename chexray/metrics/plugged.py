"""A metric of somebody else's, made whole: what docs/PLUGINS.md lets it leave out, and what it returns, checked."""

from __future__ import annotations

import json
import math
import numbers
from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass, replace
from typing import Any

import numpy as np

from chexray.contract import are_reads, misdeclared, scores_itself
from chexray.errors import MetricError, PluginError
from chexray.metrics.base import Images, Mapper, Output, Reads, Rows, Score, ScoreFromImages, serial
from chexray.metrics.common import Error, Floor, measured, nulls, refusal
from chexray.plugin_files import told
from chexray.text import first_line, quoted, shown

NO_ERROR = "the plug-in estimates none"
ASSUMED = "its plug-in declares nothing, so it is taken to depend on the number of images"
_STATUSES = ("ok", "too_few", "undefined", "failed")
_TAKEN = ("synthetic_set", "encoder", "sample_id", "nearest_real_id")
"""Columns that every per-image table has."""


@dataclass(frozen=True, kw_only=True)
class PluggedMetric(ScoreFromImages):
    """A plug-in's metric as the engine calls it. inner: what the plug-in made. code: which code that is. assumed: the
    outputs that it gave by name alone.

    One with `compute` alone gives numbers without an error and a floor.
    """

    inner: Any
    code: str
    reads: str | Reads
    requires: str
    outputs: tuple[Output, ...]
    needs_real: bool
    assumed: frozenset[str] = frozenset()

    def score_images(
        self, real: Rows, synthetic: Rows, *, seed: int = 0, mapper: Mapper = serial, floor: bool = True
    ) -> tuple[list[Score], Images]:
        """The plug-in's scores, each with `plugin` in its method. Raises MetricError where they are not as declared."""
        if scores_itself(type(self.inner)):
            found = self.inner.score_images(real, synthetic, seed=seed, mapper=mapper, floor=floor)
            scores, images = self._checked(found), _columns(found[1], len(synthetic))
        else:
            scores, images = self._computed(real, synthetic), {}
        return [self._signed(score) for score in scores], images

    def _signed(self, score: Score) -> Score:
        """The score with the code in its method, and a note where nothing is declared."""
        about = score.about
        if score.metric in self.assumed and score.value is not None:
            about = {**about, "note": "; ".join(filter(None, (about.get("note"), ASSUMED)))}
        return replace(score, method={**score.method, "plugin": self.code}, about=about)

    def _computed(self, real: Rows, synthetic: Rows) -> list[Score]:
        least = getattr(self.inner, "min_samples", 1)
        if refused := refusal(self.outputs, real, synthetic, least, self.needs_real):
            return refused
        summarise = getattr(self.inner, "summarise", lambda rows: rows.features)
        values = self.inner.compute(summarise(real) if self.needs_real else None, summarise(synthetic))
        return [self._score(output, value) for output, value in zip(self.outputs, self._values(values), strict=True)]

    def _values(self, found: object) -> list[Any]:
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
        why = Error(reason=NO_ERROR), Floor(reason=NO_ERROR)
        return measured(output, float(value), *why, method=self._parameters())

    def _parameters(self) -> dict[str, Any]:
        """The options of a dataclass, which tell one use of a metric from another."""
        if not is_dataclass(self.inner):
            return {}
        return json.loads(json.dumps(asdict(self.inner), default=str))  # pyright: ignore[reportArgumentType]

    def _checked(self, found: object) -> list[Score]:
        names = [output.name for output in self.outputs]
        scores = found[0] if isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], Mapping) else None
        if not isinstance(scores, list | tuple) or not all(isinstance(score, Score) for score in scores):
            raise MetricError(f"score_images returned {_kind(found)}, expected (a list of Score, a dict of columns)")
        if [score.metric for score in scores] != names:
            got = quoted([score.metric for score in scores], 100)
            raise MetricError(f"score_images returned scores of {got}, expected {quoted(names, 100)}")
        for score in scores:
            if wrong := _unsound(score):
                raise MetricError(f"score_images returned {score.metric} with {wrong}")
        return [replace(score, output=output) for score, output in zip(scores, self.outputs, strict=True)]


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
        return f"a method or about that is no JSON ({first_line(error, 60)})"
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
    if not are_reads(reads):
        raise PluginError(f"{what}: `reads` is {quoted(reads, 60)}, expected 'features', 'logits' or a Reads.")
    needs_real = bool(getattr(inner, "needs_real", True))
    try:
        named = tuple(_declared(each, better, needs_real) for each in outputs)
    except (TypeError, AttributeError):
        raise PluginError(f"{what}: `outputs` is {quoted(outputs, 60)}, expected names or Outputs.") from None
    if wrong := misdeclared(named):
        raise PluginError(f"{what} {wrong}.")
    return PluggedMetric(
        inner=inner,
        code=code,
        reads=reads,
        requires=getattr(inner, "requires", Reads.of(reads).synthetic[0]),
        outputs=named,
        needs_real=needs_real,
        assumed=frozenset(each for each in outputs if isinstance(each, str)),
    )


def _declared(output: Any, better: str, needs_real: bool) -> Output:
    """A plug-in's output. What is given by name alone may move with n as far as anybody knows."""
    if isinstance(output, Output):
        return output
    if isinstance(output, str):
        return Output(output, better, moves_with=("n_real", "n_synthetic") if needs_real else ("n_synthetic",))
    return Output(output.name, output.better)


def _kind(value: object) -> str:
    shape = getattr(value, "shape", None)
    return f"{shown(type(value).__name__, 60)}{f' of shape {tuple(shape)}' if isinstance(shape, tuple) else ''}"
