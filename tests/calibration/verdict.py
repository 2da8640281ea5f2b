"""False alarms and power of the memorisation verdict and of nnaa_loss, in worlds whose truth is known.

No world but those of `POWER` holds a copy. `SCENARIOS`: name, world, the rate stated for COPIES FOUND. LOOK AT is
stated at 2.5 % a set; both may be exceeded by chance, three standard errors of the draws at hand.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.distance import cdist

from chexray.privacy.baseline import check_baseline
from chexray.privacy.case_mix import MIN_REFERENCES, Dimensions, local_dimension
from chexray.privacy.memorisation import memorisation_scores
from chexray.privacy.nnaa import nnaa_loss
from chexray.privacy.ratio import ratio_test
from chexray.privacy.repeats import repeat_groups

STATED = 0.025


@dataclass(frozen=True)
class World:
    """What a draw looks like: features of training, held-out and synthetic images.

    d: dimensions of the features. images: images a patient in both real sets, held_images of held-out ones; `within`
    the spread of a patient's images beside 1 between patients. named: whether patients are known. modes: synthetic
    images that are not repeats, 0 for all of them; noise: of a repeat. low: dimensions of a class that makes real_low
    of the real and made_low of the synthetic images. copies: share of the synthetic images that are copies of training
    images with noise copy_noise.
    """

    d: int = 8
    training: int = 400
    heldout: int = 222
    synthetic: int = 400
    images: int = 1
    held_images: int = 0
    within: float = 0.4
    named: bool = True
    modes: int = 0
    noise: float = 0.05
    low: int = 0
    real_low: float = 0.1
    made_low: float = 0.5
    spread: float = 1.0
    copies: float = 0.0
    copy_noise: float = 0.1


def drawn(world: World, rng: np.random.Generator, n: int, low: float) -> np.ndarray:
    x = rng.standard_normal((n, world.d))
    if world.low:
        few = rng.random(n) < low
        x[few, world.low :] = 0
        x[few, 0] += 12
    return x


def real(world: World, rng: np.random.Generator, n: int, images: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, d) features of n // images patients, and their codes."""
    patient = np.arange(n) // images
    x = drawn(world, rng, patient[-1] + 1, world.real_low)[patient]
    return (x + world.within * rng.standard_normal(x.shape) if images > 1 else x), patient


