"""The planted-copies table of the facts: copies among clustered features, and what finds them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from chexray.metrics.base import Score
from chexray.privacy.distances import MatchedReferences
from chexray.privacy.memorisation import memorisation_scores
from chexray.privacy.other_tools import ToTraining, authenticity, c_t
from chexray.privacy.outputs import MEMORISATION
from chexray.privacy.ratio import neighbour_ratio, ratio_test

# The planted-copies table of facts/metrics.md, 5: clustered Gaussian features with a power-law spectrum.

N, D, NOISE = 1500, 256, 0.05
SEEDS = range(4)
COPIES = (0.0, 0.01, 0.05, 0.2)
GENERATORS = [("same", copies) for copies in COPIES] + [("low", 0.0), ("low", 0.05)]


def nearest(x: np.ndarray, y: np.ndarray, *, itself: bool = False) -> tuple[np.ndarray, np.ndarray]:
    squared = np.maximum((x * x).sum(1)[:, None] + (y * y).sum(1) - 2 * x @ y.T, 0)
    if itself:
        np.fill_diagonal(squared, np.inf)
    row = squared.argmin(1)
    return np.sqrt(((x - y[row]) ** 2).sum(1)), row


class Population:
    """20 clusters in d dimensions, standard deviations k^-1/2 between and within them."""

    def __init__(self, rng: np.random.Generator, d: int = D):
        self.rng, self.sd = rng, np.arange(1, d + 1) ** -0.5
        self.centres = rng.standard_normal((20, d)) * self.sd

    def draw(self, n: int) -> np.ndarray:
        chosen = self.centres[self.rng.integers(0, len(self.centres), n)]
        return chosen + self.rng.standard_normal((n, len(self.sd))) * self.sd

    def low_diversity(self, n: int) -> np.ndarray:
        """A generator that copies nothing: 0.8 of the spread about the mean, shifted by 0.4 sd in each direction."""
        x = self.draw(n)
        return x.mean(0) + 0.8 * (x - x.mean(0)) + 0.4 * self.sd * self.rng.choice([-1, 1], len(self.sd))


@dataclass
class Line:
    recall: float
    false_positives: float
    first: bool
    scores: dict[str, Score]


@pytest.fixture(scope="module")
def table() -> dict[tuple[str, float], list[Line]]:
    lines: dict[tuple[str, float], list[Line]] = {generator: [] for generator in GENERATORS}
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        people = Population(rng)
        training, heldout = people.draw(N), people.draw(N)
        spacing = nearest(training, training, itself=True)[0]
        to_training, row = nearest(heldout, training)
        to_heldout = nearest(heldout, heldout, itself=True)[0]
        made = {"same": people.draw(N), "low": people.low_diversity(N)}
        copied = rng.choice(N, N // 5, replace=False)
        noisy = training[copied] + NOISE * training.std(0) * rng.standard_normal((N // 5, D))
        for kind, copies in GENERATORS:
            k = round(copies * N)
            synthetic = np.concatenate([noisy[:k], made[kind][k:]])
            (near, near_row), (far, far_row) = nearest(synthetic, training), nearest(synthetic, heldout)
            test = ratio_test(near, far, to_training, to_heldout)
            matched = MatchedReferences(near, far, N, N, near_row, far_row)
            found = [
                *memorisation_scores(test, near, to_training, matched=matched),
                authenticity(ToTraining(near, near_row), spacing, heldout=ToTraining(to_training, row)),
                c_t(near, to_training),
            ]
            lines[kind, copies].append(
                Line(
                    float(test.flagged[:k].mean()) if k else math.nan,
                    float(test.flagged[k:].mean()),
                    set(test.ranking[:k]) == set(range(k)),
                    {score.metric: score for score in found},
                )
            )
    for generator, runs in lines.items():
        means = {name: np.mean([run.scores[name].value for run in runs]) for name in runs[0].scores}
        flags = f"recall {np.mean([r.recall for r in runs]):.2f} fp {np.mean([r.false_positives for r in runs]):.4f}"
        print(*generator, flags, *(f"{name} {value:.3f}" for name, value in means.items()))
    return lines


@pytest.mark.calibration
@pytest.mark.parametrize("generator", GENERATORS, ids=lambda generator: "-".join(map(str, generator)))
def test_planted_copies_are_flagged_and_little_else(table: dict, generator: tuple[str, float]) -> None:
    runs = table[generator]
    if generator[1]:
        assert [run.recall for run in runs] == [1.0] * len(runs)
        assert all(run.first for run in runs)
    nominal = runs[0].scores["memorised_share"].real_floor
    assert nominal == pytest.approx(0.01, abs=1e-4)
    assert 0.5 * nominal <= np.mean([run.false_positives for run in runs]) <= 2 * nominal


@pytest.mark.calibration
@pytest.mark.parametrize("generator", GENERATORS, ids=lambda generator: "-".join(map(str, generator)))
def test_the_excess_is_the_share_of_copies(table: dict, generator: tuple[str, float]) -> None:
    excess = [run.scores["memorised_excess"] for run in table[generator]]
    assert np.mean([score.value for score in excess]) == pytest.approx(0.99 * generator[1], abs=0.005)
    assert sum(score.ci_low <= 0.99 * generator[1] <= score.ci_high for score in excess) >= len(excess) - 1
    if generator[1] >= 0.05:
        assert all(score.params["significant"] for score in excess)


@pytest.mark.calibration
def test_averages_alarm_at_low_diversity_without_a_copy(table: dict) -> None:
    """5 % of copies move AuthPct, the distance to closest record and C_T less than low diversity alone does."""

    def means(name: str) -> dict[tuple[str, float], float]:
        return {
            generator: float(np.mean([run.scores[name].value for run in runs])) for generator, runs in table.items()
        }

    shares, below, statistic = means("authenticity"), means("dcr_below_null"), means("c_t")
    assert shares["low", 0.0] < shares["same", 0.2]
    assert below["low", 0.0] > 4 * 0.01
    assert statistic["low", 0.0] < -10 < statistic["same", 0.2]
    assert abs(shares["same", 0.01] - shares["same", 0.0]) < 0.01
    closest = table["low", 0.0][0].scores["dcr_q01"]
    assert closest.ci_high < closest.real_floor
    assert not any(run.scores["memorised_excess"].params["significant"] for run in table["low", 0.0])
    for runs in table.values():
        assert all(score.params["cannot_see"] for run in runs for score in run.scores.values())


@pytest.mark.calibration
def test_reference_sets_may_differ_in_size_for_flags_not_for_shares() -> None:
    flagged, attained, closer, caught = [], [], [], []
    for seed in range(60):
        rng = np.random.default_rng([7, seed])
        people = Population(rng, 32)
        training, heldout = people.draw(1200), people.draw(120)
        null = nearest(heldout, training)[0], nearest(heldout, heldout, itself=True)[0]
        rates = []
        for synthetic in (people.draw(400), people.low_diversity(400)):
            synthetic[:4] = training[:4] + NOISE * training.std(0) * rng.standard_normal((4, 32))
            near, far = nearest(synthetic, training)[0], nearest(synthetic, heldout)[0]
            test = ratio_test(near, far, *null)
            rates.append(test.flagged[4:].mean())
            caught.append(test.flagged[:4].mean())
            closer.append((near < far)[4:].mean())
        flagged.append(rates)
        attained.append(test.attained_alpha)
    rate = np.mean(flagged, axis=0) / np.mean(attained)
    print(
        "false flags over nominal, same and low diversity", rate, "closer", np.mean(closer), "recall", np.mean(caught)
    )
    assert ((rate > 0.5) & (rate < 2)).all()
    assert np.mean(caught) > 0.95
    assert np.mean(closer) > 0.85
    scores = memorisation_scores(test, near, null[0], matched=MatchedReferences(near, far, 1200, 120))
    assert scores[2].status == "undefined"
    assert "1200 training and 120 held-out images" in scores[2].reason


def test_without_held_out_images_training_patients_are_the_null() -> None:
    rng = np.random.default_rng(3)
    people = Population(rng, 32)
    rates, found = [], []
    for _ in range(6):
        # 3 images a patient, alike: the second-nearest image of a copy is mostly one of the same patient.
        patient = np.repeat(np.arange(250), 3)
        training = people.draw(250)[patient] + 0.3 * people.sd * rng.standard_normal((750, 32))
        synthetic = np.concatenate([training[:20], people.draw(250), people.low_diversity(250)])
        synthetic[:20] += NOISE * training.std(0) * rng.standard_normal((20, 32))

        def first_two(x: np.ndarray, own: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
            distance = cdist(x, training)  # noqa: B023
            if own is not None:
                distance[own[:, None] == patient] = np.inf  # noqa: B023
            other = patient[distance.argmin(1)][:, None] == patient  # noqa: B023
            return distance.min(1), np.where(other, np.inf, distance).min(1)

        to_training, null = first_two(synthetic, None), first_two(training, patient)
        test = neighbour_ratio(*to_training, *null)
        assert test.null == "training patients"
        assert test.ratio.max() <= 1
        found.append(test.flagged[:20].mean())
        rates.append([test.flagged[20:270].mean(), test.flagged[270:].mean()])
        scores = memorisation_scores(test, to_training[0], null[0], null_subjects=patient)
    assert np.mean(found) > 0.95
    assert ((np.mean(rates, axis=0) > 0.002) & (np.mean(rates, axis=0) < 0.02)).all()
    assert [score.metric for score in scores] == [output.name for output in MEMORISATION]
    assert (scores[2].value, scores[2].reason) == (None, "no held-out images")
    assert scores[0].params["null"] == "training patients"


@pytest.mark.calibration
def test_closer_to_training_counts_a_shared_neighbour_once() -> None:
    """z without copies has a standard deviation of 1.2 to 1.3 by the binomial error; with the rows of the nearest
    references it is about 1."""
    plain, clustered = [], []
    for seed in range(150):
        rng = np.random.default_rng([11, seed])
        t, e, s = (rng.standard_normal((300, 16)) for _ in range(3))
        near, far = nearest(s, t), nearest(s, e)
        test = ratio_test(near[0], far[0], nearest(e, t)[0], nearest(e, e, itself=True)[0])
        for rows, found in ((False, plain), (True, clustered)):
            extra = (near[1], far[1]) if rows else ()
            matched = MatchedReferences(near[0], far[0], 300, 300, *extra)
            score = memorisation_scores(test, near[0], near[0], matched=matched)[2]
            found.append((score.params["z"], score.ci_low <= 0.5 <= score.ci_high))
    (plain_z, _), (z, inside) = (np.array(found, dtype=float).T for found in (plain, clustered))
    assert plain_z.std() > 1.15
    assert 0.8 < z.std() < 1.12
    assert inside.mean() > 0.92
