"""What each setting trains on: which real and which synthetic images, in which phases."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from chexray.errors import ConfigError
from chexray.spelling import suggestion
from chexray.utility.loop.fit_spec import Phase, Sample
from chexray.utility.splits import hash_order

KINDS = ("real", "synthetic", "mixed", "augmented", "pretrain_synthetic_finetune_real", "as_is")
_MIXED = re.compile(r"mixed_([1-9][0-9]?|100)")
_HALF = 50


@dataclass(frozen=True)
class Setting:
    """A setting as it was read. kind: one of KINDS. percent: of the real images replaced, for "mixed" only."""

    kind: str
    percent: int | None = None

    @property
    def name(self) -> str:
        """The one way to write it: "mixed" for half, "mixed_25" for a quarter."""
        return self.kind if self.percent in (None, _HALF) else f"{self.kind}_{self.percent}"


@dataclass(frozen=True)
class Sources:
    """What settings draw from: labelled real training images, without those that validate, and a synthetic set.

    twin: (n_synthetic,) int64, the place in `real` of the image that each synthetic one was made for, or -1 where that
    is not known or is not in `real`. Twins of validation images must be gone: `without_twins_of`.
    name: of the synthetic set, for messages.
    """

    real: Sample
    synthetic: Sample
    twin: np.ndarray
    name: str = "the synthetic set"

    def __post_init__(self) -> None:
        if self.twin.shape != (len(self.synthetic),):
            raise ValueError(f"{self.twin.shape} twins for {len(self.synthetic)} synthetic images")
        if len(self.twin) and not -1 <= self.twin.min() <= self.twin.max() < len(self.real):
            raise ValueError(f"twins outside -1..{len(self.real) - 1}: renumber them when real images are left out")


@dataclass(frozen=True)
class Mixture:
    """The phases of one setting, none for "as_is".

    n_real, n_synthetic: images trained on, an image of two phases once. how: for "mixed", whether real images were
    replaced by their own twins, "by_id", or by as many other images, "by_count"; else "". note: what was not to be had.
    """

    phases: tuple[Phase, ...]
    n_real: int
    n_synthetic: int
    how: str = ""
    note: str = ""


def parse_setting(text: str) -> Setting:
    """The setting that `text` names. Raises ConfigError with the nearest name when it names none."""
    mixed = _MIXED.fullmatch(text)
    if mixed:
        return Setting("mixed", int(mixed[1]))
    if text in KINDS:
        return Setting(text, _HALF if text == "mixed" else None)
    if text.startswith("mixed_"):
        raise ConfigError(f"setting {text!r}: expected whole percents of the real images, from mixed_1 to mixed_100.")
    known = f"Known: {', '.join(KINDS)}, and mixed_1 to mixed_100."
    raise ConfigError(f"unknown setting {text!r}. {suggestion(text, KINDS, known)}")


def settings_with(fractions: Iterable[float]) -> tuple[str, ...]:
    """The settings of a sweep over the synthetic fraction, each once: 0.1 is "mixed_10", 0.5 "mixed", 1 "mixed_100".

    Raises ConfigError for what is not a whole percent from 0.01 to 1.
    """
    names: dict[str, None] = {}
    for fraction in fractions:
        percent = 100 * fraction
        # The comparison fails for NaN as it should, and lets 100 * 0.29 = 28.999999999999996 pass for 29.
        if isinstance(fraction, bool) or not (1 - 1e-9 <= percent <= 100 and abs(percent - round(percent)) < 1e-9):
            raise ConfigError(
                f"fraction {fraction} is not a whole percent from 0.01 to 1. Write 0.25 for a quarter; 0 is the "
                "setting 'real'."
            )
        names[Setting("mixed", round(percent)).name] = None
    return tuple(names)


def needs_synthetic(name: str) -> bool:
    """Whether the setting trains on synthetic images, so that every synthetic set gives its own classifier."""
    return parse_setting(name).kind not in ("real", "as_is")


def labelled(sample: Sample) -> np.ndarray:
    """(n,) bool: the images with at least one label that is not left out. The others teach nothing."""
    return (sample.labels != -1).any(1)


def renumbered(kept: np.ndarray, twin: np.ndarray) -> np.ndarray:
    """(n_synthetic,) int64: `twin` as places among the real images `kept` (n_real,) bool; -1 where the twin is not."""
    places = np.where(kept, np.cumsum(kept) - 1, -1)
    return np.append(places, -1)[twin].astype(np.int64)  # -1, not known, reads the last place


def without_twins_of(validation: np.ndarray, twin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n_synthetic,) bool, the synthetic images made for no validation image; and the twins of these alone, renumbered.

    validation: (n_real,) bool over the whole training set. twin: (n_synthetic,) places in it, or -1: these are kept.
    What comes back fits `Sources(real.take(~validation), synthetic.take(keep), twin)`.
    """
    keep = ~np.append(validation, False)[twin]
    return keep, renumbered(~validation, twin[keep])


