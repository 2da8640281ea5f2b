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
from chexray.outputs import Output
from chexray.utility.classification.bootstrap import MACRO_KEYS, Key, Subset, Table, Values, evaluate
from chexray.utility.classification.chance import MIN_PATIENTS, gap_by_chance, judged
from chexray.utility.classification.intervals import Interval, interval, pooled_units
from chexray.utility.classification.outputs import (
    AUROC_GAP,
    COMPARED,
    MACRO,
    MACRO_OF_14,
    MICRO,
    WITH_ABSENT,
    difference,
    output,
)
from chexray.utility.classification.predictions import Predictions, tuned_thresholds

__all__ = [
    "Predictions", "Table", "differences", "evaluate", "gaps", "macros_with_absent", "to_scores", "tuned_thresholds",
]  # fmt: skip

NEEDED = f"it takes {MIN_PATIENTS} {{unit}}s with a finding and {MIN_PATIENTS} without"
TOO_SMALL = f"fewer than {MIN_PATIENTS} {{unit}}s with or without the findings that the other groups share"
ONE_TRAINING = "one training each: the spread between trainings is not in the interval"


@dataclass(frozen=True)
class _Estimate:
    """One number before its interval: `values` are (S,) and (B,), or None with status and reason for a null."""

    output: Output
    subset: str
    values: Values | None
    inflation: float | None = None
    about: dict[str, Any] = field(default_factory=dict)
    threshold: float | str | None = None
    status: str = "ok"
    reason: str = ""

    @property
    def method(self) -> dict[str, Any]:
        return {} if self.threshold is None else {"threshold": self.threshold}

    def score(self, unit: str, *, bounded: bool = True) -> Score:
        if self.values is None:
            about = dict(self.about)
            return Score(self.output, None, status=self.status, reason=self.reason, method=self.method, about=about)
        per_seed, units = self.values.per_seed, float(self.values.units)
        found = interval(per_seed, self.values.replicates, units, unit, inflation=self.inflation, bounded=bounded)
        return _score(self.output, float(per_seed.mean()), found, per_seed, self.about, self.method)


def _score(
    output: Output,
    value: float,
    found: Interval,
    per_seed: np.ndarray,
    about: dict[str, Any],
    method: dict[str, Any] | None = None,
) -> Score:
    """A value with its interval, and what is known of the (S,) trainings behind it."""
    about = about | {"seeds": len(per_seed)}
    if len(per_seed) > 1:
        about["seed_std"] = float(np.std(per_seed, ddof=1))
    if found.reason:
        about["std_error_reason"] = found.reason
    if found.p_value is not None:
        about["p_value"] = found.p_value
    return Score(
        output, value, std_error=found.std_error, ci_low=found.low, ci_high=found.high, std_error_method=found.method,
        method=method or {}, about=about,
    )  # fmt: skip


def to_scores(table: Table) -> list[tuple[str, Score]]:
    """Every score of the table: the findings, macro and micro averages and accuracy of "all", macro ones of the groups.

    method: threshold (0.5 or "tuned"). about: n_images, n_positive (finding and micro), n_findings and left_out
    (macro), thresholds (tuned, one a training), all_negative (accuracy of predicting no finding), seeds, seed_std.
    """
    return [(estimate.subset, estimate.score(table.unit)) for estimate in _estimates(table)]


