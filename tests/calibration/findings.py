"""Stars of single findings: how often two settings of equal worth differ in some finding, and how often worse ones do.

Both settings have three trainings; scores of a test set share a part within a patient and between the settings, since
both classifiers see the same images. 14 findings of 4 to 40 % positives.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from chexray.findings import FINDINGS
from chexray.metrics.base import Score
from chexray.results.trainings import differing, excludes_zero
from chexray.utility.classification.estimates import Predictions, differences, evaluate

PREVALENCE = np.geomspace(0.04, 0.40, len(FINDINGS))
NOMINAL = 0.05


def settings(
    patients: int, rng: np.random.Generator, *, trainings: float = 0.3, alike: float = 0.6, worse: float = 0.0
) -> tuple[Predictions, Predictions]:
    """Two settings of three trainings. trainings: spread between trainings of one setting, in parts of the score's.

    worse: by how much the second one's positives score less, in the four commonest findings.
    """
    subjects = np.repeat(np.arange(patients), 1 + rng.poisson(0.67, patients))
    n, width = len(subjects), len(FINDINGS)

    def normal(share: float) -> np.ndarray:
        own = rng.normal(size=(n, width))
        return np.sqrt(share) * rng.normal(size=(patients, width))[subjects] + np.sqrt(1 - share) * own

    at = np.array([NormalDist().inv_cdf(1 - share) for share in PREVALENCE])
    labels = (normal(0.8) > at).astype(np.int8)
    common, both = normal(alike), []
    loss = np.where(np.arange(width) >= width - 4, worse, 0.0)
    for setting in (0, 1):
        own = normal(alike)
        gain = 1.2 + trainings * rng.normal(size=(3, 1, width)) * 0.3 - setting * loss
        score = np.sqrt(0.7) * common + np.sqrt(0.3) * own + gain * labels + trainings * rng.normal(size=(3, n, width))
        both.append(Predictions(labels, 1 / (1 + np.exp(1 - score)), np.full((3, width), 0.5), subjects))
    return both[0], both[1]


def starred(one: Predictions, other: Predictions, resamples: int = 200) -> tuple[int, int, int, int]:
    """(findings starred, of these the four commonest, findings whose interval excludes 0, of these the commonest)."""
    tables = [evaluate(each, {}, resamples=resamples, only=frozenset({"auroc"})) for each in (one, other)]
    rows = [_row(subset, score) for subset, score in differences(tables[1], tables[0]) if subset != "all"]
    found = differing(rows)
    common = {f"finding:{name}" for name in FINDINGS[-4:]}
    alone = {row["subset"] for row in rows if excludes_zero(row)}
    return len(found), len(found & common), len(alone), len(alone & common)


def _row(subset: str, score: Score) -> dict:
    return {
        "suite": "utility", "metric": score.metric, "subset": subset, "value": score.value, "ci_low": score.ci_low,
        "ci_high": score.ci_high, "std_error": score.std_error, "about": {**score.params, "setting": "synthetic"},
        "real_set": "r", "synthetic_set": "s", "encoder": "e", "weights": "", "weights_sha256": "", "run_id": "1",
        "protocol": "standard", "status": "ok", "reason": "",
    }  # fmt: skip


def rates(draws: int, patients: int, **how: float) -> tuple[float, float, float, float]:
    """Shares: of test sets with a star, of the four commonest findings starred, and both of single intervals."""
    found = []
    for draw in range(draws):
        rng = np.random.default_rng([3, draw, patients])
        found.append(starred(*settings(patients, rng, **how)))
    star, planted, alone, planted_alone = np.array(found).T
    return float((star > 0).mean()), planted.mean() / 4, float((alone > 0).mean()), planted_alone.mean() / 4


def run(quick: bool) -> bool:
    """Whether at most 5 % of test sets star a finding between equal settings, within chance."""
    draws, held = 40 if quick else 400, True
    slack = 2 * (NOMINAL * (1 - NOMINAL) / draws) ** 0.5
    for patients in (150, 600):
        for trainings in (0.0, 0.3, 1.0):
            star, _, single, _ = rates(draws, patients, trainings=trainings)
            held &= star <= NOMINAL + slack
            print(f"equal, {patients} patients, trainings {trainings}: some star {star:.3f}, uncorrected {single:.3f}")
        _, power, _, before = rates(draws, patients, worse=0.4)
        print(f"four worse by 0.4, {patients} patients: each starred {power:.3f}, uncorrected {before:.3f}", flush=True)
    return held
