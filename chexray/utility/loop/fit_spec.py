"""What one training is asked to do, as plain data that travels to the workers."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from chexray.utility.loop.recipe import Recipe

if TYPE_CHECKING:
    from chexray.utility.loop.head import Head


@dataclass(frozen=True)
class Sample:
    """n labelled images. ids: (n,) str, for messages. keys: (n,) str image_keys in the image cache.

    labels: (n, ...) as the head of the fit reads them.
    """

    ids: np.ndarray
    keys: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, index: np.ndarray) -> Sample:
        """The images at `index` (integers or a mask), in that order."""
        return Sample(self.ids[index], self.keys[index], self.labels[index])


@dataclass(frozen=True)
class Phase:
    """One stage of a training. share: part of the budget it gets; the shares of a fit sum to 1.

    Each phase starts its own optimiser and schedule; the weights go on from the last epoch of the phase before.
    """

    sample: Sample
    share: float = 1.0


@dataclass(frozen=True)
class Fit:
    """One network to train for what `head` asks, then to score sets with.

    phases: in order. n_budget: images that one epoch presents under the budget "images". validation: real images of
    patients that no phase holds; the epoch of the last phase that is best on it, as the recipe says, is the model.
    score: {name: image_keys (n,)} to predict with it. image_cache: fingerprint of the stored images.
    title: for a person, such as "synthetic (phantom-good), seed 0".
    """

    title: str
    head: Head
    recipe: Recipe
    seed: int
    phases: tuple[Phase, ...]
    n_budget: int
    validation: Sample
    image_cache: str
    score: dict[str, np.ndarray] = field(default_factory=dict)

    @cached_property
    def name(self) -> str:
        """16 hex digits over recipe, seed, images and labels: the folder the fit is committed in.

        Titles and the sets to score are left out, and so is the number of workers: with several of them
        a network varies as between seeds.
        """
        digest = hashlib.blake2b(digest_size=8)
        head = f"{self.recipe.fingerprint}|{self.seed}|{self.n_budget}|{self.image_cache}"
        digest.update(f"{head}|{self.head.identity}".encode() if self.head.identity else head.encode())
        for sample, share in [*((phase.sample, phase.share) for phase in self.phases), (self.validation, 0.0)]:
            digest.update(f"|{len(sample)}|{share!r}|".encode())
            digest.update("\n".join(sample.keys.tolist()).encode())
            digest.update(self.head.batch(sample.labels).tobytes())
        return digest.hexdigest()

    @cached_property
    def score_digests(self) -> dict[str, str]:
        """{name of a set to score: digest of its keys}"""
        return {name: keys_digest(keys) for name, keys in self.score.items()}


def keys_digest(keys: np.ndarray) -> str:
    """16 hex digits over these image_keys in this order: names the predictions of one set."""
    return hashlib.blake2b("\n".join(keys.tolist()).encode(), digest_size=8).hexdigest()