def macros_with_absent(table: Table) -> list[tuple[str, Score]]:
    """Macro F1, precision and recall at 0.5 over all 14 findings, as "f1_macro_of_14": one without a positive counts 0.

    What scikit-learn computes from (n, 14) labels with average="macro", zero_division=0, and CheXGenBench publishes.
    Where findings are absent it is the macro over the present ones times their share: a property of the test set, not
    of the classifier. about.counted_as_zero names them.
    """
    subset, found = table.subsets["all"], []
    absent = subset.n_positive == 0
    named = [finding for finding, missing in zip(FINDINGS, absent, strict=True) if missing]
    for name in WITH_ABSENT:
        every = subset.findings[name, 0.5]
        of_14 = output(name, MACRO_OF_14)
        about: dict[str, Any] = {"n_images": subset.n_images, "n_findings": len(FINDINGS)}
        about |= {"counted_as_zero": named} if named else {}
        if absent.all():
            reason = f"no positive label among {subset.n_images} test images"
            estimate = _Estimate(of_14, "all", None, None, about, 0.5, "too_few", reason)
        else:
            # A resample that lost a finding counts it as 0 too: that is how upstream would score it.
            values = Values(np.nan_to_num(every.per_seed), np.nan_to_num(every.replicates), every.units)
            units, inflation = pooled_units(values.replicates[:, ~absent], values.units[~absent])
            mean = Values(values.per_seed.mean(axis=1), values.replicates.mean(axis=1), np.array(units))
            estimate = _Estimate(of_14, "all", mean, inflation, about, 0.5)
        found.append(("all", estimate.score(table.unit)))
    return found


def differences(table: Table, baseline: Table) -> list[tuple[str, Score]]:
    """Setting minus baseline on the same test images, paired by resample, as "<metric>_difference".

    For auroc_macro, average_precision_macro, brier_macro ("all") and auroc (findings); a positive Brier difference is
    worse. The spreads of both settings' trainings are added. about.p_value: two-sided, of no difference, from the
    distribution of the interval. Raises ValueError when the tables were resampled differently: other images, patients,
    seed or resamples.
    """
    if table.sample != baseline.sample:
        raise ValueError("the two settings were not scored on the same resamples of the same test images and patients")
    found, against = [], {(e.output, e.subset): e for e in _estimates(baseline)}
    for one in _estimates(table):
        if one.output in COMPARED and one.subset.startswith(("all", "finding:")):
            found.append((one.subset, _difference(one, against[one.output, one.subset], table, baseline)))
    return found


