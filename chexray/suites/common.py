"""What suites share: what they are given, what they return, and how a number becomes a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from chexray import __version__
from chexray.data.manifest import Manifest
from chexray.data.matching import is_in
from chexray.data.schema import REJECT_SCHEMA
from chexray.engine.features import FeatureStore, StoreIndex
from chexray.engine.pools import Resources
from chexray.engine.progress import Progress
from chexray.metrics.base import Score
from chexray.plan import Plan
from chexray.suite_names import FIDELITY
from chexray.text import shown

CANNOT_SEE = "note_encoder_cannot_see"
"""Where fidelity rows say what their encoder cannot see, in its own words."""


@dataclass(frozen=True)
class Context:
    """What a suite works on. done: {encoder label: what its store holds}; progress(stage, unit, total): a new line."""

    plan: Plan
    store: FeatureStore
    done: dict[str, StoreIndex]
    workers: int
    created_at: str
    rejects: pa.Table
    progress: Callable[[str, str, int], Progress]
    resources: Resources


@dataclass
class Outcome:
    """What a suite returns: rows of the results, side tables by file stem, further files by name, notes, and tracebacks
    of what failed."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    tables: dict[str, pa.Table] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def add(self, other: Outcome) -> None:
        """Takes over everything the other holds."""
        self.rows += other.rows
        self.tables.update(other.tables)
        self.files.update(other.files)
        self.notes += other.notes
        self.failures += other.failures


SETS = ("synthetic_set", "other_set")
"""Columns of side tables that name a set of the run."""


def with_set_names(plan: Plan, outcome: Outcome) -> Outcome:
    """The outcome with sets spelled in its tables as in the results, name@fingerprint, so that tables join."""
    names = {manifest.name: set_name(manifest) for manifest in plan.sets}
    for stem, table in outcome.tables.items():
        for column in [name for name in SETS if name in table.column_names]:
            spelled = [names.get(name, name) for name in table[column].to_pylist()]
            place, kind = table.column_names.index(column), table.schema.field(column)
            table = table.set_column(place, kind, pa.array(spelled, pa.string()))
        outcome.tables[stem] = table
    return outcome


def set_name(manifest: Manifest | None) -> str:
    """The set as results name it: name@fingerprint; empty for none."""
    return "" if manifest is None else f"{manifest.name}@{manifest.fingerprint}"


def result_row(
    context: Context,
    score: Score,
    *,
    suite: str,
    real: Manifest,
    synthetic: Manifest | None,
    encoder: str = "",
    method: dict[str, Any] | None = None,
    about: dict[str, Any] | None = None,
    also: Manifest | None = None,
    **counts: Any,
) -> dict[str, Any]:
    """A score as a row of the results schema. encoder: a label of the plan, or "" for a number that has none.

    also: a further set that entered it, whose rejects count too. counts: n_real and n_synthetic, and the subset.
    """
    unseen = context.plan.encoders[encoder][1].cannot_see if encoder and suite == FIDELITY else ""
    said = {CANNOT_SEE: unseen} if unseen else {}
    score = replace(score, method={**(method or {}), **score.method}, about={**said, **(about or {}), **score.about})
    lost = rejects_by_set(context)
    counts["n_rejected"] = sum(lost.get(each.name, 0) for each in (real, synthetic, also) if each is not None)
    named = {"suite": suite, "real": real, "synthetic": synthetic, "encoder": encoder}
    return score_row(context.plan, score, **named, **counts, created_at=context.created_at)


def rejects_by_set(context: Context) -> dict[str, int]:
    """{set: how many of its images were rejected}, for sets that lost any."""
    counted = context.rejects["set"].value_counts()
    return {each["values"]: each["counts"] for each in counted.to_pylist()}


def rejected_by_set(context: Context) -> list[str]:
    """A note on the sets whose images were rejected, since a row counts those of both its sides."""
    lost = rejects_by_set(context)
    counts = {item.name: (item.origin, lost[item.name]) for item in context.plan.sets if item.name in lost}
    parts = [f"{n:,} of {origin} set {shown(name)}" for name, (origin, n) in counts.items()]
    return [f"rejected images: {', '.join(parts)}; rejects.parquet says why"] if parts else []


_OF_SCORE = (
    "metric", "value", "std_error", "ci_low", "ci_high", "std_error_method", "better", "real_floor",
    "real_floor_std_error", "beyond_floor", "status", "reason",
)  # fmt: skip
"""Fields of a row that are those of its score."""


