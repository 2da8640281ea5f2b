"""How often a set is called better or worse than sets that are as good, and how often a truly better one is starred.

`numbers`: equal sets as normal numbers with 95 % intervals, for any number of sets. `pictures`: real metrics on
features, with perfect generators, averages of two real images (density and FID fall for them) and a shifted set.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from chexray.metrics.base import Rows, Score
from chexray.metrics.fid import FID
from chexray.metrics.kid import KID
from chexray.metrics.prdc import PRDC
from chexray.metrics.vendi import Vendi
from chexray.results.decisions import decide
from chexray.results.legacy import declared

FALSE_STAR, FALSE_WORSE, POWER = 0.02, 0.05, 0.8
"""Stated: the largest share of draws with a star, or a set called worse, among equal sets; the least share of draws in
which a set that is better by 4 standard errors of the difference is starred, by 5 among more than two sets, and by one
more where the floor, which has an error too, decides."""


def row(metric: str, value: float, error: float, better: str, floor: float | None, name: str, **more: Any) -> dict:
    """A row of the results as far as verdicts read it."""
    about = {
        "suite": "fidelity",
        "metric": metric,
        "declared": declared("fidelity", metric),
        "value": value,
        "std_error": error,
        "better": better,
        "subset": "all",
    }
    about |= {
        "ci_low": value - 1.96 * error,
        "ci_high": value + 1.96 * error,
        "real_floor": floor,
        "method": {},
        "about": {},
    }
    about |= dict.fromkeys(("encoder", "encoder_revision", "weights", "weights_sha256", "protocol", "reason"), "")
    return about | {
        "n_real": 100,
        "n_synthetic": 100,
        "chexray_version": "0",
        "real_set": "r",
        "synthetic_set": name,
        **more,
    }


def numbers(n_sets: int, spread: float, by_floor: bool, draws: int, seed: int, gap: float = 0.0) -> dict[str, float]:
    """Shares of draws with a star, with a star on set 0, and with a set called worse.

    spread: ratio of the largest to the smallest error. by_floor: density, around a floor of its own error. gap: by how
    many errors of the largest difference set 0 is better than the others, which are equal.
    """
    rng = np.random.default_rng([seed, n_sets, int(10 * spread), by_floor, int(10 * gap)])
    found = {"star": 0, "right": 0, "worse": 0}
    for _ in range(draws):
        errors = spread ** rng.uniform(size=n_sets)
        shift = gap * np.sqrt(2) * errors.max()
        centre = np.where(np.arange(n_sets) == 0, 0.0, shift) + (0.0 if by_floor else 100.0)
        values = centre + errors * rng.standard_normal(n_sets)
        floor_error = 0.3
        floor = {"real_floor_std_error": floor_error, "beyond_floor": ""} if by_floor else {}
        at = 0.0 + floor_error * rng.standard_normal() if by_floor else None
        metric, better = ("density", "higher") if by_floor else ("kid", "lower")
        rows = {
            str(i): row(metric, value, error, better, at, f"s{i}", **floor)
            for i, (value, error) in enumerate(zip(values, errors, strict=True))
        }
        verdict = decide(rows)
        found["star"] += bool(verdict.winner)
        found["right"] += verdict.winner == "0"
        found["worse"] += bool(verdict.worse)
    return {name: count / draws for name, count in found.items()}


def pictures(kind: str, draws: int, seed: int, n: int = 150, d: int = 12) -> dict[str, dict[str, float]]:
    """{metric: shares of draws in which the perfect set and the other one are starred}.

    kind of the other: "perfect", "averages" of two images of the population, "shifted" by 0.8 standard deviations.
    """
    scale = np.arange(1, d + 1) ** -0.5
    stars: dict[str, list[int]] = {}
    for draw in range(draws):
        rng = np.random.default_rng([seed, draw])

        def images(count: int, rng: np.random.Generator = rng) -> np.ndarray:
            return (rng.standard_normal((count, d)) * scale + 1.0).astype(np.float32)

        other = images(n)
        if kind == "averages":
            other = (other + images(n)) / 2
        elif kind == "shifted":
            other = other + np.float32(0.8) * scale.astype(np.float32)
        real, sets = rows_of(images(n)), {"perfect": rows_of(images(n)), "other": rows_of(other)}
        scores = {name: measured(real, made, draw) for name, made in sets.items()}
        for metric in scores["perfect"]:
            winner = decide({name: scores[name][metric] for name in sets}).winner
            counts = stars.setdefault(metric, [0, 0])
            counts[0] += winner == "perfect"
            counts[1] += winner == "other"
    return {metric: {"perfect": a / draws, "other": b / draws} for metric, (a, b) in stars.items()}


def rows_of(features: np.ndarray) -> Rows:
    return Rows(np.array([f"{i:05d}" for i in range(len(features))]), features)


def measured(real: Rows, synthetic: Rows, seed: int) -> dict[str, dict]:
    """{metric: its row} of FID, KID, PRDC and Vendi, with their floors."""
    found: list[Score] = []
    for metric in (FID(), KID(), PRDC(), Vendi()):
        found += metric.score(real, synthetic, seed=seed)
    return {score.metric: of_score(score, len(real), len(synthetic)) for score in found}


def of_score(score: Score, n_real: int, n_synthetic: int) -> dict:
    # `getattr`: the floor's error and judgement came after this part.
    floor = {name: getattr(score, name) for name in ("real_floor_std_error", "beyond_floor") if hasattr(score, name)}
    found = row(score.metric, score.value or 0.0, score.std_error or 0.0, score.better, score.real_floor, "s", **floor)
    found |= {"ci_low": score.ci_low, "ci_high": score.ci_high, "method": score.method, "about": score.about}
    found |= {"declared": score.output.declared}
    return found | {"n_real": n_real, "n_synthetic": n_synthetic, "value": score.value, "synthetic_set": "s"}


def run(quick: bool) -> bool:
    """Prints stated and measured rates; whether all held."""
    draws, held = (1500 if quick else 10_000), True
    print(
        "equal sets; and one that is better by 4 (2 sets) or 5 standard errors of the difference, by floor by one more"
    )
    print(f"{'judged by':>10} {'sets':>5} {'errors':>7} {'star':>7} {'worse':>7} {'power':>7}")
    slack = 2.6 * np.sqrt(0.05 * 0.95 / draws)
    for by_floor in (False, True):
        for n_sets in (2, 3, 5, 10, 30):
            for spread in (1.0, 4.0):
                equal = numbers(n_sets, spread, by_floor, draws // (1 + n_sets // 10), 1)
                gap = (4.0 if n_sets == 2 else 5.0) + by_floor
                better = numbers(n_sets, spread, by_floor, draws // (5 + n_sets), 2, gap=gap)
                ok = equal["star"] <= FALSE_STAR + slack and equal["worse"] <= FALSE_WORSE + slack
                ok &= better["right"] >= POWER - 2.6 * np.sqrt(POWER * (1 - POWER) / (draws // (5 + n_sets)))
                held &= ok
                what = "floor" if by_floor else "value"
                print(
                    f"{what:>10} {n_sets:>5} {spread:>7.0f} {equal['star']:>7.3f} {equal['worse']:>7.3f} "
                    f"{better['right']:>7.3f}{'' if ok else '  NOT as stated'}"
                )
    for kind in ("perfect", "averages", "shifted"):
        found = pictures(kind, 20 if quick else 200, 3)
        print(f"\na perfect set against {kind}: share of draws with a star on either")
        for metric, shares in found.items():
            print(f"{metric:>12} perfect {shares['perfect']:.3f}  {kind} {shares['other']:.3f}")
        held &= pictures_held(kind, found)
    return bool(held)


def pictures_held(kind: str, found: dict[str, dict[str, float]]) -> bool:
    """What is stated: no star between perfect sets beyond chance; averages are never starred by FID, density or Vendi,
    and lose by density; a shifted set loses by KID."""
    if kind == "perfect":
        return all(share <= 0.05 for shares in found.values() for share in shares.values())
    if kind == "averages":
        never = all(found[metric]["other"] == 0 for metric in ("fid", "density", "vendi"))
        return never and found["density"]["perfect"] >= POWER
    return found["kid"]["perfect"] >= POWER and all(shares["other"] <= 0.05 for shares in found.values())
