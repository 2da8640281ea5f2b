"""What `precision: auto` becomes on the workers of a run: bf16 where it pays and a check passes, else fp32.

The first images of a real and of a synthetic set are encoded in both precisions, once for each encoder, weights and
kind of device: the figures are kept in the feature store. Whether they allow bf16 depends on the run's n, and what was
decided is kept in the run's folder, so that a run that resumes stays in one precision.
"""

from __future__ import annotations

import hashlib
import json
import math
import operator
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from chexray.data.depth import Depth
from chexray.data.manifest import Manifest
from chexray.encoders.base import EncoderSpec
from chexray.encoders.capability import Machine
from chexray.encoders.network import NetworkEncoder
from chexray.errors import StorageError
from chexray.log import say
from chexray.plan import Plan
from chexray.plan.precision import Decision
from chexray.run.directory import RunDirectory
from chexray.stats.precision import Shift, images_a_side, objections, relative_error
from chexray.storage import join

if TYPE_CHECKING:
    from chexray.engine.features import FeatureStore
    from chexray.engine.pools import Pool

SAMPLE = 64
"""Images that are encoded in both precisions, half of them real where both kinds are there."""
FEWEST = SAMPLE // 2
"""Of them that must have been read for anything to follow."""
LOW, FULL = "bf16", "fp32"
SHIFTS = ("fid", "kid")
KEPT = "precision.json"
MOST_BYTES = 100_000


@dataclass(frozen=True)
class Figures:
    """What a check measured. errors: {output: relative error of its features}; shifts: {"fid", "kid": Shift}."""

    device: str
    n_images: int
    errors: dict[str, float]
    shifts: dict[str, Shift]

    @property
    def compares(self) -> bool:
        """Whether real and synthetic images were compared: features alone do not say how far a number moves."""
        return set(self.shifts) == set(SHIFTS)

    @classmethod
    def parse(cls, text: bytes, outputs: Collection[str], device: str) -> Figures | None:
        """The figures in a file; None for anything that is not what `asdict` of figures would be, of a check of these
        outputs on this device that compared both kinds of images."""
        try:
            found = json.loads(text)
            shifts = {
                str(name): Shift(**{k: float(v) for k, v in each.items()}) for name, each in found["shifts"].items()
            }
            errors = {str(name): float(value) for name, value in found["errors"].items()}
            figures = cls(str(found["device"]), operator.index(found["n_images"]), errors, shifts)
        except (AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError):
            return None
        sound = (
            figures.compares and set(errors) == set(outputs) and figures.device == device
            and FEWEST <= figures.n_images <= SAMPLE
            and all(math.isfinite(x) and x >= 0 for x in errors.values())
            and all(shift.is_sound(figures.n_images) for shift in shifts.values())
        )  # fmt: skip
        return figures if sound else None


@dataclass(frozen=True)
class Checker:
    """How a run asks its workers; functions, so that tests can answer in their place.

    machine: () -> Machine. encode_both: as `engine.precision.encode_both`, without its last two arguments.
    """

    machine: Callable[[], Machine]
    encode_both: Callable[..., Any]

    @classmethod
    def on_workers(cls, store: FeatureStore, pool: Pool) -> Checker:
        from chexray.engine import precision as workers

        return cls(
            lambda: workers.worker_machine(pool),
            lambda encoders, spec, chunk: workers.encode_both(encoders, spec, chunk, store, pool),
        )


def with_precision(plan: Plan, store: FeatureStore, directory: RunDirectory, checker: Checker) -> Plan:
    """The plan with a precision for every encoder whose precision is `auto`."""
    labels = plan.undecided
    kept = directory.read_json(KEPT)
    found = {label: _kept(kept.get(label), plan.encoders[label][1]) for label in labels}
    machine: Machine | None = None
    for label in labels:
        if found[label] is None:
            machine = machine or checker.machine()
            found[label] = _decide(plan, label, store, machine, checker)
    decided = {label: decision for label, decision in found.items() if decision is not None}
    for label, decision in decided.items():
        say(f"{label}: {decision.words}")
    kept |= {
        label: {"encoder": plan.encoders[label][1].fingerprint, **asdict(decision)}
        for label, decision in decided.items()
    }
    directory.json(KEPT, kept)
    return plan.decided(decided)


def _kept(item: object, spec: EncoderSpec) -> Decision | None:
    """What an earlier attempt at this run decided."""
    if not isinstance(item, dict) or item.get("encoder") != spec.fingerprint or item.get("chosen") not in (LOW, FULL):
        return None
    figures = item.get("figures")
    return Decision(item["chosen"], str(item.get("why", ""))[:500], figures if isinstance(figures, dict) else {})


def _decide(plan: Plan, label: str, store: FeatureStore, machine: Machine, checker: Checker) -> Decision:
    spec = plan.encoders[label][1]
    if not machine.pays:
        return Decision(FULL, machine.why_not)
    sample, n = _sample(plan, label)
    if len(sample) < SAMPLE:
        return Decision(FULL, f"fewer than {SAMPLE} images to check {LOW} with")
    place = join(store.root, "precision", f"{spec.name}-{spec.fingerprint}-{_short(machine.kind)}.json")
    figures = _stored(store, place, spec, machine)
    if figures is None:
        say(f"{label}: checking {LOW} against {FULL} on {SAMPLE} images, once for these weights and {machine.kind}")
        figures = _measured(plan, label, machine, checker, sample)
        if figures.n_images < FEWEST:
            return Decision(FULL, f"only {figures.n_images} of {SAMPLE} images to check {LOW} with could be read")
        if figures.compares:
            figures = _keep(store, place, spec, machine, figures)
        elif len({image[3] for image in sample}) > 1:
            return Decision(FULL, f"too few real or synthetic images to check {LOW} with could be read")
    return decision(figures, n)


