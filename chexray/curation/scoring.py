"""From the verdicts on an audit's specimens to its scores, as rows of the results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from chexray.curation.specimens import ORIGINALS, PLANTED, TWINS, UNSEEN, Specimens, patient_codes, prompt_codes
from chexray.data.manifest import Manifest
from chexray.metrics.base import Score
from chexray.plan import Plan
from chexray.privacy.audit import audit_scores
from chexray.privacy.augmentations import AUGMENTATIONS
from chexray.privacy.outputs import CONSISTENCY, IDENTITY, SENSITIVITY, SPECIFICITY, sensitivity_to
from chexray.results.identity import set_name
from chexray.run.directory import now
from chexray.run.evaluation import Run
from chexray.suite_names import PRIVACY
from chexray.suites.common import score_row

DUPLICATE = "duplicate"
"""What the reasons of the duplicate search begin with; all others begin with the label of an encoder."""

Verdicts = dict[str, set[str]]
"""{sample_id: the parts of the filter that flagged it}; an image that could not be judged is not there."""


def audit_rows(
    specimens: Specimens, run: Run, verdicts: pa.Table
) -> tuple[list[Score], list[dict[str, object]], list[str]]:
    """(scores, their rows, notes) of the verdicts on the specimens, verdicts.parquet of their run.

    An original counts when all its planted copies were judged, a twin when its image was judged too. about a row:
    `n_flagged_by`, {part of the filter: how many of the images it flagged by itself}.
    """
    plan = specimens.plan
    parts = parts_of(plan)
    of = {name: _verdicts(verdicts, name, parts) for name in (PLANTED, UNSEEN, ORIGINALS, TWINS)}
    originals = [one for one, copies in specimens.planted.items() if set(copies.values()) <= set(of[PLANTED])]
    planted = {name: [of[PLANTED][specimens.planted[one][name]] for one in originals] for name in AUGMENTATIONS}
    unseen = list(of[UNSEEN])
    twins = [(one, twin) for one, twin in specimens.twins.items() if one in of[ORIGINALS] and twin in of[TWINS]]
    assert plan.training is not None
    scores = audit_scores(
        {name: _flags(found) for name, found in planted.items()},
        _flags(of[UNSEEN].values()),
        np.array([[bool(of[ORIGINALS][one]), bool(of[TWINS][twin])] for one, twin in twins], bool).reshape(-1, 2),
        planted_subjects=_of(plan.training, patient_codes(plan.training), originals),
        unseen_subjects=_of(specimens.set_of(UNSEEN), patient_codes(specimens.set_of(UNSEEN)), unseen),
        twin_subjects=_of(
            specimens.set_of(ORIGINALS), prompt_codes(specimens.set_of(ORIGINALS)), [t[0] for t in twins]
        ),
    )
    changed = [found for name in planted if name != IDENTITY for found in planted[name]]
    judged = {
        **{sensitivity_to(name): (PLANTED, found) for name, found in planted.items()},
        SENSITIVITY: (PLANTED, changed),
        SPECIFICITY: (UNSEEN, list(of[UNSEEN].values())),
        CONSISTENCY: (TWINS, [of[TWINS][twin] for _, twin in twins]),
    }
    created_at = now()
    rows = []
    for score in scores:
        name, found = judged[score.output]
        about = {**score.about, "n_flagged_by": {part: sum(part in each for each in found) for part in parts}}
        if score.output == CONSISTENCY and "n_patients" in about:
            about["n_prompts"] = about.pop("n_patients")
        rejected = run.rejects["set"].tolist().count(name)
        rows.append(
            score_row(
                plan, replace(score, about=about), suite=PRIVACY,
                real=plan.training, synthetic=specimens.set_of(name),
                n_real=len(plan.training), n_synthetic=len(found), n_rejected=rejected, created_at=created_at,
            )
        )  # fmt: skip
    lost = specimens.unreadable + len(specimens.planted) - len(originals) + len(specimens.twins) - len(twins)
    notes = [f"{lost} originals are left out: they or their copies could not be read"] if lost else []
    return scores, rows, notes


def parts_of(plan: Plan) -> list[str]:
    """The parts of the filter by what their reasons begin with: labels of encoders, and DUPLICATE."""
    return [*plan.roles.search, *([DUPLICATE] if plan.roles.duplicates else []), *plan.roles.reid]


def _verdicts(table: pa.Table, name: str, parts: Sequence[str]) -> Verdicts:
    found = {}
    for row in table.to_pylist():
        if set_name(row["synthetic_set"]) == name and row["flagged"] is not None:
            by = {part for part in parts if any(reason.startswith(f"{part}: ") for reason in row["reasons"])}
            # A reason of no known part still is a flag.
            found[row["sample_id"]] = by or ({""} if row["flagged"] else set())
    return found


def _flags(found: Iterable[set[str]]) -> np.ndarray:
    return np.array([bool(each) for each in found], bool)


def _of(manifest: Manifest, values: np.ndarray | None, ids: Sequence[str]) -> np.ndarray | None:
    """The values of some images of a set, (n,) int64."""
    if values is None:
        return None
    row = {sample_id: i for i, sample_id in enumerate(manifest.table["sample_id"].to_pylist())}
    return values[[row[each] for each in ids]].astype(np.int64)
