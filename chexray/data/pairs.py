"""The pairs of two sets: which images are unpaired, which prompts lack or repeat seeds, and what rejects take away.

A pair is one synthetic image beside the real image it may have copied. `prompt_id` groups the pairs of one prompt over
its seeds. It is the sample_id of the real image and never the prompt, which may be a patient's report.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from chexray.data.manifest import Manifest
from chexray.data.matching import is_in
from chexray.data.values import codes, identified, is_id_like
from chexray.text import shown

SCHEMA = pa.schema([(name, pa.string()) for name in ("real_id", "synthetic_id", "prompt_id", "seed")])

UNPAIRED_SCHEMA = pa.schema([("synthetic_id", pa.string()), ("reason", pa.string())])

_SHOWN = 3


@dataclass(frozen=True)
class Pairs:
    """The pairs of two sets: `table` has SCHEMA, sorted by prompt_id and synthetic_id; `seed` may be null.

    how: "same_prompt", "same_id", "given", "none" or "other_patients". notes: lines to show the user.
    unpaired: the synthetic images that are in no pair, each with the reason.
    """

    how: str
    table: pa.Table
    unpaired: pa.Table
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.table)


def restrict(pairs: Pairs, real_ids: Iterable[str], synthetic_ids: Iterable[str]) -> Pairs:
    """The pairs whose two images are among the ids given, those that could be read; a note counts what was lost."""
    real_there, synthetic_there = (
        is_in(pairs.table[column], pa.array(list(ids), pa.string()))
        for column, ids in (("real_id", real_ids), ("synthetic_id", synthetic_ids))
    )
    keep = real_there & synthetic_there
    if keep.all():
        return pairs
    table = pairs.table.filter(pa.array(keep))
    lost = pairs.table.filter(pa.array(~keep))
    n_prompts = int((~is_in(lost["prompt_id"].unique(), table["prompt_id"])).sum())
    tail = f"; {n_prompts} prompts lost all their pairs" if n_prompts else ""
    n_real, n_synthetic = (
        len(pairs.table[column].filter(pa.array(~there)).unique())
        for column, there in (("real_id", real_there), ("synthetic_id", synthetic_there))
    )
    note = (
        f"{len(lost)} of {len(pairs)} pairs lost with {n_real} real and {n_synthetic} synthetic images rejected{tail}"
    )
    why = np.where(synthetic_there, "the real image of its pair was rejected", "it was rejected")[~keep]
    alone = ~is_in(lost["synthetic_id"], table["synthetic_id"])
    once = np.zeros(len(lost), dtype=bool)
    once[np.unique(codes(lost["synthetic_id"]), return_index=True)[1]] = True
    unpaired = pa.concat_tables([pairs.unpaired, unpaired_table(lost["synthetic_id"], alone & once, why)])
    usual = _usual(pairs.table)
    notes = [*(line for line in pairs.notes if line != _lacking(pairs.table, usual)), note, _lacking(table, usual)]
    return replace(pairs, table=table, unpaired=unpaired, notes=tuple(line for line in notes if line))


def no_pairs(synthetic: Manifest, note: str) -> Pairs:
    why = np.full(len(synthetic), "no pairs were made", dtype=object)
    alone = np.ones(len(synthetic), dtype=bool)
    unpaired = unpaired_table(synthetic.table["sample_id"], alone, why)
    return Pairs("none", SCHEMA.empty_table(), unpaired, (note,))


def finished(how: str, table: pa.Table, unpaired: pa.Table, notes: Sequence[str], n_synthetic: int) -> Pairs:
    """Sorted pairs with the notes every way of pairing has: what is unpaired, what lacks seeds or repeats them."""
    table = table.sort_by([("prompt_id", "ascending"), ("synthetic_id", "ascending"), ("real_id", "ascending")])
    table = table.combine_chunks()
    notes = list(notes)
    for reason in unpaired["reason"].unique().to_pylist():
        ids = unpaired.filter(pc.field("reason") == reason)["synthetic_id"]
        first = ", ".join(_id(name) for name in ids[:_SHOWN].to_pylist())
        notes.append(f"{len(ids)} of {n_synthetic} synthetic images are in no pair: {reason}; first {first}")
    notes.append(_lacking(table, _usual(table)))
    seeded = table.filter(table["seed"].is_valid())
    keys = seeded.select(["prompt_id", "real_id", "seed"]).group_by(["prompt_id", "real_id", "seed"], use_threads=False)
    repeats = keys.aggregate([([], "count_all")])
    n_repeats = len(repeats.filter(pc.field("count_all") > 1)["prompt_id"].unique())
    if n_repeats:
        notes.append(f"{n_repeats} prompts name a seed more than once: fewer independent images than pairs")
    return Pairs(how, table, unpaired, tuple(line for line in notes if line))


def unpaired_table(ids: pa.ChunkedArray, alone: np.ndarray, why: np.ndarray) -> pa.Table:
    reasons = pa.array([str(reason) for reason in why[alone]], pa.string())
    return pa.table([ids.filter(pa.array(alone)), reasons], schema=UNPAIRED_SCHEMA)


def _usual(table: pa.Table) -> int:
    """The number of pairs that most prompts have; the larger of two that are equally common."""
    if not len(table):
        return 0
    prompts_with = np.bincount(np.bincount(codes(table["prompt_id"])))
    return int(np.flatnonzero(prompts_with == prompts_with.max())[-1])


def _lacking(table: pa.Table, usual: int) -> str:
    """A line when some prompts have fewer pairs than `usual`, with the first of them; "" when none has."""
    if not len(table):
        return ""
    prompts = codes(table["prompt_id"])
    counts = np.bincount(prompts)
    short = np.flatnonzero(counts < usual)
    if not len(short):
        return ""
    first = table["prompt_id"][int(np.argmax(prompts == short[0]))].as_py()
    return (
        f"{len(short)} of {len(counts)} prompts lack seeds: {usual} expected, "
        f"{counts[short[0]]} found first at {identified(first)}"
    )


def _id(name: str) -> str:
    """A sample_id for a note: without quotes where nobody needs them."""
    return shown(name) if is_id_like(name) else identified(name)
