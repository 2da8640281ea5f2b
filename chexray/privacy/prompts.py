"""The paper's numbers: pairs of a real image and the images generated from its prompt, a prompt at a time and overall.

CheXGenBench (2505.10496) generates several images a prompt and reports the mean and the worst over these seeds: the
highest re-identification score, the smallest distance. Prompts of one patient resemble each other, so errors come from
resampling patients. A floor is the same statistic with real images of other patients in place of the synthetic ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import t as student

from chexray.metrics.base import Score
from chexray.metrics.common import nulls
from chexray.outputs import Output
from chexray.privacy.pair_outputs import CALIBRATED, reid_count
from chexray.privacy.shares import LEVEL, effective_n, share_interval

RESAMPLES = 1000

MIN_STUDENTISED = 8
"""Patients (or prompts) from which the studentised bootstrap is used; with fewer its tails are made of a few values."""

_GROWS = "an extreme over seeds and prompts: it gets worse with their number, so compare at equal n_seeds and n_prompts"
_CHUNK = 4_000_000


@dataclass(frozen=True)
class PromptTable:
    """One row a prompt, ascending by `code`, (p,) int64.

    n_seeds: (p,) int64 pairs of the prompt. mean, extreme: (p,) float64 over them. worst: (p,) the pair, as a position
    in the values, that has the extreme; the first of several.
    """

    code: np.ndarray
    n_seeds: np.ndarray
    mean: np.ndarray
    extreme: np.ndarray
    worst: np.ndarray

    def __len__(self) -> int:
        return len(self.code)


def prompt_table(codes: np.ndarray, values: np.ndarray, extreme: str = "max") -> PromptTable:
    """Mean and extreme of each prompt's pairs. codes: (n,) int; values: (n,) float; extreme: "max" or "min"."""
    values = np.asarray(values, dtype=np.float64)
    order = np.lexsort((-values if extreme == "max" else values, codes))
    code, start, n_seeds = np.unique(codes[order], return_index=True, return_counts=True)
    mean = np.add.reduceat(values[order], start) / n_seeds if len(order) else values
    return PromptTable(code, n_seeds, mean, values[order[start]], order[start])


def pair_scores(
    outputs: Sequence[Output],
    values: np.ndarray,
    prompt_codes: np.ndarray,
    patient_codes: np.ndarray | None,
    floor_values: np.ndarray | None,
    rng: np.random.Generator,
    *,
    floor_codes: np.ndarray | None = None,
    floor_reason: str = "",
) -> list[Score]:
    """Three scores of n pairs: the mean over prompts of the prompt's mean, that of the prompt's extreme, the extreme.

    outputs: of the three. Lower is better for a score in [0, 1] such as re-ID, whose worst case is the maximum, higher
    for a distance, whose worst case is the minimum.
    values: (n,) float, never rounded. prompt_codes: (n,) int. patient_codes: (n,) int of the real image's patient,
    negative where unknown, or None. floor_values: (m,) the same for pairs with other patients' images; floor_codes:
    (m,) their prompts, by default those of the pairs; floor_reason: why there is no floor.
    The intervals of the two means are studentised bootstraps over patients, or over prompts without patients; an
    extreme has neither error nor interval, as no resample holds a worse one. No pairs: nulls with status "too_few".
    """
    worst = "max" if outputs[0].better == "lower" else "min"
    if refused := _refusal(outputs, values):
        return refused
    table = prompt_table(prompt_codes, values, worst)
    units, method = _units(table, prompt_codes, patient_codes)
    floor, of_floor = _floor(floor_values, prompt_codes if floor_codes is None else floor_codes, worst, floor_reason)
    floors = (
        [None] * 3 if floor is None else [float(floor.mean.mean()), float(floor.extreme.mean()), _worst(floor, worst)]
    )
    about = {**_sizes(table, units, method), **of_floor}
    statistics = np.column_stack([table.mean, table.extreme])
    bounds = (0.0, 1.0) if worst == "max" else (0.0, np.inf)
    errors = bootstrap_means(statistics, units, rng, bounds)
    scores = [
        _with_error(output, float(value), error, method, real_floor=floor, about=about)
        for output, value, error, floor in zip(outputs, statistics.mean(axis=0), errors, floors, strict=False)
    ]
    about = {**about, "std_error_reason": _GROWS}
    scores.append(Score(outputs[2], _worst(table, worst), real_floor=floors[2], about=about))
    return scores


