"""Phantom chest radiographs: drawn, not photographed, with labels and prompts, for the demo and the tests.

They need no download and show nobody. The anatomy is parametric (outline, lungs, ribs, heart, vessels), findings change
what a radiologist would look at, and every image is a pure function of the arguments of `draw`. One generator gives
some of its training images back, so that a search for copies has something to find.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from chexray.phantom import anatomy, bones, pathology, words
from chexray.phantom.canvas import enlarge, strokes
from chexray.phantom.generators import GENERATORS, Exposure, Generator, develop, near_copy, soften

__all__ = ["DRAWING_VERSION", "GENERATORS", "Generator", "Phantom", "draw", "patient_of", "training_problem"]

DRAWING_VERSION = 1
"""Raised whenever `draw` returns other pixels, labels or prompts: stored sets are then drawn anew."""

STUDIES = (1, 3, 1, 2, 1, 4)
"""Studies of six consecutive patients; the pattern repeats."""

PATIENT, STUDY, LABELS, SIGN, EXPOSURE, NOISE, COPY = range(7)
METAL = 0.75
"""Radiopacity of a line of weight 1."""


@dataclass(frozen=True)
class Phantom:
    """One drawn study. image: (size, size) uint8. labels: finding -> 1, 0, -1 (uncertain) or None (not mentioned).

    copy_of: index of the training study that this image nearly repeats, None for an image of its own.
    """

    image: np.ndarray
    labels: dict[str, int | None]
    prompt: str
    subject_id: str
    sex: str
    age: int
    view: str
    copy_of: int | None = None


def draw(
    index: int,
    *,
    seed: int,
    generator: str = "real",
    size: int = 256,
    findings: Iterable[str] | None = None,
    training_seed: int | None = None,
    training_n: int | None = None,
) -> Phantom:
    """Study number `index` of the set that `seed` names, as `generator` renders it.

    The streams of randomness do not depend on the generator: with one seed, two generators render the same patients,
    so give real and synthetic sets different seeds. Sets of different seeds share the population and no patient.
    `findings` replaces the sampled findings and leaves everything else as it was, for tests and figures.
    training_seed, training_n: the reference set ("real", indices 0 .. training_n - 1) that a generator which copies was
    trained on; required by it, refused by the others. It is prompted with the training prompts in turn: `index` has
    prompt and labels of training study index % training_n, drawn for another patient, or repeats that study's image.
    Raises ValueError for a generator, finding or number that does not exist.
    """
    if generator not in GENERATORS:
        raise ValueError(f"no phantom generator is called {generator!r}; there are {', '.join(GENERATORS)}")
    if index < 0 or seed < 0 or size < 32:
        raise ValueError(f"index {index} and seed {seed} must be at least 0, size {size} at least 32")
    style = GENERATORS[generator]
    if problem := training_problem(generator, seed, training_seed, training_n):
        raise ValueError(problem)
    if training_seed is not None and training_n is not None:
        if findings is not None:
            raise ValueError(f"generator {generator!r} takes its findings from the training prompts")
        return _prompted(index, seed, style, size, training_seed, index % training_n)

    body, labels, signs, subject_id = _study(index, seed, style, findings)
    image = _film(body, signs, style, size, seed, index)
    prompt = words.prompt_of(body, labels, signs, f"{seed}-{index}")
    return Phantom(image, labels, prompt, subject_id, body.sex, body.age, body.view)


def training_problem(generator: str, seed: int, training_seed: int | None, training_n: int | None) -> str:
    """What is wrong with the training set named for a generator, in one line without a full stop; "" for nothing."""
    needed, given = GENERATORS[generator].copies > 0, (training_seed, training_n) != (None, None)
    if not needed:
        copiers = ", ".join(name for name, style in GENERATORS.items() if style.copies)
        return f"generator {generator!r} takes no training_seed or training_n; only {copiers} does" if given else ""
    if training_seed is None or training_n is None:
        return f"generator {generator!r} copies training images: give both training_seed and training_n"
    if training_seed < 0 or training_n < 1:
        return f"training_seed {training_seed} must be at least 0, training_n {training_n} at least 1"
    if training_seed == seed:
        return f"seed and training_seed are both {seed}: every image would show a training patient; choose another seed"
    return ""


Signs = dict[str, pathology.Sign]


def _study(
    index: int, seed: int, style: Generator, findings: Iterable[str] | None = None
) -> tuple[anatomy.Body, words.Labels, Signs, str]:
    """What a study shows before it is drawn: the body, not yet reshaped by findings, labels, signs, and whose it is."""
    patient, visit = patient_of(index)
    if style.patients:
        patient %= style.patients
    body = anatomy.Body.sample(_rng(seed, PATIENT, patient), _rng(seed, STUDY, index), style.variety)
    body.age += visit
    chosen = _rng(seed, LABELS, index)
    asked = None if findings is None else set(findings)
    labels = words.sample_labels(chosen, body.view) if asked is None else words.given_labels(asked)
    return body, labels, _signs(labels, seed, index, asked), f"s{seed}-p{patient:05d}"


def _film(body: anatomy.Body, signs: Signs, style: Generator, size: int, seed: int, index: int) -> np.ndarray:
    """The developed film, (size, size) uint8; `body` is reshaped by its findings."""
    pathology.reshape(body, list(signs.values()), style.strength)
    exposure = Exposure.sample(_rng(seed, EXPOSURE, index), body.view, style.variety)
    film = develop(_opacity(body, list(signs.values()), style, size), exposure, style, _rng(seed, NOISE, index))
    return soften(film, style)


def _prompted(index: int, seed: int, style: Generator, size: int, training_seed: int, study: int) -> Phantom:
    """An answer to the prompt of a training study: as a rule another patient's film, now and then the study's own."""
    world = GENERATORS["real"]
    described, labels, signs, _ = _study(study, training_seed, world)
    prompt = words.prompt_of(described, labels, signs, f"{training_seed}-{study}")
    copied = _is_copy(index, seed, style)
    if copied:
        original = _film(described, signs, world, size, training_seed, study)
        image = near_copy(original, _rng(seed, COPY, index, 1))
    else:
        body = _someone(described, seed, index, style)
        # The prompt fixes side, zone and amount of a finding; its exact shape is the new patient's own.
        fresh = {
            finding: replace(sign, seed=int(_rng(seed, SIGN, index, number).integers(2**31)))
            for number, (finding, sign) in enumerate(signs.items())
        }
        image = _film(body, fresh, style, size, seed, index)
    subject_id = f"s{seed}-p{index:05d}"
    about = (described.sex, described.age, described.view)
    return Phantom(image, labels, prompt, subject_id, *about, copy_of=study if copied else None)


def _is_copy(index: int, seed: int, style: Generator) -> bool:
    """Exactly one of each 1 / copies consecutive indices, chosen by the seed."""
    block, place = divmod(index, round(1 / style.copies))
    return place == _rng(seed, COPY, block).integers(round(1 / style.copies))


def _someone(described: anatomy.Body, seed: int, index: int, style: Generator) -> anatomy.Body:
    """A new patient of the sex, age and view that a prompt names."""
    for attempt in itertools.count():  # about one patient in four fits
        who, day = _rng(seed, PATIENT, index, attempt), _rng(seed, STUDY, index, attempt)
        body = anatomy.Body.sample(who, day, style.variety)
        if (body.sex, body.view) == (described.sex, described.view):
            break
    body.age = described.age
    return body


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


def _signs(labels: words.Labels, seed: int, index: int, asked: set[str] | None) -> Signs:
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