def synthetic(world: World, rng: np.random.Generator, training: np.ndarray) -> np.ndarray:
    n = world.synthetic
    modes = world.modes or n
    x = np.repeat(world.spread * drawn(world, rng, modes, world.made_low), n // modes, axis=0)
    if world.modes:
        x = x + world.noise * rng.standard_normal(x.shape)
    k = round(world.copies * n)
    rows = rng.choice(len(training), k, replace=k > len(training))
    x[:k] = training[rows] + world.copy_noise * training.std(0) * rng.standard_normal((k, world.d))
    return x


def judged(
    training: np.ndarray,
    t_codes: np.ndarray,
    heldout: np.ndarray,
    h_codes: np.ndarray,
    made: np.ndarray,
    rng: np.random.Generator,
    *,
    named: bool = True,
    prompts: np.ndarray | None = None,
) -> dict[str, object]:
    """The params of memorised_excess as the suite finds them, by brute force; {} where the verdict is withheld."""
    near, far, null, among = (
        cdist(made, training),
        cdist(made, heldout),
        cdist(heldout, training),
        cdist(heldout, heldout),
    )
    among[np.equal.outer(h_codes, h_codes) if named else np.eye(len(heldout), dtype=bool)] = np.inf
    subjects = h_codes if named else None
    test = ratio_test(near.min(1), far.min(1), null.min(1), among.min(1), subjects=subjects)
    size = min(len(training), len(heldout))
    t_rows, h_rows = (np.sort(rng.permutation(len(rows))[:size]) for rows in (training, heldout))
    other = among[:, h_rows]
    baseline = check_baseline(null[:, t_rows].min(1), other.min(1), h_rows[other.argmin(1)], named=named)
    suspects = np.sort(test.ranking[: test.n_flagged])
    own = (t_codes if named else np.arange(len(training)))[near.argmin(1)]
    first = np.unique(t_codes, return_index=True)[1] if named else np.arange(len(training))
    references = training[rng.permutation(first)[:1000]]
    dimensions = None
    if len(references) >= MIN_REFERENCES:
        dimensions = Dimensions(local_dimension(made, references), local_dimension(heldout, references))
    excess = memorisation_scores(
        test, near.min(1), null.min(1), null_subjects=subjects, prompts=prompts,
        groups=repeat_groups(own, near.min(1), suspects, made[suspects]), dimensions=dimensions, baseline=baseline,
    )[1]  # fmt: skip
    return excess.params if excess.value is not None else {}


def verdict(world: World, seed: int) -> dict[str, object]:
    rng = np.random.default_rng([20, seed])
    training, t_codes = real(world, rng, world.training, world.images)
    heldout, h_codes = real(world, rng, world.heldout, world.held_images or world.images)
    return judged(training, t_codes, heldout, h_codes, synthetic(world, rng, training), rng, named=world.named)


def rates(world: World, draws: int) -> tuple[float, float, float]:
    """Shares of draws with COPIES FOUND, with LOOK AT, and without a verdict."""
    found = [verdict(world, seed) for seed in range(draws)]
    return (
        float(np.mean([bool(each.get("significant")) for each in found])),
        float(np.mean([bool(each.get("outlier")) for each in found])),
        float(np.mean([not each for each in found])),
    )


PLAIN = World()
CLASS = World(d=16, heldout=400, low=4)
UNNAMED = World(training=600, heldout=200, images=2, named=False)

SCENARIOS: list[tuple[str, World, float]] = [
    ("independent, 8 dimensions", PLAIN, STATED),
    ("independent, 3 dimensions", World(d=3, training=1000, heldout=100, synthetic=2000), STATED),
    ("independent, 5 dimensions, 60 held-out", World(d=5, heldout=60, synthetic=80), STATED),
    ("independent, 16 dimensions", World(d=16, training=1000, heldout=100, synthetic=2000), STATED),
    ("20 modes x 20", World(modes=20), STATED),
    ("10 modes x 40", World(modes=10), STATED),
    ("40 modes x 10, wide", World(modes=40, noise=0.3), STATED),
    ("15 held-out patients x 20", World(training=600, heldout=300, images=2, held_images=20), STATED),
    ("20 held-out patients x 10", World(training=600, heldout=200, images=2, held_images=10), STATED),
    ("60 held-out patients x 5", World(training=600, heldout=300, images=2, held_images=5), STATED),
    ("class of 2 dimensions, 10 to 50 %", replace(CLASS, low=2), STATED),
    ("class of 4 dimensions, 10 to 50 %", CLASS, STATED),
    ("the same, 1000 / 200", replace(CLASS, training=1000, heldout=200), STATED),
    ("unnamed, 2 images each, 4 dimensions, as near as strangers", replace(UNNAMED, d=4), 0.05),
    ("unnamed, 2 images each, 8 dimensions", UNNAMED, STATED),
    ("unnamed, one image each", replace(UNNAMED, images=1), STATED),
]
"""Name, world, stated rate of COPIES FOUND."""

POWER: list[tuple[str, World]] = [
    ("5 % near copies", replace(PLAIN, copies=0.05)),
    ("5 % exact copies", replace(PLAIN, copies=0.05, copy_noise=0.0)),
    ("5 % copies, twice as altered", replace(PLAIN, copies=0.05, copy_noise=0.2)),
    ("5 % copies, 4,000 images", replace(PLAIN, synthetic=4000, copies=0.05)),
    ("5 % copies beside a shifted class", replace(CLASS, copies=0.05)),
    ("5 % copies, low diversity", replace(PLAIN, copies=0.05, spread=0.8)),
]
"""Worlds with copies: COPIES FOUND in at least 80 % of draws."""

NNAA = [
    (d, training, heldout, made, images)
    for d in (8, 32)
    for training, heldout, made, images in (
        (600, 200, 200, 1),
        (600, 200, 200, 2),
        (600, 200, 200, 4),
        (600, 600, 600, 4),
    )
]
"""Dimensions, training, held-out and synthetic images, images a patient."""


def nnaa_rates(case: tuple[int, int, int, int, int], draws: int) -> tuple[float, float]:
    """Mean loss of a perfect generator, and the share of draws whose interval lies above 0."""
    d, n_training, n_heldout, n_synthetic, images = case
    world, scores = World(d=d), []
    for seed in range(draws):
        rng = np.random.default_rng([21, seed])
        (t, t_codes), (e, e_codes) = (real(world, rng, n, images) for n in (n_training, n_heldout))
        made = real(world, rng, n_synthetic, 1)[0] if images == 1 else real(world, rng, 2 * n_synthetic, 2)[0][::2]
        scores.append(
            nnaa_loss(
                *(rows.astype(np.float32) for rows in (t, e, made)),
                training_subjects=t_codes, heldout_subjects=e_codes, seed=seed,
            )
        )  # fmt: skip
    return float(np.mean([s.value for s in scores])), float(np.mean([s.ci_low > 0 for s in scores]))


def limit(rate: float, draws: int) -> float:
    """What a true rate exceeds in about 1 of 1,000 simulations of so many draws."""
    return rate + 3.1 * math.sqrt(rate * (1 - rate) / draws)


def run(quick: bool) -> bool:
    """Prints every scenario beside what is stated. quick: 40 draws of each in place of 400."""
    draws, held = (40 if quick else 400), True

    def line(name: str, stated: str, found: str, ok: bool) -> None:
        nonlocal held
        held &= ok
        print(f"{name:62s} stated {stated:10s} found {found}{'' if ok else '   <-- not as stated'}", flush=True)

    for name, world, rate in SCENARIOS:
        some = max(20, draws // 4) if world.synthetic > 1000 else draws
        alarms, looks, withheld = rates(world, some)
        ok = alarms <= limit(rate, some) and looks <= limit(0.04, some)
        line(name, f"<= {rate:.1%}", f"COPIES FOUND {alarms:.1%}, LOOK AT {looks:.1%}, withheld {withheld:.1%}", ok)
    for name, world in POWER:
        some = max(20, draws // 10)
        alarms, looks, _ = rates(world, some)
        line(name, ">= 80 %", f"COPIES FOUND {alarms:.1%}, LOOK AT {looks:.1%}", alarms >= 0.8)
    for case in NNAA:
        some = max(20, draws // 4)
        mean, above = nnaa_rates(case, some)
        name = "nnaa_loss, d {}, {} / {} / {}, {} images a patient".format(*case)
        line(name, "<= 5.0%", f"above 0 in {above:.1%}, mean {mean:+.3f}", above <= limit(0.05, some))
    return held