def phases_of(
    setting: str, sources: Sources, *, seed: int, pretrain_share: float = 0.5, as_many_as_there_are: bool = False
) -> Mixture:
    """What a setting trains on, images in the order of their tables, real ones first.

    "mixed_25" replaces a quarter of the real images, those with the lowest hash of (seed, id): each quarter lies within
    the half of the same seed. Where twins are known only real images with a twin are replaced, each by one of its
    twins, so that no image stands beside its twin; else by as many synthetic images with the lowest hash. "mixed_100"
    leaves no real image beside which a twin could stand: it has as many images as "real", twins first, and fewer, with
    a note, of a smaller set; "synthetic" has all there are.
    pretrain_share: part of the budget spent on synthetic images before the real ones. as_many_as_there_are: replace
    fewer, with a note, where images turned out to be unreadable, rather than refuse what was planned.
    Raises ConfigError for an unknown setting, a source without images, or too few of them to replace with.
    """
    asked = parse_setting(setting)
    real, synthetic = sources.real, sources.synthetic
    if asked.kind == "as_is":
        return Mixture((), 0, 0)
    if asked.kind != "synthetic" and not len(real):
        raise ConfigError(f"setting {asked.name}: no labelled real training image is left. Check the set's labels.")
    if asked.kind != "real" and not len(synthetic):
        raise ConfigError(
            f"setting {asked.name}: {sources.name} has no labelled image to train on that was not made for a "
            "validation image. Give it images for the training set's prompts, and labels."
        )
    if asked.kind == "real":
        return Mixture((Phase(real),), len(real), 0)
    if asked.kind == "synthetic":
        return Mixture((Phase(synthetic),), 0, len(synthetic))
    if asked.kind == "augmented":
        return Mixture((Phase(_joined(real, synthetic)),), len(real), len(synthetic))
    if asked.kind == "mixed":
        return _mixed(asked, sources, seed, as_many_as_there_are)
    if not 0 < pretrain_share < 1:
        raise ConfigError(f"pretrain_share {pretrain_share} is not between 0 and 1. 0.5 halves the budget.")
    phases = (Phase(synthetic, pretrain_share), Phase(real, 1 - pretrain_share))
    return Mixture(phases, len(real), len(synthetic))


def _mixed(setting: Setting, sources: Sources, seed: int, lenient: bool) -> Mixture:
    """The real set with a part of it replaced."""
    real, synthetic = sources.real, sources.synthetic
    assert setting.percent is not None
    n = _n_replaced(setting.percent, len(real))
    if n == 0:
        raise ConfigError(f"setting {setting.name} replaces none of {len(real)} real images. Ask for a larger part.")
    # A word before each id: equal ids in both sets must not make the two choices one.
    leaving = hash_order([f"real {image}" for image in real.ids.tolist()], seed)
    coming = hash_order([f"synthetic {image}" for image in synthetic.ids.tolist()], seed)
    by_id = bool((sources.twin >= 0).any())
    originals, chosen = _lowest_twins(sources.twin, coming, len(real))
    if setting.percent == 100:
        twins = chosen[originals]
        coming = np.append(twins, coming[~np.isin(coming, twins)])[: len(real)]
        note = f"{len(coming)} images in place of {len(real)}: there are no more" if len(coming) < len(real) else ""
        sample = synthetic.take(np.sort(coming))
        return Mixture((Phase(sample),), 0, len(coming), "by_id" if len(twins) == len(coming) else "by_count", note)
    note = ""
    if by_id:
        leaving = leaving[originals[leaving]]
    available = len(leaving) if by_id else len(coming)
    if available < n and lenient and available:
        note = f"{available} real images are replaced, not {n}: there are no more to replace them with"
        n = available
    where = (
        f"have a synthetic image made for them in {sources.name}" if by_id else f"synthetic ones are in {sources.name}"
    )
    _check_enough(setting, n, available, len(real), where)
    leaving = leaving[:n]
    coming = chosen[leaving] if by_id else coming[:n]
    stays = np.ones(len(real), bool)
    stays[leaving] = False
    sample = _joined(real.take(stays), synthetic.take(np.sort(coming)))
    return Mixture((Phase(sample),), len(real) - n, n, "by_id" if by_id else "by_count", note)


def _lowest_twins(twin: np.ndarray, order: np.ndarray, n_real: int) -> tuple[np.ndarray, np.ndarray]:
    """(n_real,) bool, the real images with a twin; and (n_real,) int64, the first of its twins in `order`, else -1."""
    with_twin = order[twin[order] >= 0]
    originals, first = np.unique(twin[with_twin], return_index=True)
    chosen = np.full(n_real, -1, np.int64)
    chosen[originals] = with_twin[first]
    return chosen >= 0, chosen


def _n_replaced(percent: int, n_real: int) -> int:
    """Percent of n, rounded half up in integers, so that it never falls as percent or n rise."""
    return (percent * n_real + 50) // 100


def _check_enough(setting: Setting, n: int, available: int, n_real: int, where: str) -> None:
    if n <= available:
        return
    largest = max((p for p in range(1, 100) if 0 < _n_replaced(p, n_real) <= available), default=None)
    hint = f"Ask for mixed_{largest} at most, or generate more." if largest else "Generate more."
    raise ConfigError(
        f"setting {setting.name} replaces {n} of {n_real} real training images, but only {available} {where}. {hint}"
    )


def _joined(first: Sample, second: Sample) -> Sample:
    return Sample(
        np.concatenate([first.ids, second.ids]),
        np.concatenate([first.keys, second.keys]),
        np.concatenate([first.labels, second.labels]),
    )
