"""Pairs of a real image and what was generated from its prompt: scores, distances, floors and calibration.

Every value comes from stored vectors, so that each image was encoded once however many pairs it is in; only the pixel
distance decodes images again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from chexray.data.matching import index_in
from chexray.data.pairs import Pairs, restrict
from chexray.data.strangers import other_patients
from chexray.data.values import codes
from chexray.encoders.base import pair_scorer
from chexray.metrics.base import Score
from chexray.privacy.calibration import Calibration, calibrate, calibration_scores, count_thresholds
from chexray.privacy.pair_outputs import LATENT, PIXEL, PIXEL_UPSTREAM, REID, REID_AUC
from chexray.privacy.prompts import count_scores, pair_scores, prompt_table
from chexray.suites.common import Context
from chexray.suites.privacy.failures import FailureCollector
from chexray.suites.privacy.pixels import pixel_values
from chexray.suites.privacy.sets import ImageSet, Sets

FLOOR_PROMPTS = 2000
"""Prompts, drawn at random, that the floor of the pixel distance is measured on: it decodes other patients' images."""


@dataclass
class PairsOf:
    """The pairs of one synthetic set. columns: {name: (n,) float64}, NaN where a pair has no value; scores: {encoder
    label or "" for pixels: its scores}."""

    synthetic: ImageSet
    pairs: Pairs
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    scores: dict[str, list[Score]] = field(default_factory=dict)

    @property
    def prompts(self) -> np.ndarray:
        """(n,) codes of the prompts."""
        return codes(self.pairs.table["prompt_id"])


def score_pairs(
    context: Context, sets: Sets, calibrations: dict[str, Calibration], guard: FailureCollector
) -> list[PairsOf]:
    """A `PairsOf` for each synthetic set: re-identification, latent and pixel distances of its pairs."""
    return [_score_set(context, sets, images, calibrations, guard) for images in sets.synthetic]


def _score_set(
    context: Context, sets: Sets, images: ImageSet, calibrations: dict[str, Calibration], guard: FailureCollector
) -> PairsOf:
    plan, training = context.plan, sets.training
    one = PairsOf(images, restrict(plan.pairs[images.name], training.ids, images.ids))
    rng = np.random.default_rng([plan.config.seed, 1])
    floor, why = other_patients(one.pairs, training.manifest, rng, among=training.ids)
    patients = _patients(one.pairs, training)
    for label in plan.roles.reid:
        scores = one.scores.setdefault(label, [])
        with guard(f"{label} {images.name}", REID[0], scores):
            values, at_floor = _both(_reid, context, label, one.pairs, floor, training, images)
            one.columns[f"reid_{label}"] = values
            kw = {"floor_codes": _prompt_codes(floor), "floor_reason": why}
            scores += pair_scores(REID, values, one.prompts, patients, at_floor, rng, **kw)
            calibration = calibrations.get(label)
            if calibration is not None:
                why_not = calibration.recognises_nobody or calibration.reason or calibration.threshold_reason
                why_not = why_not or "not calibrated"
                scores += count_scores(
                    values, one.prompts, patients, count_thresholds(calibration), at_floor, rng, **kw,
                    uncalibrated=why_not,
                )  # fmt: skip
    for label in plan.roles.latent:
        scores = one.scores.setdefault(label, [])
        with guard(f"{label} {images.name}", LATENT[0], scores):
            values, at_floor = _both(_latent, context, label, one.pairs, floor, training, images)
            one.columns[f"latent_distance_{label}"] = values
            scores += pair_scores(
                LATENT, values, one.prompts, patients, at_floor, rng,
                floor_codes=_prompt_codes(floor), floor_reason=why,
            )  # fmt: skip
    if plan.config.privacy.pixel_distance:
        scores = one.scores.setdefault("", [])
        with guard(images.name, PIXEL[0], scores):
            _pixels(context, one, floor, why, training, patients, rng, scores)
    return one


def _both(
    measure, context: Context, label: str, pairs: Pairs, floor: Pairs | None, training: ImageSet, images: ImageSet
) -> tuple[np.ndarray, np.ndarray | None]:
    """The values of the pairs, and of the floor's pairs, whose second images are real ones too."""
    values = measure(context, label, pairs, training, images)
    return values, None if floor is None else measure(context, label, floor, training, training)


def _vectors(context: Context, label: str, column: pa.ChunkedArray, images: ImageSet) -> np.ndarray:
    """(n, d) float32 vectors of the images a column of sample_ids names; each is read once."""
    ids = column.combine_chunks().dictionary_encode()
    spec, done = context.plan.encoders[label][1], context.done[label]
    keys = images.keys.take(pa.array(index_in(ids.dictionary, images.table["sample_id"])))
    distinct = context.store.read(spec, "features", keys, done)
    return distinct[ids.indices.to_numpy()]


def _reid(context: Context, label: str, pairs: Pairs, real: ImageSet, other: ImageSet) -> np.ndarray:
    scorer = pair_scorer(context.plan.encoders[label][0])
    left = _vectors(context, label, pairs.table["real_id"], real)
    return scorer(left, _vectors(context, label, pairs.table["synthetic_id"], other))


