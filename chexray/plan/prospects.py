"""What a run could not compute, seen from its plan: refused, or noted, before anything starts.

Refused is what the config asks for and no set can give: groups of images without labels, a baseline of the very images
that were trained on, a test set that shows one class. What only some sets cannot give is noted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from chexray.data.images import Reject, load_images
from chexray.data.manifest import Manifest
from chexray.data.schema import RESERVED
from chexray.data.subsets import Subset, members
from chexray.errors import ConfigError, ManifestError
from chexray.plan.plan import Plan
from chexray.plan.problems import Problems
from chexray.suite_names import FIDELITY, PRIVACY, UTILITY
from chexray.text import listed, quoted, shown

FIRST = 4
"""Names of a list that are shown."""


def foresee(plan: Plan, copied: Collection[tuple[str, str]] = ()) -> tuple[str, ...]:
    """Notes on what the run will not be able to compute, the first to be read.

    copied: (set, another that has all of its files).
    Raises ConfigError, ManifestError or, for several at once, ConfigProblems for what cannot succeed.
    """
    found = Problems()
    notes: list[str] = []
    for manifest in plan.sets:
        found.attempt(_check_readable, plan, manifest)
    if plan.has(PRIVACY):
        found.attempt(_check_heldout, plan, copied)
        found.attempt(_check_privacy, plan)
    if plan.has(FIDELITY):
        notes += found.attempt(_foresee_fidelity, plan) or []
    found.raise_all()
    return (*notes, *_unseen_prompts(plan))


def _check_readable(plan: Plan, manifest: Manifest) -> None:
    """Raises ManifestError for a set of which more images are missing than a run may lose, or none can be decoded."""
    key, limit = manifest.key or manifest.origin, plan.config.encode.max_reject_fraction
    lost, n = len(manifest.rejects), len(manifest) + len(manifest.rejects)
    if lost > limit * n:
        first = manifest.rejects.to_pylist()[0]
        raise ManifestError(
            f"{key} ({shown(manifest.name)}): {lost} of {n} images are missing, over encode.max_reject_fraction="
            f"{limit:g}, first {shown(first['uri'] or first['sample_id'])}: {first['detail']}. Correct the paths, "
            "leave these rows out, or raise the limit."
        )
    if manifest.looks is None or manifest.looks.n or not manifest.looks.n_sampled or limit >= 1:
        return
    uri = manifest.table["uri"][0].as_py()
    why = load_images([uri], plan.storage, max_pixels=plan.config.encode.max_pixels)[0]
    if isinstance(why, Reject) and not why.transient:
        raise ManifestError(
            f"{key} ({shown(manifest.name)}): none of {manifest.looks.n_sampled} sampled images can be read, first "
            f"{shown(uri)}: {why.code}: {why.detail}. Repair them, copy them again, or correct the path of the set."
        )


def _check_heldout(plan: Plan, copied: Collection[tuple[str, str]]) -> None:
    """Raises ConfigError where every held-out image, or its patient, is also in the training set: nobody is left to
    tell what chance gives."""
    training, heldout = plan.training, plan.heldout
    if training is None or heldout is None:
        return
    same = {name: _shared(heldout, training, name) for name in ("image_key", "subject_id")}
    is_copy = (heldout.name, training.name) in copied
    if not len(heldout) or not (is_copy or (same["image_key"] | same["subject_id"]).all()):
        return
    what = "images are" if is_copy or same["image_key"].all() else "images, or their patients, are"
    raise ConfigError(
        f"{heldout.key or 'heldout'} ({shown(heldout.name)}): all {len(heldout):,} held-out {what} also in the "
        f"training set {quoted(training.name, 60)}, so that none is left for the baseline. Name real images of other "
        "patients, or leave the held-out set out."
    )


def _shared(left: Manifest, right: Manifest, column: str) -> np.ndarray:
    known = set(right.table[column].to_pylist()) - {None}
    return np.array([value in known for value in left.table[column].to_pylist()], bool)


def _check_privacy(plan: Plan) -> None:
    """Raises ConfigError where no part of the privacy suite has anything to read."""
    roles = plan.roles
    if roles.search or roles.duplicates or any(len(pairs) for pairs in plan.pairs.values()):
        return
    raise ConfigError(
        "the privacy suite would compute nothing: no encoder to search for copies in, privacy.duplicates is off, and "
        "no synthetic image is paired with a real one. Add pixels or patches to the encoders."
    )


@dataclass(frozen=True)
class _Cut:
    """One subset of one synthetic set: how many images on each side; why: {set that cannot be cut so: the reason}."""

    synthetic: str
    subset: Subset
    n_real: int
    n_synthetic: int
    why: Mapping[str, str]

    @property
    def n(self) -> int:
        """Images of the smaller side."""
        return min(self.n_real, self.n_synthetic)


def _cuts(plan: Plan) -> Iterator[_Cut]:
    policy = plan.config.label_policy
    real = {subset.name: members(plan.real, subset, policy) for subset in plan.subsets}
    for synthetic in plan.synthetic_of(FIDELITY):
        grouped = plan.as_grouped(synthetic)
        for subset in plan.subsets:
            sides = {plan.real.name: real[subset.name], synthetic.name: members(grouped, subset, policy)}
            why = {name: side for name, side in sides.items() if isinstance(side, str)}
            n_real, n_synthetic = (0 if isinstance(side, str) else int(side.sum()) for side in sides.values())
            yield _Cut(synthetic.name, subset, n_real, n_synthetic, why)


def _foresee_fidelity(plan: Plan) -> list[str]:
    """Notes on subsets and metrics without enough images. Raises ConfigError where nothing is left of a request."""
    cuts = list(_cuts(plan))
    found = Problems()
    notes = []
    for column in dict.fromkeys(cut.subset.column for cut in cuts if cut.why):
        of_column = [cut for cut in cuts if cut.subset.column == column]
        lost = {cut.synthetic: cut.why for cut in of_column if cut.why}
        if all(cut.why for cut in of_column):
            found.attempt(_refuse_groups, plan, column, lost)
            continue
        notes.append(
            f"CANNOT BE COMPUTED: subsets by {_called(column)} for {len(lost)} of {len(plan.synthetic_of(FIDELITY))} "
            f"synthetic sets ({listed(lost, FIRST)}): {'; '.join(next(iter(lost.values())).values())}"
        )
    found.raise_all()
    used = {key for label in plan.encoders_of(FIDELITY) for key in plan.metrics_of(label)}
    least = {key: max(1, int(getattr(plan.metrics[key], "min_samples", 1))) for key in plan.metrics if key in used}
    return [*notes, *_too_few([cut for cut in cuts if not cut.why], least)]


def _refuse_groups(plan: Plan, column: str, lost: Mapping[str, Mapping[str, str]]) -> None:
    """Raises ConfigError for subsets that no synthetic set can be cut into."""
    why = next(iter(lost.values()))
    first = next(each for each in plan.sets_of(FIDELITY) if each.name in why)
    key, further = first.key or first.origin, _columns_of(first)
    if column != "labels":
        move = f"Give {key} a table with that column"
    elif further:
        move = f"Name their column in {key}.columns.labels (its columns: {listed(further, 8)})"
        if first.origin == "synthetic":
            move += f", or that of prompts which real images have too, in {key}.columns.prompt"
    else:
        move = f"Give {key} a table of its images with a column of labels"
        move += ", or of prompts which real images have too" if first.origin == "synthetic" else ""
    if column == "labels" and first.unread_labels:
        move = first.name_labels.rstrip(".")
    raise ConfigError(
        f"subsets by {_called(column)} cannot be computed: {'; '.join(why.values())}. {move}; or leave them out of "
        "`subsets`."
    )


def _called(column: str) -> str:
    return "finding" if column == "labels" else quoted(column, 60)


def _too_few(cuts: list[_Cut], least: Mapping[str, int]) -> list[str]:
    """Notes on metrics and on subsets with too few images. least: {metric: images that it needs on each side}.

    Raises ConfigError where no metric has enough of any subset.
    """
    fewest, largest = min(least.values(), default=1), max(cuts, key=lambda cut: cut.n, default=None)
    if largest is not None and largest.n < fewest:
        raise ConfigError(
            f"the fidelity suite would compute no number: the largest subset, {shown(largest.subset.name)}, has "
            f"{largest.n_real} real and {largest.n_synthetic} synthetic images, and {listed(least)} need at least "
            f"{fewest} of each. Give more images, or raise limit."
        )
    notes = []
    whole = [cut for cut in cuts if not cut.subset.column] or cuts
    for key, needed in least.items():
        short = [cut for cut in whole if cut.n < needed]
        if short and needed > fewest:
            notes.append(
                f"TOO FEW IMAGES for {key}: {short[0].n_real} real and {short[0].n_synthetic} synthetic in "
                f"{shown(short[0].synthetic)}, and it needs at least {needed} of each; it will give no number"
            )
    every = dict.fromkeys(cut.subset.name for cut in cuts)
    empty = dict.fromkeys(cut.subset.name for cut in cuts if cut.n < fewest)
    if empty:
        notes.append(
            f"TOO FEW IMAGES in {len(empty)} of {len(every)} subsets ({listed(empty, FIRST)}): fewer than {fewest} "
            "real or synthetic ones; they will have no number"
        )
    return notes


def _columns_of(manifest: Manifest) -> list[str]:
    """A table's own columns; [] for a folder of images, which has the names of its files alone."""
    own = [name for name in manifest.table.column_names if name not in RESERVED]
    return [] if own == ["file_name"] else own


