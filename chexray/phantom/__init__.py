"""Phantom chest radiographs: drawn, not photographed, with labels and prompts, for the demo and the tests.

They need no download and show nobody. The anatomy is parametric (outline, lungs, ribs, heart, vessels), findings change
what a radiologist would look at, and every image is a pure function of (index, seed, generator, size).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from chexray.phantom import anatomy, bones, pathology, words
from chexray.phantom.canvas import enlarge, strokes
from chexray.phantom.generators import GENERATORS, Exposure, Generator, develop

__all__ = ["DRAWING_VERSION", "GENERATORS", "Generator", "Phantom", "draw"]

DRAWING_VERSION = 1
"""Raised whenever `draw` returns other pixels, labels or prompts: stored sets are then drawn anew."""

STUDIES = (1, 3, 1, 2, 1, 4)
"""Studies of six consecutive patients; the pattern repeats."""

PATIENT, STUDY, LABELS, SIGN, EXPOSURE, NOISE = range(6)
METAL = 0.75
"""Radiopacity of a line of weight 1."""


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
    opacity = _opacity(body, list(signs.values()), style, size)
    image = develop(opacity, exposure, style, _rng(seed, NOISE, index))
    prompt = words.prompt_of(body, labels, signs, f"{seed}-{index}")
    return Phantom(image, labels, prompt, f"s{seed}-p{patient:05d}", body.sex, body.age, body.view)


def patient_of(index: int) -> tuple[int, int]:
    """(patient, visit) of a study: patients come in turn, with one to four studies each (STUDIES)."""
    cycle, place = divmod(index, sum(STUDIES))
    patient = 0
    while place >= STUDIES[patient]:
        place -= STUDIES[patient]
        patient += 1
    return cycle * len(STUDIES) + patient, place


def _rng(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))


def _signs(labels: words.Labels, seed: int, index: int, asked: set[str] | None) -> dict[str, pathology.Sign]:
    """The findings to draw. An uncertain one is faint; a Lung Opacity that only sums up others is not drawn again."""
    implied = any(labels[finding] == 1 for finding in words.OPACITIES)
    signs = {}
    for number, (finding, label) in enumerate(labels.items()):
        if label not in (1, -1) or finding == "No Finding":
            continue
        if finding == "Lung Opacity" and implied and (asked is None or finding not in asked):
            continue
        sign = pathology.Sign.sample(finding, _rng(seed, SIGN, index, number))
        signs[finding] = sign if label == 1 else replace(sign, severity=0.3 * sign.severity)
    return signs


def _opacity(body: anatomy.Body, signs: list[pathology.Sign], style: Generator, size: int) -> np.ndarray:
    """(size, size) radiopacity of the canvas. What is soft is drawn at half the resolution, then enlarged."""
    soft = anatomy.frame_of(body, size // 2)
    shade = anatomy.soft_tissue(soft)
    shade += anatomy.heart_and_mediastinum(soft)
    shade += anatomy.hila(soft) * soft.lung
    aerated = soft.lung
    for sign in signs:
        if sign.finding in pathology.OPACITY:
            shade += np.float32(style.strength) * pathology.OPACITY[sign.finding](soft, sign, sign.stream)
        elif sign.finding == "Pneumothorax":
            gone = np.float32(style.strength) * pathology.pneumothorax(soft, sign, sign.stream)
            shade -= np.float32(0.20) * gone
            aerated = aerated * (np.float32(1.0) - gone)
    shade += anatomy.vessels(soft) * aerated
    shade = np.array(enlarge(shade, size))

    sharp = anatomy.cage_of(body, size)
    step = sum(pathology.rib_step(sharp, s, s.stream) for s in signs if s.finding == "Fracture")
    step = None if isinstance(step, int) else np.float32(style.strength) * step
    shade += bones.ribs(sharp, wrong=style.wrong_ribs, step=step)
    shade += bones.shoulder_girdle(body, size)
    lines = [line for sign in signs for line in pathology.lines_of(body, sign)]
    if lines:
        shade += np.float32(METAL * style.strength) * strokes(size, lines)
    return np.clip(shade, 0.0, None, out=shade)