def count_scores(
    values: np.ndarray,
    prompt_codes: np.ndarray,
    patient_codes: np.ndarray | None,
    thresholds: Mapping[str, tuple[float | None, float | None]],
    floor_values: np.ndarray | None,
    rng: np.random.Generator,
    *,
    floor_codes: np.ndarray | None = None,
    floor_reason: str = "",
    uncalibrated: str = "the re-identification network could not be calibrated",
) -> list[Score]:
    """For each threshold the number of prompts whose highest score over seeds is above it: reid_count_<label>.

    thresholds: {label: (threshold, its false-positive rate on real pairs or None)}; a threshold of None gives a null
    for the reason `uncalibrated`. Above means strictly above, before any rounding. Other arguments: see `pair_scores`.
    The error is a bootstrap over patients or prompts. The interval is Clopper and Pearson's at the number of
    independent prompts that has this error (Korn and Graubard 1998), as the bootstrap knows no rare counts: where no
    prompt is above, every resample says 0. At a true share of 5 % of 16 prompts its percentiles cover the truth in 6 to
    7 of 10 worlds, this interval in at least 95 of 100 (measured; likewise from 1 to 30 %, 8 to 1000 patients).
    """
    outputs = [*map(reid_count, thresholds)]
    if refused := _refusal(outputs, values):
        return refused
    table = prompt_table(prompt_codes, values)
    units, how = _units(table, prompt_codes, patient_codes)
    sizes = _sizes(table, units, how)
    floor, floor_params = _floor(
        floor_values, prompt_codes if floor_codes is None else floor_codes, "max", floor_reason
    )
    cuts = np.array([np.nan if cut is None else cut for cut, _ in thresholds.values()], dtype=np.float64)
    above = table.extreme[:, None] > cuts
    errors = bootstrap_means(above.astype(np.float64), units, rng, (0.0, 1.0))
    scores = []
    for column, (output, (label, (cut, rate))) in enumerate(zip(outputs, thresholds.items(), strict=True)):
        if cut is None:
            scores += nulls([output], "undefined", uncalibrated)
            continue
        hit = above[:, column]
        share, n = float(hit.mean()), len(table)
        low, high = share_interval(share, effective_n(hit, units))
        # A threshold that was given is part of what the count is; one that the run found is how it came out.
        given = {} if label == CALIBRATED else {"threshold": cut}
        about: dict[str, Any] = {"false_positive_rate": rate, **sizes, **floor_params}
        about |= {"threshold": cut} if not given else {}
        about |= {"share": share, "n_pairs_above": int((np.asarray(values) > cut).sum())}
        about |= {"interval": "Clopper-Pearson at the effective number of prompts"}
        at_floor = None if floor is None else float((floor.extreme > cut).mean()) * n
        std_error = errors[column][0]
        error = (None if std_error is None else std_error * n, low * n, high * n)
        if share in (0.0, 1.0):  # every resample agrees, which is no sign of certainty
            error = (None, low * n, high * n)
            about["std_error_reason"] = "no prompt, or every one, is above: a bootstrap sees no spread"
        scores.append(_with_error(output, float(hit.sum()), error, how, real_floor=at_floor, method=given, about=about))
    return scores


Interval = tuple[float | None, float | None, float | None]


def bootstrap_means(
    columns: np.ndarray, units: np.ndarray, rng: np.random.Generator, bounds: tuple[float, float] = (-np.inf, np.inf)
) -> list[Interval]:
    """(standard error, low, high) of the mean of each column, from RESAMPLES resamples of whole units.

    columns: (p, k) float64, one row a prompt. units: (p,) codes 0 .. G-1 of what is resampled. The interval is the
    studentised bootstrap (Efron and Tibshirani 1993, 12.5), clipped to `bounds`: its coverage holds for skewed scores,
    where a few prompts are copied. Below MIN_STUDENTISED units it is Student's. (None, None, None) for a single unit.
    """
    p, k = columns.shape
    n_units = int(units.max()) + 1
    if n_units < 2:
        return [(None, None, None)] * k
    # Centred columns keep the sums of squares free of cancellation.
    centre = columns.mean(axis=0)
    sums = np.stack([np.bincount(units, weights=column, minlength=n_units) for column in (columns - centre).T], axis=1)
    sizes = np.bincount(units, minlength=n_units).astype(np.float64)[:, None]
    parts = np.hstack([sizes, sizes**2, sums, sums**2, sums * sizes])
    total = _resampled(parts, rng)
    n, n_squared, s, s_squared, s_n = np.split(total, [1, 2, 2 + k, 2 + 2 * k], axis=1)
    shift = s / n
    factor = n_units / (n_units - 1)
    own = np.sqrt(factor * np.maximum(s_squared - 2 * shift * s_n + shift**2 * n_squared, 0)) / n
    error = np.sqrt(factor * (sums**2).sum(axis=0)) / p
    half = student.ppf(0.5 + LEVEL / 2, n_units - 1) * error
    low, high = centre - half, centre + half
    for column in range(k if n_units >= MIN_STUDENTISED else 0):
        spread = own[:, column] > 1e-9 * error[column]
        if error[column] > 0 and spread.any():
            ratio = shift[spread, column] / own[spread, column]
            most, least = np.quantile(ratio, [0.5 + LEVEL / 2, 0.5 - LEVEL / 2])
            low[column] = centre[column] - max(most, 0) * error[column]
            high[column] = centre[column] - min(least, 0) * error[column]
    low, high = np.clip(low, *bounds), np.clip(high, *bounds)
    std_error = shift.std(axis=0, ddof=1) * np.sqrt(factor)
    return [(float(std_error[i]), float(low[i]), float(high[i])) for i in range(k)]


