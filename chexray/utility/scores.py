"""Scores of a setting, its paired differences to another one, and the gaps between groups of patients, with intervals.

    table = evaluate(Predictions(labels, probabilities, thresholds, subjects), {"sex:F": mask, "sex:M": mask})
    to_scores(table), differences(table, real_table), gaps(table, {"sex": ["sex:F", "sex:M"]})

Each returns (subset, Score) pairs, subset "finding:Edema", "all", "sex:F" or, for gaps, "sex". Macro averages are over
the findings of which the subset holds both classes; a resample in which one of them loses a class averages the others,
since holding that finding at its own value covered 0.78 instead of 0.87 (percentile, 2 to 8 % positives, measured).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from chexray.findings import FINDINGS
from chexray.metrics.base import Score
from chexray.utility.chance import MIN_PATIENTS, gap_by_chance, judged
from chexray.utility.intervals import Interval, interval, pooled_units
from chexray.utility.measuring import (
    MACRO_KEYS,
    Key,
    Predictions,
    Subset,
    Table,
    Values,
    evaluate,
    tuned_thresholds,
)

__all__ = [
    "Predictions",
    "Table",
    "differences",
    "evaluate",
    "gaps",
    "macros_with_absent",
    "to_scores",
    "tuned_thresholds",
]

LOWER = ("brier", "calibration_error")
WITH_ABSENT = ("f1", "precision", "recall")
COMPARED = ("auroc_macro", "average_precision_macro", "brier_macro", "auroc")
NEEDED = f"it takes {MIN_PATIENTS} {{unit}}s with a finding and {MIN_PATIENTS} without"
TOO_SMALL = f"fewer than {MIN_PATIENTS} {{unit}}s with or without the findings that the other groups share"
ONE_TRAINING = "one training each: the spread between trainings is not in the interval"


@dataclass(frozen=True)
class _Estimate:
    """One number before its interval: `values` are (S,) and (B,), or None with status and reason for a null."""

    metric: str
    subset: str
    values: Values | None
    inflation: float | None = None
    params: dict[str, Any] = field(default_factory=dict)
    status: str = "ok"
    reason: str = ""

    def score(self, unit: str, *, name: str = "", better: str = "", bounded: bool = True) -> Score:
        name = name or self.metric
        better = better or ("lower" if self.metric.startswith(LOWER) else "higher")
        if self.values is None:
            return Score(name, None, better, status=self.status, reason=self.reason, params=self.params)
        per_seed, units = self.values.per_seed, float(self.values.units)
        found = interval(per_seed, self.values.replicates, units, unit, inflation=self.inflation, bounded=bounded)
        return _score(name, float(per_seed.mean()), better, found, per_seed, self.params)


def _score(
    name: str, value: float, better: str, found: Interval, per_seed: np.ndarray, params: dict[str, Any]
) -> Score:
    """A value with its interval, and what is known of the (S,) trainings behind it."""
    params = params | {"seeds": len(per_seed)}
    if len(per_seed) > 1:
        params["seed_std"] = float(np.std(per_seed, ddof=1))
    if found.reason:
        params["std_error_reason"] = found.reason
    if found.p_value is not None:
        params["p_value"] = found.p_value
    return Score(
        name,
        value,
        better,
        std_error=found.std_error,
        ci_low=found.low,
        ci_high=found.high,
        std_error_method=found.method,
        params=params,
    )


def to_scores(table: Table) -> list[tuple[str, Score]]:
    """Every score of the table: the findings, macro and micro averages and accuracy of "all", macro ones of the groups.

    params: n_images, n_positive (finding and micro), n_findings and left_out (macro), threshold (0.5 or "tuned") and
    thresholds (tuned, one a training), all_negative (accuracy of predicting no finding), seeds, seed_std.
    """
    return [(estimate.subset, estimate.score(table.unit)) for estimate in _estimates(table)]


def macros_with_absent(table: Table) -> list[tuple[str, Score]]:
    """Macro F1, precision and recall at 0.5 over all 14 findings, as "f1_macro_of_14": one without a positive counts 0.

    What scikit-learn computes from (n, 14) labels with average="macro", zero_division=0, and CheXGenBench publishes.
    Where findings are absent it is the macro over the present ones times their share: a property of the test set, not
    of the classifier. params.counted_as_zero names them.
    """
    subset, found = table.subsets["all"], []
    absent = subset.n_positive == 0
    named = [finding for finding, missing in zip(FINDINGS, absent, strict=True) if missing]
    for name in WITH_ABSENT:
        every = subset.findings[name, 0.5]
        params: dict[str, Any] = {"n_images": subset.n_images, "n_findings": len(FINDINGS), "threshold": 0.5}
        params |= {"counted_as_zero": named} if named else {}
        if absent.all():
            reason = f"no positive label among {subset.n_images} test images"
            estimate = _Estimate(f"{name}_macro_of_14", "all", None, params=params, status="too_few", reason=reason)
        else:
            # A resample that lost a finding counts it as 0 too: that is how upstream would score it.
            values = Values(np.nan_to_num(every.per_seed), np.nan_to_num(every.replicates), every.units)
            units, inflation = pooled_units(values.replicates[:, ~absent], values.units[~absent])
            mean = Values(values.per_seed.mean(axis=1), values.replicates.mean(axis=1), np.array(units))
            estimate = _Estimate(f"{name}_macro_of_14", "all", mean, inflation, params)
        found.append(("all", estimate.score(table.unit)))
    return found


def differences(table: Table, baseline: Table) -> list[tuple[str, Score]]:
    """Setting minus baseline on the same test images, paired by resample, as "<metric>_difference".

    For auroc_macro, average_precision_macro, brier_macro ("all") and auroc (findings); a positive Brier difference is
    worse. The spreads of both settings' trainings are added. params.p_value: two-sided, of no difference, from the
    distribution of the interval. Raises ValueError when the tables were resampled differently: other images, patients,
    seed or resamples.
    """
    if table.sample != baseline.sample:
        raise ValueError("the two settings were not scored on the same resamples of the same test images and patients")
    found, against = [], {(e.metric, e.subset): e for e in _estimates(baseline)}
    for one in _estimates(table):
        if one.metric not in COMPARED or "threshold" in one.params or not one.subset.startswith(("all", "finding:")):
            continue
        found.append((one.subset, _difference(one, against[one.metric, one.subset], table, baseline)))
    return found


def gaps(table: Table, columns: Mapping[str, Sequence[str]]) -> list[tuple[str, Score]]:
    """AUROC macro of the best minus that of the worst group of each column, {"sex": ["sex:F", "sex:M"]}.

    Over the findings that all its groups can be judged by, or it would compare different findings. Groups too small to
    judge (`chance.judged`: fewer than 5 patients with or without every finding) are left out of the gap and of these
    findings, and named in params.left_out. The interval holds the best and the worst group fixed and so does not know
    that they were picked: params.gap_by_chance is the gap that 95 % of populations stay below in which all groups are
    served equally well. There is none where the gap has no interval.
    """
    return [(column, _gap(table, list(names))) for column, names in columns.items()]


def _estimates(table: Table) -> Iterator[_Estimate]:
    for name, subset in table.subsets.items():
        for f, finding in enumerate(FINDINGS) if name == "all" else ():
            for key in subset.findings:
                yield _finding(table, subset, key, f, f"finding:{finding}")
        for key in MACRO_KEYS:
            if key in subset.findings:
                yield _macro(subset, key, name)
        for key in subset.micro:
            yield _micro(subset, key, name)


def _finding(table: Table, subset: Subset, key: Key, f: int, name: str) -> _Estimate:
    positive, negative = int(subset.n_positive[f]), int(subset.n_negative[f])
    params: dict[str, Any] = {"n_images": positive + negative, "n_positive": positive} | _threshold(key)
    if key[1] == "tuned":
        chosen = table.thresholds[:, f]
        params["thresholds"] = np.where(np.isnan(chosen), 0.5, chosen).tolist()
        if np.isnan(chosen).any():
            params["note"] = "validation lacks a class: threshold 0.5"
    every = subset.findings[key]
    values = Values(every.per_seed[:, f], every.replicates[:, f], every.units[f])
    if np.isfinite(values.per_seed).all():
        return _Estimate(key[0], name, values, params=params)
    images = f"{positive + negative} test image" + ("" if positive + negative == 1 else "s")
    reason = f"no positive among {images}" if not positive else f"no negative among {images}"
    if not positive + negative:
        reason = f"none of {subset.n_images} test images has a label of it"
    return _Estimate(key[0], name, None, params=params, status="too_few", reason=reason)


def _macro(subset: Subset, key: Key, name: str) -> _Estimate:
    scored, metric = subset.scored, f"{key[0]}_macro"
    left_out = [finding for finding, kept in zip(FINDINGS, scored, strict=True) if not kept]
    params: dict[str, Any] = {"n_images": subset.n_images, "n_findings": int(scored.sum())} | _threshold(key)
    if left_out:
        params["left_out"] = left_out
    if not scored.any():
        n = f"{subset.n_images} test image" + ("" if subset.n_images == 1 else "s")
        where = "" if name == "all" else f" of {name}"
        reason = f"no finding has both classes among {n}{where}" if subset.n_images else f"no test image{where}"
        return _Estimate(metric, name, None, params=params, status="too_few", reason=reason)
    values, inflation = _averaged(subset.findings[key], scored)
    return _Estimate(metric, name, values, inflation, params)


def _averaged(values: Values, kept: np.ndarray) -> tuple[Values, float]:
    """The mean over the findings `kept` (14,) bool, and the inflation of its variance."""
    replicates = values.replicates[:, kept]
    units, inflation = pooled_units(replicates, values.units[kept])
    known = np.isfinite(replicates)
    count = known.sum(axis=1)
    mean = np.where(known, replicates, 0).sum(axis=1) / np.where(count, count, np.nan)
    return Values(values.per_seed[:, kept].mean(axis=1), mean, np.array(units)), inflation


def _micro(subset: Subset, key: Key, name: str) -> _Estimate:
    positive, negative = int(subset.n_positive.sum()), int(subset.n_negative.sum())
    metric = key[0] if key[0] == "accuracy" else f"{key[0]}_micro"
    params: dict[str, Any] = {"n_images": subset.n_images, "n_positive": positive, "n_labels": positive + negative}
    params |= _threshold(key)
    values = subset.micro[key]
    if not np.isfinite(values.per_seed).all():
        missing = "positive" if not positive else "negative"
        reason = f"no {missing} among {positive + negative} labels of {subset.n_images} test images"
        return _Estimate(metric, name, None, params=params, status="too_few", reason=reason)
    if key[0] == "accuracy":
        params["all_negative"] = negative / (positive + negative)
    return _Estimate(metric, name, values, params=params)


def _threshold(key: Key) -> dict[str, Any]:
    return {} if key[1] is None else {"threshold": key[1]}


def _difference(one: _Estimate, other: _Estimate, table: Table, baseline: Table) -> Score:
    name, better = f"{one.metric}_difference", "lower" if one.metric.startswith(LOWER) else "higher"
    params = {k: v for k, v in one.params.items() if k in ("n_images", "n_positive", "n_findings", "left_out")}
    if one.values is None or other.values is None:
        null = one if one.values is None else other
        return Score(name, None, better, status=null.status, reason=null.reason, params=params)
    a, b = one.values, other.values
    if table.seeds == baseline.seeds == 1:
        params["note"] = ONE_TRAINING
    if all(v.per_seed.min() == v.per_seed.max() and v.per_seed[0] in (0, 1) for v in (a, b)):
        # Both at the end of the scale: resamples cannot move either, and 0 +- 0 would claim to know their difference.
        reason = "both settings are at the end of the scale in every resample"
        value = float(a.per_seed[0] - b.per_seed[0])
        return Score(name, value, better, params=params | {"std_error_reason": reason, "seeds": table.seeds})
    found = interval(
        a.per_seed,
        a.replicates - b.replicates,
        min(float(a.units), float(b.units)),
        table.unit,
        inflation=None if one.inflation is None or other.inflation is None else max(one.inflation, other.inflation),
        against=b.per_seed,
    )
    return _score(name, float(a.per_seed.mean() - b.per_seed.mean()), better, found, a.per_seed, params)


def _gap(table: Table, names: list[str]) -> Score:
    key: Key = ("auroc", None)
    subsets = {name: table.subsets[name] for name in names}
    units = {name: subset.findings[key].units * subset.scored for name, subset in subsets.items()}
    usable, common = judged(units, {name: subset.n_images for name, subset in subsets.items()})
    params: dict[str, Any] = {"groups": len(usable)}
    if left_out := [name for name in names if name not in usable]:
        params |= {"left_out": left_out, "left_out_why": f"too small to judge: {TOO_SMALL.format(unit=table.unit)}"}
    if len(usable) < 2:
        reason = (
            f"{len(usable)} of {len(names)} groups can be judged, and a gap needs 2: {NEEDED.format(unit=table.unit)}"
        )
        return Score("auroc_macro_gap", None, "lower", status="too_few", reason=reason, params=params)
    params["n_findings"] = int(common.sum())
    if not common.any():
        reason = f"no finding can be judged in each of {len(usable)} groups: {NEEDED.format(unit=table.unit)}"
        return Score("auroc_macro_gap", None, "lower", status="too_few", reason=reason, params=params)
    means = {name: _averaged(table.subsets[name].findings[key], common) for name in usable}
    value = {name: float(values.per_seed.mean()) for name, (values, _) in means.items()}
    best, worst = max(usable, key=lambda name: value[name]), min(usable, key=lambda name: value[name])
    if best == worst:
        worst = next(name for name in usable if name != best)
    params |= {"best": best, "worst": worst, "fixed": "best and worst group"}
    (a, up), (b, down) = means[best], means[worst]
    gap = Values(a.per_seed - b.per_seed, a.replicates - b.replicates, np.minimum(a.units, b.units))
    params["n_images"] = sum(table.subsets[name].n_images for name in usable)
    estimate = _Estimate("auroc_macro", "", gap, max(up, down), params)
    score = estimate.score(table.unit, name="auroc_macro_gap", better="lower", bounded=False)
    if score.ci_low is None:
        return score
    return replace(score, params=score.params | {"gap_by_chance": gap_by_chance(table.placed, usable, common)})