def _unseen_prompts(plan: Plan) -> list[str]:
    """A note for each table in which no prompt column was recognised, where prompts are asked for."""
    grouped = plan.has(FIDELITY) and any(subset.column == "labels" for subset in plan.subsets)
    paired = plan.has(UTILITY) or (plan.has(PRIVACY) and plan.config.privacy.pairs in ("auto", "same_prompt"))
    notes = []
    for manifest in plan.sets:
        bare = manifest.table["prompt"].null_count == len(manifest)
        further = _columns_of(manifest)
        lacks_labels = manifest.table["labels"].null_count == len(manifest)
        if bare and further and (paired or (grouped and lacks_labels and manifest.origin == "synthetic")):
            notes.append(
                f"{shown(manifest.name)}: no column of prompts was recognised among {listed(further, 8)}; if one holds "
                f"them, name it in {manifest.setting('columns.prompt')}"
            )
    return notes


def check_prompts(sets: Sequence[Manifest]) -> None:
    """Raises ConfigError where images are to be paired by prompt and a set has none."""
    for manifest in sets:
        if manifest.table["prompt"].null_count < len(manifest):
            continue
        key, further = manifest.key or manifest.origin, _columns_of(manifest)
        move = "Give a table of its images with a column of prompts"
        if further:
            move = f"Name their column in {key}.columns.prompt (its columns: {listed(further, 8)})"
        raise ConfigError(
            f"privacy.pairs is same_prompt, and no prompts were recognised in {key} ({shown(manifest.name)}). {move}, "
            "or leave privacy.pairs out."
        )