def gaps(table: Table, columns: Mapping[str, Sequence[str]]) -> list[tuple[str, Score]]:
    """AUROC macro of the best minus that of the worst group of each column, {"sex": ["sex:F", "sex:M"]}.

    Over the findings that all its groups can be judged by, or it would compare different findings. Groups too small to
    judge (`chance.judged`: fewer than 5 patients with or without every finding) are left out of the gap and of these
    findings, and named in about.left_out. The interval holds the best and the worst group fixed and so does not know
    that they were picked: about.gap_by_chance is the gap that 95 % of populations stay below in which all groups are
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
    about: dict[str, Any] = {"n_images": positive + negative, "n_positive": positive}
    if key[1] == "tuned":
        chosen = table.thresholds[:, f]
        about["thresholds"] = np.where(np.isnan(chosen), 0.5, chosen).tolist()
        if np.isnan(chosen).any():
            about["note"] = "validation lacks a class: threshold 0.5"
    every = subset.findings[key]
    values = Values(every.per_seed[:, f], every.replicates[:, f], every.units[f])
    if np.isfinite(values.per_seed).all():
        return _Estimate(output(key[0]), name, values, None, about, key[1])
    images = f"{positive + negative} test image" + ("" if positive + negative == 1 else "s")
    reason = f"no positive among {images}" if not positive else f"no negative among {images}"
    if not positive + negative:
        reason = f"none of {subset.n_images} test images has a label of it"
    return _Estimate(output(key[0]), name, None, None, about, key[1], "too_few", reason)


def _macro(subset: Subset, key: Key, name: str) -> _Estimate:
    scored, mean = subset.scored, output(key[0], MACRO)
    left_out = [finding for finding, kept in zip(FINDINGS, scored, strict=True) if not kept]
    about: dict[str, Any] = {"n_images": subset.n_images, "n_findings": int(scored.sum())}
    if left_out:
        about["left_out"] = left_out
    if not scored.any():
        n = f"{subset.n_images} test image" + ("" if subset.n_images == 1 else "s")
        where = "" if name == "all" else f" of {name}"
        reason = f"no finding has both classes among {n}{where}" if subset.n_images else f"no test image{where}"
        return _Estimate(mean, name, None, None, about, key[1], "too_few", reason)
    values, inflation = _averaged(subset.findings[key], scored)
    return _Estimate(mean, name, values, inflation, about, key[1])


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
    pooled = output(key[0], MICRO)
    about: dict[str, Any] = {"n_images": subset.n_images, "n_positive": positive, "n_labels": positive + negative}
    values = subset.micro[key]
    if not np.isfinite(values.per_seed).all():
        missing = "positive" if not positive else "negative"
        reason = f"no {missing} among {positive + negative} labels of {subset.n_images} test images"
        return _Estimate(pooled, name, None, None, about, key[1], "too_few", reason)
    if key[0] == "accuracy":
        about["all_negative"] = negative / (positive + negative)
    return _Estimate(pooled, name, values, None, about, key[1])


def _difference(one: _Estimate, other: _Estimate, table: Table, baseline: Table) -> Score:
    of = difference(one.output)
    about = {k: v for k, v in one.about.items() if k in ("n_images", "n_positive", "n_findings", "left_out")}
    if one.values is None or other.values is None:
        null = one if one.values is None else other
        return Score(of, None, status=null.status, reason=null.reason, about=about)
    a, b = one.values, other.values
    if table.seeds == baseline.seeds == 1:
        about["note"] = ONE_TRAINING
    if all(v.per_seed.min() == v.per_seed.max() and v.per_seed[0] in (0, 1) for v in (a, b)):
        # Both at the end of the scale: resamples cannot move either, and 0 +- 0 would claim to know their difference.
        reason = "both settings are at the end of the scale in every resample"
        value = float(a.per_seed[0] - b.per_seed[0])
        return Score(of, value, about=about | {"std_error_reason": reason, "seeds": table.seeds})
    found = interval(
        a.per_seed,
        a.replicates - b.replicates,
        min(float(a.units), float(b.units)),
        table.unit,
        inflation=None if one.inflation is None or other.inflation is None else max(one.inflation, other.inflation),
        against=b.per_seed,
    )
    return _score(of, float(a.per_seed.mean() - b.per_seed.mean()), found, a.per_seed, about)


def _gap(table: Table, names: list[str]) -> Score:
    key: Key = ("auroc", None)
    subsets = {name: table.subsets[name] for name in names}
    units = {name: subset.findings[key].units * subset.scored for name, subset in subsets.items()}
    usable, common = judged(units, {name: subset.n_images for name, subset in subsets.items()})
    about: dict[str, Any] = {"groups": len(usable)}
    if left_out := [name for name in names if name not in usable]:
        about |= {"left_out": left_out, "left_out_why": f"too small to judge: {TOO_SMALL.format(unit=table.unit)}"}
    if len(usable) < 2:
        reason = (
            f"{len(usable)} of {len(names)} groups can be judged, and a gap needs 2: {NEEDED.format(unit=table.unit)}"
        )
        return Score(AUROC_GAP, None, status="too_few", reason=reason, about=about)
    about["n_findings"] = int(common.sum())
    if not common.any():
        reason = f"no finding can be judged in each of {len(usable)} groups: {NEEDED.format(unit=table.unit)}"
        return Score(AUROC_GAP, None, status="too_few", reason=reason, about=about)
    means = {name: _averaged(table.subsets[name].findings[key], common) for name in usable}
    value = {name: float(values.per_seed.mean()) for name, (values, _) in means.items()}
    best, worst = max(usable, key=lambda name: value[name]), min(usable, key=lambda name: value[name])
    if best == worst:
        worst = next(name for name in usable if name != best)
    about |= {"best": best, "worst": worst, "fixed": "best and worst group"}
    (a, up), (b, down) = means[best], means[worst]
    gap = Values(a.per_seed - b.per_seed, a.replicates - b.replicates, np.minimum(a.units, b.units))
    about["n_images"] = sum(table.subsets[name].n_images for name in usable)
    score = _Estimate(AUROC_GAP, "", gap, max(up, down), about).score(table.unit, bounded=False)
    if score.ci_low is None:
        return score
    return replace(score, about=score.about | {"gap_by_chance": gap_by_chance(table.placed, usable, common)})
