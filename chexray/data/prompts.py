"""Labels and columns that synthetic images take from the real images of their prompt.

A synthetic table often has no column but the prompt.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from chexray.data import labels as label_policies
from chexray.data.manifest import Manifest
from chexray.data.matching import resolve
from chexray.data.schema import RESERVED
from chexray.data.values import codes as codes_of
from chexray.data.values import is_identifier
from chexray.errors import ConfigError
from chexray.findings import FINDINGS
from chexray.text import listed, quoted, shown


def inherit_by_prompt(synthetic: Manifest, real: Manifest, *, mode: str = "agree") -> Manifest:
    """The synthetic set with labels and columns it lacks taken from the real images of the same prompt.

    mode "agree": a value counts only when all real images of the prompt share it; what they differ in is null, finding
    by finding, and is counted in the notes. mode "first": the first such row of the real table, as in upstream
    CheXGenBench (fid.py:214). Labels fill the rows that have none; other columns come only when the synthetic table has
    no such column. Prompts, ids and paths are never taken. Without prompts on either side nothing changes.
    """
    if mode not in ("agree", "first"):
        raise ConfigError(f"inherit: {quoted(mode)} is not one of agree, first.")
    prompts, real_prompts = synthetic.table["prompt"], real.table["prompt"]
    if not len(real) or prompts.null_count == len(prompts) or real_prompts.null_count == len(real_prompts):
        return synthetic
    groups = _Groups.of(real, prompts)
    table, notes, taken = synthetic.table, [], []
    lacking = table["labels"].is_null().to_numpy()
    if lacking.any() and real.table["labels"].null_count < len(real):
        codes, ambiguous = groups.take_codes(label_policies.to_codes(real.table["labels"]), mode)
        merged = label_policies.to_codes(table["labels"])
        merged[lacking] = codes[lacking]
        column = label_policies.from_codes(merged)
        table = table.set_column(table.column_names.index("labels"), "labels", column)
        n_labelled = int(lacking.sum()) - column.null_count
        n_ambiguous = int((ambiguous & lacking).sum())
        tail = (
            f", {n_ambiguous} of them ambiguous in some finding, which then counts as unmentioned"
            if n_ambiguous
            else ""
        )
        notes.append(f"labels of {n_labelled} images come from {shown(real.name)} by prompt ({mode}){tail}")
    own, present = set(real.roles.values()), set(table.column_names)
    fields, columns = list(table.schema), list(table.columns)
    for name in real.table.column_names:
        if name in RESERVED or name in own or is_identifier(name) or name in present:
            continue
        column, n_ambiguous = groups.take(real.table[name], mode)
        if column.null_count == len(column):  # no prompt is shared: another real set may have them
            continue
        fields.append(real.table.schema.field(name))
        columns.append(column)
        taken.append(f"{shown(name, 40)} ({n_ambiguous} ambiguous)" if n_ambiguous else name)
    if taken:
        table = pa.Table.from_arrays(columns, schema=pa.schema(fields, metadata=table.schema.metadata))
        notes.append(f"{listed(taken)} come from {shown(real.name)} by prompt ({mode})")
    return replace(synthetic, table=table, notes=(*synthetic.notes, *notes)) if notes else synthetic


def inherit_by_id(synthetic: Manifest, real: Manifest) -> Manifest:
    """The synthetic set with prompts, labels and columns that it lacks, of the real image that each sample_id names.

    Prompts and labels fill the images that have none. Ids, patients and paths are never taken. Without a shared id
    nothing changes.
    """
    index = resolve(synthetic.table["sample_id"], real)
    rows, table, taken = pa.array(np.maximum(index, 0), mask=index < 0), synthetic.table, []
    n = int((index >= 0).sum())
    if not n:
        return synthetic
    for name in ("prompt", "labels"):
        column, found = table[name], real.table[name].take(rows)
        filled = int((column.is_null().to_numpy() & found.is_valid().to_numpy()).sum())
        if not filled:
            continue
        if name == "labels":
            codes, others = label_policies.to_codes(column), label_policies.to_codes(found)
            lacking = column.is_null().to_numpy()
            codes[lacking] = others[lacking]
            merged = label_policies.from_codes(codes)
        else:
            merged = pc.call_function("coalesce", [column, found])
        table = table.set_column(table.column_names.index(name), table.schema.field(name), merged)
        taken.append(f"{name} ({filled:,})")
    both = [each.fill_null("") for each in (synthetic.table["prompt"], real.table["prompt"].take(rows))]
    unlike = pc.call_function("not_equal", both).to_numpy() & synthetic.table["prompt"].is_valid().to_numpy()
    differ = int((unlike & (index >= 0)).sum())
    own = set(real.roles.values()) - set(real.roles)
    for name in real.table.column_names:
        if name in RESERVED or name in own or is_identifier(name) or name in table.column_names:
            continue
        table = table.append_column(real.table.schema.field(name), real.table[name].take(rows))
        taken.append(name)
    note = f"{n:,} of {len(synthetic):,} images are named after images of {shown(real.name)}"
    note += f"; {listed(taken)} come from them" if taken else ""
    note += f"; {differ:,} have another prompt than these: check that the two belong together" if differ else ""
    return replace(synthetic, table=table, notes=(*synthetic.notes, note))


def labels_of_prompts(synthetic: Manifest, real: Manifest) -> Manifest:
    """The synthetic set with the labels of the first real image of each prompt in place of its own.

    What upstream CheXGenBench's conditional metrics take for them (fid.py:214): images whose prompt no real image
    has get none. Unchanged where the two sets share no prompt.
    """
    known = set(real.table["prompt"].to_pylist()) - {None}
    if known.isdisjoint(synthetic.table["prompt"].to_pylist()):
        return synthetic
    place, field = synthetic.table.column_names.index("labels"), synthetic.table.schema.field("labels")
    bare = synthetic.table.set_column(place, field, pa.nulls(len(synthetic), field.type))
    return inherit_by_prompt(replace(synthetic, table=bare), real, mode="first")


def deduplicate_prompts(manifest: Manifest) -> Manifest:
    """The set reduced to the first image of each distinct prompt, in the order of the table.

    What upstream CheXGenBench does to the real set (fid.py:170); images without a prompt count as one prompt, as they
    do there. The rows left out are counted in `excluded["duplicate_prompt"]`.
    """
    if not len(manifest) or manifest.table["prompt"].null_count == len(manifest):
        return manifest
    codes = codes_of(manifest.table["prompt"])
    rows = manifest.table["row"].to_numpy()
    in_file_order = np.argsort(rows, kind="stable")
    _, first = np.unique(codes[in_file_order], return_index=True)
    keep = np.sort(in_file_order[first])
    dropped = len(manifest) - len(keep)
    if not dropped:
        return manifest
    excluded = {**manifest.excluded, "duplicate_prompt": manifest.excluded.get("duplicate_prompt", 0) + dropped}
    return replace(manifest, table=manifest.table.take(keep), excluded=excluded)


@dataclass(frozen=True)
class _Groups:
    """Rows of the real table by prompt, and the group each synthetic row belongs to (-1: no real image has its prompt).

    order: real rows, grouped by prompt and in file order inside a group. start: first position of each group in it.
    """

    order: np.ndarray
    start: np.ndarray
    group: np.ndarray

    @classmethod
    def of(cls, real: Manifest, prompts: pa.ChunkedArray) -> _Groups:
        real_prompts = real.table["prompt"].to_pylist()
        # A null prompt is nobody's: it must not be matched with another null.
        number = {prompt: index for index, prompt in enumerate(dict.fromkeys(p for p in real_prompts if p is not None))}
        codes = np.array([number.get(prompt, -1) for prompt in real_prompts])
        order = np.lexsort((real.table["row"].to_numpy(), codes))
        order = order[codes[order] >= 0]
        start = np.searchsorted(codes[order], np.arange(len(number)))
        return cls(order, start, np.array([number.get(prompt, -1) for prompt in prompts.to_pylist()]))

    def _shared(self, codes: np.ndarray) -> np.ndarray:
        """(groups, ...) bool: all rows of the group have the same code."""
        ordered = codes[self.order]
        return np.equal(np.minimum.reduceat(ordered, self.start), np.maximum.reduceat(ordered, self.start))

    def take(self, column: pa.ChunkedArray, mode: str) -> tuple[pa.ChunkedArray, int]:
        """The column for the synthetic rows, and how many of them are null because real rows differ."""
        known = self.group >= 0
        shared = self._shared(codes_of(column)) if mode == "agree" else np.ones(len(self.start), dtype=bool)
        usable = known & shared[self.group]
        index = pa.array(np.where(usable, self.order[self.start[self.group]], 0), mask=~usable)
        return column.take(index), int((known & ~usable).sum())

    def take_codes(self, codes: np.ndarray, mode: str) -> tuple[np.ndarray, np.ndarray]:
        """(n, 14) label codes for the synthetic rows, and which of them are ambiguous in some finding."""
        first = codes[self.order[self.start]]
        ambiguous: np.ndarray = np.zeros(len(first), dtype=bool)
        if mode == "agree":
            shared = self._shared(codes)
            ambiguous = np.asarray(~shared.all(axis=1))
            first = np.where(shared, first, np.int8(label_policies.NOT_MENTIONED))
            first[~shared.any(axis=1)] = label_policies.UNLABELLED
        out = np.full((len(self.group), len(FINDINGS)), label_policies.UNLABELLED, dtype=np.int8)
        known = self.group >= 0
        out[known] = first[self.group[known]]
        return out, known & ambiguous[self.group]
