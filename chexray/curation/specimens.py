"""What an audit puts before the filter: copies planted on purpose, images of unseen patients, and twins.

Each becomes a synthetic set of one plan, so that the verdicts come from the code that users run. The planted images
show real patients: they lie below `<output>/audits/` and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from chexray.config import RunConfig
from chexray.curation.planting import Planted, plant
from chexray.data import manifest as manifests
from chexray.data import pairing
from chexray.data.manifest import Manifest
from chexray.data.matching import is_in
from chexray.data.pairs import Pairs
from chexray.data.schema import REJECT_SCHEMA
from chexray.data.values import codes
from chexray.errors import ConfigError, ManifestError
from chexray.plan import Plan
from chexray.privacy.audit import IDENTITY
from chexray.privacy.augmentations import AUGMENTATIONS
from chexray.stats.resampling import split_half
from chexray.storage import absolute, join
from chexray.suite_names import PRIVACY

PLANTED, UNSEEN, TWINS, ORIGINALS, NULL = (
    "audit-planted",
    "audit-unseen",
    "audit-twins",
    "audit-originals",
    "audit-null",
)
"""Names of an audit's sets. ORIGINALS are the synthetic images whose twins are TWINS."""


@dataclass(frozen=True)
class Specimens:
    """The sets of an audit. plan: what to evaluate. planted: {training image: its copies, {augmentation: sample_id}}.
    twins: {synthetic image: its twin}. unreadable: training and synthetic images that could not be used."""

    plan: Plan
    planted: dict[str, dict[str, str]]
    twins: dict[str, str]
    unreadable: int
    notes: list[str]

    def set_of(self, name: str) -> Manifest:
        """One of its synthetic sets."""
        return next(manifest for manifest in self.plan.synthetic if manifest.name == name)


def make_specimens(plan: Plan, n_images: int) -> Specimens:
    """Plants, halves and pairs what the plan's filter is tried on. Raises ConfigError where that is impossible."""
    training, source = plan.training, plan.synthetic[0]
    assert training is not None
    null, unseen, notes = halves(plan)
    folder = join(absolute(plan.config.output), "audits")
    seed, storage = plan.config.seed, plan.storage
    copies = plant(
        _images(training), AUGMENTATIONS, join(folder, _place(training), f"copies-{n_images}"), storage,
        n=n_images, seed=seed, depth=training.depth,
    )  # fmt: skip
    twins = _twins(plan, source, join(folder, _place(source), f"twins-{n_images}"), n_images)
    for manifest, planted in ((training, [copies]), (source, twins)):
        if not any(each.rows for each in planted):
            raise ManifestError(f"{manifest.name}: none of its images could be read, so no copy could be planted.")
    notes.append(f"changed copies of {training.name} and {source.name} are in {folder}; delete them after use")
    twin_of = {row["source_id"]: row["sample_id"] for each in twins for row in each.rows}
    planted_of: dict[str, dict[str, str]] = {}
    for row in copies.rows:
        planted_of.setdefault(row["source_id"], {})[row["augmentation"]] = row["sample_id"]
    sets = (
        _set(PLANTED, [copies], plan),
        unseen,
        _subset(source, ORIGINALS, is_in(source.table["sample_id"], pa.array(list(twin_of), pa.string()))),
        _set(TWINS, twins, plan),
    )
    audited = replace(
        plan, config=_config(plan), metrics={}, subsets=(), remarks=(), heldout=null, synthetic=sets,
        encoders=plan.encoders_of(PRIVACY), suites_of=dict.fromkeys(plan.encoders_of(PRIVACY), (PRIVACY,)),
        roles=replace(plan.roles, latent=()), pairs=_pairs(plan, sets, planted_of, twin_of),
    )  # fmt: skip
    unreadable = sum(len(each.unreadable) for each in (copies, *twins))
    return Specimens(audited, planted_of, twin_of, unreadable, notes)


def halves(plan: Plan) -> tuple[Manifest, Manifest, list[str]]:
    """(null, unseen, notes): the held-out set halved by patient, without images or patients of the training set.

    No unseen image meets its own patient in the null, as no synthetic image does.
    """
    training, heldout = plan.training, plan.heldout
    assert training is not None
    if heldout is None:
        raise ConfigError(
            "the filter test needs held-out real images, as baseline and to measure false positives: give --heldout."
        )
    known = is_in(heldout.table["image_key"], training.table["image_key"])
    known |= is_in(heldout.table["subject_id"], training.table["subject_id"])
    strangers = _subset(heldout, heldout.name, ~known)
    patients = patient_codes(strangers)
    n = len(strangers)
    first, second = split_half(n, patients, np.random.default_rng([plan.config.seed, 3])) if n else ((), ())
    if not len(first) or not len(second):
        n_patients = 0 if patients is None else len(np.unique(patients))
        who = "" if patients is None else f" of {n_patients} {'patient' if n_patients == 1 else 'patients'}"
        raise ConfigError(
            f"{heldout.name}: {n} images{who}, besides those in training, cannot be split into a baseline and unseen "
            "patients. Give more in --heldout."
        )
    notes = []
    if patients is None:
        notes.append(
            f"{heldout.name} has no patient ids: it is split by image, a patient may be in both halves, and "
            f"intervals treat each image as one patient. Name the column in {heldout.setting('columns.subject_id')}"
        )
    if known.any():
        notes.append(
            f"{int(known.sum())} images of {heldout.name} are left out: they or their patients are in training"
        )
    by_patient = "by image" if patients is None else "by patient"
    notes.append(
        f"{heldout.name} is split {by_patient}: {len(first):,} images are the baseline, {len(second):,} the unseen "
        "patients; the run itself uses both as its baseline"
    )
    null, unseen = (
        _subset(strangers, name, np.isin(np.arange(n), rows)) for name, rows in ((NULL, first), (UNSEEN, second))
    )
    return null, replace(unseen, origin="synthetic"), notes