def score_row(
    plan: Plan,
    score: Score,
    *,
    suite: str,
    real: Manifest,
    synthetic: Manifest | None,
    n_real: int,
    n_synthetic: int,
    n_rejected: int,
    created_at: str,
    encoder: str = "",
    subset: str = "all",
) -> dict[str, Any]:
    """The same for a score whose rejects are counted already."""
    depths = {each.name: str(each.depth) for each in (real, synthetic) if each and each.depth and each.depth.bits}
    method, about = score.method, score.about | ({"note_depth": depths} if depths else {})
    about |= {"note_card": synthetic.card} if synthetic is not None and synthetic.card else {}
    row = {name: getattr(score, name) for name in _OF_SCORE} | {
        "suite": suite, "encoder": encoder, "encoder_revision": "", "weights": "", "weights_sha256": "",
        "subset": subset, "n_real": n_real, "n_synthetic": n_synthetic, "n_rejected": n_rejected,
        "real_set": set_name(real), "synthetic_set": set_name(synthetic), "protocol": plan.protocol.name,
        "method": method, "about": about, "declared": score.output.declared, "run_id": plan.run_id,
        "seed": plan.config.seed, "chexray_version": __version__, "created_at": created_at,
    }  # fmt: skip
    if encoder:
        spec = plan.encoders[encoder][1]
        given = spec.options_in_words
        checked = plan.precision.get(encoder)
        # A precision that a check allows moves no number that matters: the rows compare with those of fp32.
        revision = replace(spec, precision="fp32") if checked else spec
        row["encoder_revision"] = f"{spec.preprocessing}+{revision.fingerprint}"
        row["weights"], row["weights_sha256"] = spec.weights, spec.weights_sha256
        said = {"note_encoder": given} if given else {}
        if spec.weights_sha256:  # a network
            said["encoder_precision"] = spec.precision
        if checked and checked.figures:
            said |= {"precision_check": checked.figures, "note_precision": checked.words}
        row["about"] = {**about, **plan.likeness(encoder), **said}
        row["method"] = {**method, **({"encoder_plugin": spec.code} if spec.code else {})}
    return row


def own_codes(column: pa.ChunkedArray) -> np.ndarray | None:
    """Codes (n,) int64, equal for equal values; a null is unlike any other. None when all are null."""
    if column.null_count == len(column):
        return None
    encoded = column.combine_chunks().dictionary_encode()
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    unknown = np.flatnonzero(codes < 0)
    codes[unknown] = len(encoded.dictionary) + np.arange(len(unknown))
    return codes


def shared_codes(columns: Sequence[pa.ChunkedArray]) -> list[np.ndarray | None]:
    """Codes (n,) int64 of each column, equal for equal texts in any of them; -1 for a null, None for all nulls.

    Runs of blanks, line ends among them, count as one blank: the same text comes out of two files in both ways.
    """
    code_of: dict[str, int] = {}
    found: list[np.ndarray | None] = []
    for column in columns:
        texts = [None if text is None else " ".join(text.split()) or None for text in column.to_pylist()]
        codes = [-1 if text is None else code_of.setdefault(text, len(code_of)) for text in texts]
        found.append(np.array(codes, dtype=np.int64) if any(code >= 0 for code in codes) else None)
    return found


def shared_units(columns: Sequence[pa.ChunkedArray]) -> list[np.ndarray | None]:
    """The same with a code of its own for each null: an image of an unnamed patient is like no other."""
    found = shared_codes(columns)
    next_code = 1 + max((int(codes.max()) for codes in found if codes is not None), default=-1)
    for codes in found:
        if codes is not None:
            unknown = np.flatnonzero(codes < 0)
            codes[unknown] = next_code + np.arange(len(unknown))
            next_code += len(unknown)
    return found


def collect_rejects(plan: Plan, done: dict[str, StoreIndex]) -> pa.Table:
    """One row an image and reason, over the manifests' own rejects and the stores'."""
    images, tables = plan.images, []
    lost = {label: images.mask(label) & ~store.encoded(images.keys) for label, store in done.items()}
    for manifest in plan.sets:
        tables.append(manifest.rejects.select(REJECT_SCHEMA.names).cast(REJECT_SCHEMA))
        keys = manifest.table["image_key"].combine_chunks()
        at = images.places(keys)
        first = np.full(len(keys), -1)  # the first encoder that lacks the image
        for number, label in reversed(list(enumerate(done))):
            first[lost[label][at]] = number
        rows, stores = [], list(done.values())
        for place in np.flatnonzero(first >= 0):
            image = {name: manifest.table[name][int(place)].as_py() for name in ("sample_id", "uri", "image_key")}
            reason = stores[first[place]].rejects[image["image_key"]]
            rows.append({"set": manifest.name, **image, **{name: reason[name] for name in _REASON}})
        tables.append(pa.Table.from_pylist(rows, schema=REJECT_SCHEMA))
    return pa.concat_tables(tables).combine_chunks()


def clipped_of(plan: Plan, done: dict[str, StoreIndex]) -> dict[str, int]:
    """{set: its images with values beyond its depth, which were cut off}, for sets that have any."""
    clipped = set().union(*(store.clipped for store in done.values()))
    named = pa.array(sorted(clipped), pa.string())
    counts = {item.name: int(is_in(item.table["image_key"].unique(), named).sum()) for item in plan.sets}
    return {name: count for name, count in counts.items() if count}


_REASON = ("stage", "code", "detail", "transient")