def _latent(context: Context, label: str, pairs: Pairs, real: ImageSet, other: ImageSet) -> np.ndarray:
    """||a - b|| / sqrt(d) of stored features, (n,) float64: the paper's latent distance."""
    left = _vectors(context, label, pairs.table["real_id"], real)
    right = _vectors(context, label, pairs.table["synthetic_id"], other)
    found = np.empty(len(left))
    for start in range(0, len(left), 4096):
        part = slice(start, start + 4096)
        found[part] = np.sqrt(np.mean((left[part].astype(np.float64) - right[part]) ** 2, axis=1))
    return found


def _pixels(
    context: Context,
    one: PairsOf,
    floor: Pairs | None,
    why: str,
    training: ImageSet,
    patients: np.ndarray | None,
    rng: np.random.Generator,
    scores: list[Score],
) -> None:
    wrapped = context.plan.protocol.wrapped_pixel_distance
    found = pixel_values(context, one.pairs, training, one.synthetic, wrapped=wrapped)
    at_floor, floor_codes = None, None
    if floor is not None and len(floor) and context.plan.config.floor:
        some = _some_prompts(floor, rng)
        measured = pixel_values(context, some, training, training, wrapped=False, stage="pixels, floor")
        usable = np.isfinite(measured.distance)
        at_floor, floor_codes = measured.distance[usable], codes(some.table["prompt_id"])[usable]
    one.columns["pixel_distance"] = found.distance
    usable = np.isfinite(found.distance)
    some_patients = None if patients is None else patients[usable]
    scores += pair_scores(
        PIXEL, found.distance[usable], one.prompts[usable], some_patients, at_floor, rng,
        floor_codes=floor_codes, floor_reason=why,
    )  # fmt: skip
    if found.wrapped is not None:
        one.columns[PIXEL_UPSTREAM.name] = found.wrapped
        outputs = (PIXEL_UPSTREAM,) * 3
        scores.append(pair_scores(outputs, found.wrapped[usable], one.prompts[usable], some_patients, None, rng)[0])


def _some_prompts(floor: Pairs, rng: np.random.Generator) -> Pairs:
    prompts = codes(floor.table["prompt_id"])
    known = np.unique(prompts)
    if len(known) <= FLOOR_PROMPTS:
        return floor
    kept = np.isin(prompts, rng.choice(known, FLOOR_PROMPTS, replace=False))
    return Pairs(floor.how, floor.table.filter(pa.array(kept)), floor.unpaired, floor.notes)


def _prompt_codes(floor: Pairs | None) -> np.ndarray | None:
    return None if floor is None else codes(floor.table["prompt_id"])


def _patients(pairs: Pairs, training: ImageSet) -> np.ndarray | None:
    """(n,) patient codes of the pairs' real images."""
    patients = training.known_patients
    if patients is None:
        return None
    return patients[index_in(pairs.table["real_id"], training.table["sample_id"])]


def calibrate_networks(
    context: Context, sets: Sets, guard: FailureCollector
) -> tuple[dict[str, Calibration], dict[str, list[Score]]]:
    """{label: Calibration} and its scores, for each re-identification encoder, on all real images of the run."""
    calibrations, scores = {}, {}
    real = [sets.training] if sets.heldout is None else [sets.training, sets.heldout]
    known = [each.known_patients for each in real]
    patients = np.concatenate([codes for codes in known if codes is not None]) if known[0] is not None else None
    keys = pa.concat_arrays([each.keys for each in real])
    for label in context.plan.roles.reid:
        encoder, spec = context.plan.encoders[label]
        mine = scores.setdefault(label, [])
        with guard(label, REID_AUC, mine):
            vectors = context.store.read(spec, "features", keys, context.done[label])
            scorer = pair_scorer(encoder)
            rng = np.random.default_rng([context.plan.config.seed, 2])
            thresholds = context.plan.config.privacy.thresholds
            calibrations[label] = calibrate(vectors, patients, scorer, rng, thresholds=thresholds)
            mine += calibration_scores(calibrations[label])
    return calibrations, scores


def prompt_rows(one: PairsOf) -> pa.Table:
    """One row a prompt: its seeds, and the mean and the worst of every column over them."""
    prompts = one.prompts
    ids = one.pairs.table["prompt_id"].to_pylist()
    code, first, counts = np.unique(prompts, return_index=True, return_counts=True)
    columns: dict[str, object] = {
        "synthetic_set": pa.array([one.synthetic.name] * len(code), pa.string()),
        "prompt_id": pa.array([ids[i] for i in first], pa.string()),
        "n_seeds": counts,
    }
    for name, values in one.columns.items():
        usable = np.isfinite(values)
        worst = "max" if name.startswith("reid_") else "min"
        table = prompt_table(prompts[usable], values[usable], worst)
        place = np.searchsorted(code, table.code)
        for kind, found in (("mean", table.mean), (worst, table.extreme)):
            column = np.full(len(code), np.nan)
            column[place] = found
            columns[f"{name}_{kind}"] = pa.array(column, from_pandas=True)
    return pa.table(columns)


def pair_rows(one: PairsOf) -> pa.Table:
    """One row a pair with every value it has: the worst cases are the point."""
    table = one.pairs.table
    values = {name: pa.array(column, from_pandas=True) for name, column in one.columns.items()}
    names = pa.array([one.synthetic.name] * len(table), pa.string())
    return pa.table({"synthetic_set": names, **{name: table[name] for name in table.column_names}, **values})