def patient_codes(manifest: Manifest) -> np.ndarray | None:
    """(n,) codes equal for one patient; an image without one is its own. None when no image names a patient."""
    return _codes_or_own(manifest, "subject_id")


def prompt_codes(manifest: Manifest) -> np.ndarray | None:
    """(n,) codes equal for one prompt, likewise."""
    return _codes_or_own(manifest, "prompt")


def _codes_or_own(manifest: Manifest, column: str) -> np.ndarray | None:
    values = manifest.table[column]
    if values.null_count == len(values):
        return None
    rows = zip(values.to_pylist(), manifest.table["sample_id"].to_pylist(), strict=True)
    return codes(pa.chunked_array([pa.array([f"\0{own}" if value is None else value for value, own in rows])]))


def _config(plan: Plan) -> RunConfig:
    """The config under a name of its own, without what no verdict is made of. A half of a set that loses an image loses
    twice the share of it, so twice as many may be rejected."""
    config = plan.config
    encode = config.encode.model_copy(update={"max_reject_fraction": min(1.0, 2 * config.encode.max_reject_fraction)})
    return config.model_copy(
        update={
            "name": f"{config.name.removesuffix('-audit')[:58]}-audit",
            "suite": [PRIVACY],
            "encoders": [item for item in config.encoders if item.label in plan.encoders_of(PRIVACY)],
            "privacy": config.privacy.model_copy(update={"peers": False, "pixel_distance": False, "planted": 0}),
            "encode": encode,
        }
    )


def _images(manifest: Manifest) -> list[tuple[str, str]]:
    return list(zip(manifest.table["sample_id"].to_pylist(), manifest.table["uri"].to_pylist(), strict=True))


def _place(manifest: Manifest) -> str:
    """A folder for a set in its present state: another threshold or encoder meets the same planted images."""
    return manifest.fingerprint


def _twins(plan: Plan, source: Manifest, folder: str, n_images: int) -> list[Planted]:
    """Twins of `n_images` images, each after one augmentation, which take turns."""
    names = [name for name in AUGMENTATIONS if name != IDENTITY]
    images = _images(source)
    shares = [n_images // len(names) + (turn < n_images % len(names)) for turn in range(len(names))]
    return [
        plant(
            images[turn :: len(names)], {name: AUGMENTATIONS[name]}, join(folder, name), plan.storage,
            n=shares[turn], seed=plan.config.seed, in_training=False, depth=source.depth,
        )
        for turn, name in enumerate(names)
        if shares[turn] and images[turn :: len(names)]
    ]  # fmt: skip


def _set(name: str, planted: Sequence[Planted], plan: Plan) -> Manifest:
    """Planted images as a set. Prompts are left behind: they would only speak of the originals."""
    rows = [(row["sample_id"], join(_folder(each), row["image"])) for each in planted for row in each.rows]
    ids, uris = zip(*rows, strict=True)
    table = pa.table({"sample_id": pa.array(ids, pa.string()), "uri": pa.array(uris, pa.string())})
    return manifests.build(name, "synthetic", table, plan.storage)


def _folder(planted: Planted) -> str:
    return planted.manifest.rpartition("/")[0]


def _subset(manifest: Manifest, name: str, keep: np.ndarray) -> Manifest:
    table = manifest.table.filter(pa.array(keep))
    rejects = REJECT_SCHEMA.empty_table()
    return replace(manifest, name=name, table=table, rejects=rejects, n_rows=len(table), excluded={}, notes=())


def _pairs(
    plan: Plan, sets: Sequence[Manifest], planted: dict[str, dict[str, str]], twins: dict[str, str]
) -> dict[str, Pairs]:
    """Which training image re-identification holds each specimen against; none where the plan has no network for it.

    A planted copy against its original; an unseen image against a random training image, since a synthetic one is held
    against one too; a twin against what its synthetic image is held against.
    """
    training = plan.training
    assert training is not None
    if not plan.roles.reid:
        return {item.name: pairing.build("none", training, item, plan.storage) for item in sets}
    real = training.table["sample_id"].to_pylist()
    unseen = next(item for item in sets if item.name == UNSEEN).table["sample_id"].to_pylist()
    drawn = np.random.default_rng([plan.config.seed, 4]).integers(0, len(real), len(unseen))
    own = [
        (row["real_id"], row["synthetic_id"])
        for row in plan.pairs[plan.synthetic[0].name].table.to_pylist()
        if row["synthetic_id"] in twins
    ]
    of = {
        PLANTED: [(source, copy) for source, copies in planted.items() for copy in copies.values()],
        UNSEEN: [(real[place], sample_id) for place, sample_id in zip(drawn, unseen, strict=True)],
        ORIGINALS: own,
        TWINS: [(real_id, twins[sample_id]) for real_id, sample_id in own],
    }
    return {item.name: _given(of[item.name], item, plan) for item in sets}


def _given(rows: Sequence[tuple[str, str]], synthetic: Manifest, plan: Plan) -> Pairs:
    assert plan.training is not None
    columns = [pa.array(column, pa.string()) for column in zip(*rows, strict=True)] or [pa.array([], pa.string())] * 2
    table = pa.table(columns, names=["real_id", "synthetic_id"])
    return pairing.given(table, plan.training, synthetic, f"pairs of {synthetic.name}")