def decision(figures: Figures, n: float) -> Decision:
    """What these figures allow in a run with n images a side."""
    shifts = {name: each.shift for name, each in figures.shifts.items()}
    std_errors = {name: each.std_error_at(n) for name, each in figures.shifts.items()}
    refused = objections(figures.errors, shifts, std_errors)
    measured = {
        "device": figures.device, "n_checked": figures.n_images, "feature_error": figures.errors, "shift": shifts,
        "std_error_at_n": std_errors,
    }  # fmt: skip
    error = max(figures.errors.values())
    moved = ", ".join(f"{name} by {abs(x):.2g} (std. error {std_errors[name]:.2g})" for name, x in shifts.items())
    words = f"checked on {figures.n_images} images: features move by {100 * error:.2g} %{', ' if moved else ''}{moved}"
    if refused:
        return Decision(FULL, f"{LOW} refused, {'; '.join(refused)}", measured)
    return Decision(LOW, words, measured)


def _keep(store: FeatureStore, place: str, spec: EncoderSpec, machine: Machine, figures: Figures) -> Figures:
    """Figures for later runs: those of another run that was first, or these."""
    data = json.dumps(asdict(figures), indent=2).encode()
    if not store.storage.create(place, data):
        if there := _stored(store, place, spec, machine):
            return there
        store.storage.write(place, data)  # over a file that says nothing
    return figures


def _stored(store: FeatureStore, place: str, spec: EncoderSpec, machine: Machine) -> Figures | None:
    there = store.storage.stat([place])[0]
    if there is None or there.size > MOST_BYTES:
        return None
    try:
        return Figures.parse(store.storage.read(place), spec.outputs, machine.kind)
    except StorageError as error:
        if getattr(error, "transient", False):
            raise
        return None


Image = tuple[str, str, Depth | None, bool]
"""Key, URI, depth of its set, and whether it is real."""


def _sample(plan: Plan, label: str) -> tuple[list[Image], float]:
    """The images of a check, and the n a side of the run.

    The first of the first real and of the largest synthetic set that the encoder reads, half of each; more of one where
    the other has fewer.
    """
    sets = [each for suite in plan.suites_of[label] for each in plan.sets_of(suite)]
    real = next((each for each in sets if each.origin == "real"), None)
    synthetic = max((each for each in sets if each.origin != "real"), key=len, default=None)
    sides = [_first(each) for each in (real, synthetic)]
    n_real = max(SAMPLE // 2, SAMPLE - len(sides[1]))
    images = {image[0]: image for image in [*sides[0][:n_real], *sides[1]][::-1]}  # of an image twice, the real one
    n = images_a_side(*(max(1, 0 if each is None else len(each)) for each in (real, synthetic)))
    return list(images.values())[::-1][:SAMPLE], n


def _first(manifest: Manifest | None) -> list[Image]:
    if manifest is None:
        return []
    table = manifest.table.slice(0, 2 * SAMPLE).select(["image_key", "uri"])
    return [(row["image_key"], row["uri"], manifest.depth, manifest.origin == "real") for row in table.to_pylist()]


def _measured(plan: Plan, label: str, machine: Machine, checker: Checker, sample: list[Image]) -> Figures:
    from chexray.engine.precision import sample_chunk

    network = cast(NetworkEncoder, plan.encoders[label][0])
    chunk = sample_chunk([image[:3] for image in sample])
    pair = network.at(FULL), network.at(LOW)
    both, rejected = checker.encode_both(pair, pair[0].resolve(), chunk)
    is_real = np.delete([image[3] for image in sample], rejected)
    errors = {output: relative_error(full, low) for output, (full, low) in both.items()}
    full, low = both["features"]
    return Figures(machine.kind, len(is_real), errors, _shifts(full, low, is_real))


def _shifts(full: np.ndarray, low: np.ndarray, is_real: np.ndarray) -> dict[str, Shift]:
    """{"fid", "kid"}: how far each moves between two precisions; without those that the sample cannot give."""
    from chexray.metrics.base import Rows  # imports torch
    from chexray.metrics.fid import FID
    from chexray.metrics.kid import KID

    found = {}
    n = images_a_side(max(1, int(is_real.sum())), max(1, int((~is_real).sum())))
    for metric in (FID(), KID()):
        scores = []
        for features in (full, low):
            sides = [
                Rows(np.array([f"{i:03}" for i in np.flatnonzero(mask)]), features[mask])
                for mask in (is_real, ~is_real)
            ]
            scores += metric.score(*sides, floor=False)
        exact, moved = scores
        if exact.value is not None and moved.value is not None and exact.std_error:
            shift = Shift(moved.value - exact.value, exact.std_error, n)
            found |= {exact.metric: shift} if shift.is_sound(len(is_real)) else {}
    return found


def _short(kind: str) -> str:
    return hashlib.blake2b(kind.encode(), digest_size=4).hexdigest()