def privacy_remarks(plan: Plan) -> tuple[str, ...]:
    """Notes on what the privacy suite will leave out or cannot do as well as it might."""
    config, roles, preset = plan.config, plan.roles, plan.protocol
    if not plan.has(PRIVACY):
        return ()
    remarks = []
    if not roles.reid:
        remarks.append("no re-identification: give --reid-weights, or an encoder such as siamese_reid")
    if not roles.search:
        remarks.append("no search for copies: no encoder of the suite can search; add rad_dino, pixels or patches")
    elif plan.heldout is None:
        remarks.append(
            "no held-out set: the baseline of the search for copies comes from the training patients; give --heldout "
            "for a sharper test"
        )
    for item in config.encoders:
        shared = len(plan.suites_of.get(item.label, ())) > 1  # one that is not installed may be skipped
        if shared and preset.privacy_encoder_options.get(item.name) != preset.encoder_options.get(item.name):
            remarks.append(
                f"{item.label}: its privacy numbers use fidelity's preprocessing, and {preset.name} has another for "
                f"privacy. To have both, list {item.name} twice, with ids and suites: [fidelity] and suites: [privacy]"
            )
    if config.suite == [PRIVACY] and config.training and config.heldout and config.real:
        remarks.append("the real set is not used: privacy reads training and heldout")
    return tuple(remarks)