def _resampled(parts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(RESAMPLES, columns) sums of `parts`, (G, columns), over G units drawn with replacement."""
    n_units = len(parts)
    chunk = max(1, min(RESAMPLES, _CHUNK // n_units))
    out = []
    for start in range(0, RESAMPLES, chunk):
        rows = min(chunk, RESAMPLES - start)
        drawn = rng.integers(0, n_units, (rows, n_units)) + n_units * np.arange(rows)[:, None]
        out.append(np.bincount(drawn.ravel(), minlength=rows * n_units).reshape(rows, n_units) @ parts)
    return np.concatenate(out)


def _units(table: PromptTable, prompt_codes: np.ndarray, patient_codes: np.ndarray | None) -> tuple[np.ndarray, str]:
    """(p,) code 0 .. G-1 of the independent unit of each prompt, and the method's name.

    A prompt whose pairs are of several patients ties these together. A prompt of an unknown patient is its own unit.
    """
    p = len(table)
    if patient_codes is None or not (patient_codes >= 0).any():
        return np.arange(p), "bootstrap over prompts"
    prompt = np.searchsorted(table.code, prompt_codes)
    known = patient_codes >= 0
    patients, patient = np.unique(patient_codes[known], return_inverse=True)
    n = p + len(patients)
    graph = coo_array((np.ones(len(patient), dtype=np.int8), (prompt[known], p + patient.reshape(-1))), shape=(n, n))
    return np.unique(connected_components(graph, directed=False)[1][:p], return_inverse=True)[1].reshape(-1), (
        "bootstrap over patients"
    )


def _refusal(outputs: Sequence[Output], values: np.ndarray) -> list[Score] | None:
    if not len(values):
        return nulls(outputs, "too_few", "there are no pairs of a real and a synthetic image")
    n_bad = int((~np.isfinite(values)).sum())
    if n_bad:
        return nulls(outputs, "undefined", f"the values of {n_bad} of {len(values)} pairs are NaN or infinite")
    return None


def _sizes(table: PromptTable, units: np.ndarray, method: str) -> dict[str, Any]:
    sizes = {
        "n_pairs": int(table.n_seeds.sum()),
        "n_prompts": len(table),
        "n_seeds_min": int(table.n_seeds.min()),
        "n_seeds_max": int(table.n_seeds.max()),
    }
    return {**sizes, "n_patients": int(units.max()) + 1} if method.endswith("patients") else sizes


def _floor(
    values: np.ndarray | None, codes: np.ndarray, worst: str, reason: str
) -> tuple[PromptTable | None, dict[str, Any]]:
    """The floor pairs by prompt, None without any, and what is told about it."""
    if values is None or not len(values) or not np.isfinite(values).all():
        reason = reason or ("" if values is None or not len(values) else "some floor pairs are NaN or infinite")
        return None, {"floor_reason": reason} if reason else {}
    return prompt_table(codes, values, worst), {"floor_method": "other_patients", "floor_n_pairs": len(values)}


def _worst(table: PromptTable, worst: str) -> float:
    return float(table.extreme.max() if worst == "max" else table.extreme.min())


def _with_error(output: Output, value: float, error: Interval, how: str, *, about: dict[str, Any], **kw: Any) -> Score:
    std_error, low, high = error
    if low is None:
        about = {**about, "std_error_reason": "all prompts are of one patient, or there is one prompt"}
    found = how if low is not None else ""
    return Score(
        output, value, std_error=std_error, ci_low=low, ci_high=high, std_error_method=found, about=about, **kw
    )
