"""Stars of subgroup gaps: how often populations served equally well get one, and how often a planted gap does.

Patients have 1 + Poisson(extra) images; findings and scores are alike within a patient, scores also across the findings
of an image. Scores follow a binormal model with the AUROC asked for, the same in all groups, or 0.85 and in one group
0.65. A population whose groups are too small to judge gets no star and counts as one without.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from chexray.findings import FINDINGS
from chexray.results.trainings import beyond_chance
from chexray.utility.classification.estimates import Predictions, evaluate, gaps

NOMINAL, WANTED_POWER = 0.06, 0.80
SPREAD = tuple(np.geomspace(0.005, 0.5, 14))
PLANTED = (0.85, 0.65)


@dataclass(frozen=True)
class Case:
    """sizes: images of each group. prevalence: of each finding. auroc: of every group; planted: the first group has
    PLANTED[1], the others PLANTED[0], and at least 20 positives. alike: correlation of scores within a patient."""

    name: str
    sizes: tuple[int, ...]
    prevalence: tuple[float, ...]
    auroc: float = 0.8
    extra: float = 0.67
    alike: float = 0.5
    planted: bool = False
    rare_in_first: float = 1.0
    shift: float = 0.0


EQUAL = (
    Case("2 of 392 (default age bins)", (2, 60, 150, 180), SPREAD),
    Case("5 to 5,000, all prevalences", (5, 50, 500, 5000), SPREAD),
    Case("20, 40, 80, 100, all prevalences", (20, 40, 80, 100), SPREAD),
    Case("21 smallest", (21, 160, 211), SPREAD),
    Case("30 beside 300, 50 %", (30, 300), (0.5,)),
    Case("30 beside 300, 50 %, AUROC 0.95", (30, 300), (0.5,), 0.95),
    Case("50 beside 500, 20 %", (50, 500), (0.2,)),
    Case("50 beside 500, 20 %, AUROC 0.95", (50, 500), (0.2,), 0.95),
    Case("100 beside 1,000, 10 %", (100, 1000), (0.1,), 0.7),
    Case("eight of 100, 20 %", (100,) * 8, (0.2,) * 4),
    Case("eight of 60, 20 %, one finding", (60,) * 8, (0.2,)),
    Case("1,000 and 2,000, 0.5 to 2 %", (1000, 2000), (0.005, 0.01, 0.02)),
    Case("1,500 and 5,000, 0.5 %", (1500, 5000), (0.005,), 0.9),
    Case("ten images a patient, 200 and 300", (200, 300), (0.2,) * 4, extra=9, alike=0.8),
    Case("all 14 at 30 %, 100 and 300", (100, 300), (0.3,) * 14),
    Case("findings rarer in the first, 100 and 400", (100, 400), (0.4,) * 3, rare_in_first=0.25),
    Case("higher scores in the first, 100 and 400", (100, 400), (0.2,) * 3, shift=1.0),
)
PLANTS = (
    Case("100 beside 400, 20 %, one finding", (100, 400), (0.25,), planted=True),
    Case("100 beside 2,000, 25 %, one finding", (100, 2000), (0.25,), planted=True),
    Case("100 beside 400, 25 %, four findings", (100, 400), (0.25,) * 4, planted=True),
    Case("100 beside 100, 100, 200, four findings", (100, 100, 100, 200), (0.25,) * 4, planted=True),
    Case("100 beside 500, 1,000 and 30, all prevalences", (100, 500, 1000, 30), SPREAD, planted=True),
    Case("100 beside 400 and 2, 25 %", (100, 400, 2), (0.25,) * 2, planted=True),
)


def population(case: Case, rng: np.random.Generator) -> tuple[Predictions, dict[str, np.ndarray]]:
    """Predictions on one test set and the mask of each group; findings beyond those of the case are masked."""
    labels, scores, groups, subjects, patients = [], [], [], [], 0
    isf, ppf = (np.vectorize(f) for f in (lambda p: NormalDist().inv_cdf(1 - p), NormalDist().inv_cdf))
    for g, n in enumerate(case.sizes):
        sizes = 1 + rng.poisson(case.extra, n)
        own = np.repeat(np.arange(n), sizes)[:n]
        width = len(case.prevalence)

        def normal(share: float, width: int = width, own: np.ndarray = own, n: int = n) -> np.ndarray:
            of_patient = rng.normal(size=(n, width))[own]
            return np.sqrt(share) * of_patient + np.sqrt(1 - share) * rng.normal(size=(n, width))

        share = np.array(case.prevalence) * (case.rare_in_first if g == 0 else 1.0)
        here = (normal(min(0.95, case.alike + 0.3)) > isf(share)).astype(np.int8)
        auroc = PLANTED[int(g == 0)] if case.planted else case.auroc
        score = np.sqrt(0.7) * normal(case.alike) + np.sqrt(0.3) * normal(case.alike, 1)
        score += np.sqrt(2) * ppf(auroc) * here + (case.shift if g == 0 else 0.0)
        labels.append(here)
        scores.append(score)
        groups.append(np.full(n, g))
        subjects.append(own + patients)
        patients += n
    every = np.full((sum(case.sizes), len(FINDINGS)), -1, np.int8)
    every[:, : len(case.prevalence)] = np.concatenate(labels)
    probabilities = np.full((1, *every.shape), 0.5)
    probabilities[0, :, : len(case.prevalence)] = 1 / (1 + np.exp(1 - np.concatenate(scores)))
    group = np.concatenate(groups)
    masks = {f"age:{g}": group == g for g in range(len(case.sizes))}
    return Predictions(every, probabilities, np.full((1, len(FINDINGS)), 0.5), np.concatenate(subjects)), masks


def rates(case: Case, draws: int, seed: int = 0) -> tuple[float, float]:
    """(share of populations whose gap gets a star, share in which no gap can be told)."""
    starred = untold = drawn = 0
    rng = np.random.default_rng([seed, len(case.name), *case.sizes])
    while drawn < draws:
        predictions, masks = population(case, rng)
        if case.planted and (predictions.labels[masks["age:0"]] == 1).sum(axis=0).max() < 20:
            continue
        drawn += 1
        table = evaluate(predictions, masks, resamples=20, only=frozenset({"auroc"}))
        ((_, score),) = gaps(table, {"age": list(masks)})
        row = {"value": score.value, "ci_low": score.ci_low, "ci_high": score.ci_high, "about": score.params}
        starred += beyond_chance(row)
        untold += score.value is None
    return starred / draws, untold / draws


def table_of(cases: Sequence[Case], draws: int, wanted: str) -> list[float]:
    found = []
    for case in cases:
        rate, untold = rates(case, draws)
        found.append(rate)
        print(f"{case.name:45s}  starred {rate:6.3f}  no gap told {untold:6.3f}  {wanted}", flush=True)
    return found


def run(quick: bool) -> bool:
    """Whether at most 6 % of equal populations, and at least 80 % of planted gaps, get a star, within chance."""
    draws = 50 if quick else 1000
    slack = 2 * (0.05 * 0.95 / draws) ** 0.5
    equal = table_of(EQUAL, draws, f"at most {NOMINAL}")
    planted = table_of(PLANTS, draws, f"at least {WANTED_POWER}")
    return max(equal) <= NOMINAL + slack and min(planted) >= WANTED_POWER - 2 * (0.16 / draws) ** 0.5
