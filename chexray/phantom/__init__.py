"""Phantom chest radiographs: drawn, not photographed, with labels and prompts, for the demo and the tests.

They need no download and show nobody. The anatomy is parametric (outline, lungs, ribs, heart, vessels), findings change
what a radiologist would look at, and every image is a pure function of (index, seed, generator, size).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from chexray.phantom import anatomy, pathology, words
from chexray.phantom.canvas import enlarge, strokes
from chexray.phantom.generators import GENERATORS, Exposure, Generator, develop

__all__ = ["DRAWING_VERSION", "GENERATORS", "Generator", "Phantom", "draw"]

DRAWING_VERSION = 1
"""Raised whenever `draw` returns other pixels, labels or prompts: stored sets are then drawn anew."""

STUDIES = (1, 3, 1, 2, 1, 4)
"""Studies of six consecutive patients; the pattern repeats."""

PATIENT, STUDY, LABELS, SIGN, EXPOSURE, NOISE = range(6)
METAL, LINE_SOFTNESS = 0.75, 0.006


@dataclass(frozen=True)
class Phantom:
    """One drawn study. image: (size, size) uint8. labels: finding -> 1, 0, -1 (uncertain) or None (not mentioned)."""

    image: np.ndarray
    labels: dict[str, int | None]
    prompt: str
    subject_id: str
    sex: str
    age: int
    view: str


def draw(
    index: int,
    *,
    seed: int,
    generator: str = "real",
    size: int = 256,
    findings: Iterable[str] | None = None,
) -> Phantom:
    """Study number `index` of the set that `seed` names, as `generator` renders it.

    The streams of randomness do not depend on the generator: with one seed, two generators render the same patients,
    so give real and synthetic sets different seeds. Sets of different seeds share the population and no patient.
    `findings` replaces the sampled findings and leaves everything else as it was, for tests and figures.
    Raises ValueError for a generator, finding or number that does not exist.
    """
    if generator not in GENERATORS:
        raise ValueError(f"no phantom generator is called {generator!r}; there are {', '.join(GENERATORS)}")
    if index < 0 or seed < 0 or size < 32:
        raise ValueError(f"index {index} and seed {seed} must be at least 0, size {size} at least 32")
    style = GENERATORS[generator]
    patient, visit = patient_of(index)
    if style.patients:
        patient %= style.patients

    body = anatomy.Body.sample(_rng(seed, PATIENT, patient), _rng(seed, STUDY, index), style.variety)
    body.age += visit
    chosen = _rng(seed, LABELS, index)
    labels = words.sample_labels(chosen, body.view) if findings is None else words.given_labels(findings)
    signs = _signs(labels, seed, index, None if findings is None else set(findings))
    pathology.reshape(body, list(signs.values()), style.strength)
    exposure = Exposure.sample(_rng(seed, EXPOSURE, index), body.view, style.variety)
    opacity = _opacity(body, [sign for sign in signs.values()], style, size)
    image = develop(opacity, exposure, style, _rng(seed, NOISE, index))
    prompt = words.prompt_of(body, labels, signs, index)
    return Phantom(image, labels, prompt, f"s{seed}-p{patient:05d}", body.sex, body.age, body.view)
