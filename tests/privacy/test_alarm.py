"""The verdict on a set: exact against enumeration and Monte Carlo, quiet without copies, loud for a few of them."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from chexray.privacy.alarm import FALSE_ALARM, precedence_p_value, raise_alarm
from chexray.privacy.memorisation import memorisation_scores
from chexray.privacy.ratio import HELD_OUT, RatioTest, calibrated, ratio_test


def of_ratios(ratio: np.ndarray, null: np.ndarray) -> RatioTest:
    return RatioTest(ratio, null, np.ones(len(null), bool), HELD_OUT, 0.01, calibrated(ratio, null))


@pytest.mark.parametrize(("n", "m", "rank"), [(3, 4, 1), (4, 3, 2), (5, 4, 4), (1, 6, 3)])
def test_the_p_value_counts_orders(n: int, m: int, rank: int) -> None:
    before = []
    for places in itertools.combinations(range(n + m), n):  # where the n lie among all
        others = sorted(set(range(n + m)) - set(places))
        before.append(sum(place < others[rank - 1] for place in places))
    for k in range(n + 2):
        assert precedence_p_value(k, rank, n, m) == pytest.approx(np.mean(np.array(before) >= k))


def test_at_rank_one_and_one_image_it_is_the_rank_test() -> None:
    value, null = np.array([-1.0]), np.arange(20.0)
    exact = mannwhitneyu(value, null, alternative="less", method="exact").pvalue
    assert precedence_p_value(1, 1, 1, 20) == pytest.approx(exact)


def test_four_copies_among_eighty_images_are_noticed_beside_222_strangers() -> None:
    rng = np.random.default_rng(0)
    null = rng.uniform(0.7, 1.3, 222)
    ratio = np.append(rng.uniform(0.75, 1.3, 76), [0.3] * 4)
    alarm = raise_alarm(of_ratios(ratio, null), None, None, n_searches=2)
    assert alarm.significant
    assert not raise_alarm(of_ratios(ratio[:-3], null), None, None, n_searches=2).significant
    assert alarm.smallest_share == pytest.approx(4 / 80)


@pytest.mark.parametrize(
    ("n", "m", "images", "seeds"), [(400, 400, 1, 1), (80, 222, 1, 1), (600, 400, 4, 1), (300, 300, 1, 5)]
)
def test_without_copies_it_stays_quiet(n: int, m: int, images: int, seeds: int) -> None:
    """`images` of each held-out patient and `seeds` of each prompt are correlated at .8."""
    rng = np.random.default_rng([n, m, images, seeds])

    def drawn(count: int, size: int) -> np.ndarray:
        shared = rng.standard_normal(count // size + 1)[np.arange(count) // size]
        return shared if size == 1 else math.sqrt(0.8) * shared + math.sqrt(0.2) * rng.standard_normal(count)

    subjects = np.arange(m) // images if images > 1 else None
    prompts = np.arange(n) // seeds if seeds > 1 else None
    runs = 600
    alarms = sum(
        raise_alarm(of_ratios(drawn(n, seeds), drawn(m, images)), subjects, prompts).significant for _ in range(runs)
    )
    assert alarms / runs <= FALSE_ALARM + 3 * math.sqrt(FALSE_ALARM / runs)


@pytest.mark.parametrize(("n", "m", "searches"), [(400, 400, 6), (75_649, 5_000, 22), (80, 222, 1)])
def test_the_smallest_share_is_the_smallest_that_alarms(n: int, m: int, searches: int) -> None:
    null = np.linspace(0.8, 1.2, m)
    share = raise_alarm(of_ratios(np.full(n, 1.1), null), None, None, searches).smallest_share
    assert share is not None
    copies = round(share * n)
    for count, alarmed in ((copies, True), (copies - 1, False)):
        ratio = np.append(np.full(count, 0.1), np.full(n - count, 1.1))
        assert raise_alarm(of_ratios(ratio, null), None, None, searches).significant is alarmed


def test_one_image_beside_three_strangers_cannot_alarm() -> None:
    alarm = raise_alarm(of_ratios(np.array([0.1]), np.array([1.0, 1.1, 1.2])), None, None)
    assert alarm.smallest_share is None
    assert not alarm.significant


def test_the_scores_carry_the_alarm() -> None:
    rng = np.random.default_rng(1)
    distances = [np.append(rng.uniform(0.9, 1.1, 88), [0.1] * 12), *(rng.uniform(0.9, 1.1, 100) for _ in range(3))]
    excess = memorisation_scores(ratio_test(*distances), distances[0], distances[2], n_searches=3)[1]
    assert excess.params["significant"]
    assert excess.params["p_value"] < FALSE_ALARM
    assert excess.params["n_searches"] == 3
