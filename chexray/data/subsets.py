"""Subsets of a run: all images, images with a finding, or images with a value in any column of the tables.

Both sets are cut by the same rule, so a subset compares like with like. A synthetic table often has no column but the
prompt: `inherit_by_prompt` then takes labels and columns from the real images of that prompt.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from chexray.data import labels as label_policies
from chexray.data.manifest import RESERVED, Manifest
from chexray.data.values import as_numbers, as_text, is_id_like, is_identifier, nearest
from chexray.data.values import codes as codes_of
from chexray.errors import ConfigError
from chexray.findings import FINDINGS
from chexray.text import listed, quoted, shown

MAX_NUMBERS = 20
"""Distinct numbers a column may have before it needs bins."""

MAX_VALUES = 100
"""Distinct texts a column may have: more is a column of ids or prompts, not of groups."""


@dataclass(frozen=True)
class Subset:
    """One group of images. `name` is what results call it: "all", "finding:Edema", "sex:F", "age:40-60".

    column: "" for all, "labels" for a finding (then `value` is its name), otherwise a column of the tables.
    value: the value wanted, as text. bins: [low, high) with None for an open end, for a column of numbers.
    """

    name: str
    column: str = ""
    value: str | None = None
    bins: tuple[float | None, float | None] | None = None


ALL = Subset("all")


def expand(requested: Sequence[str | dict[str, Any]], real: Manifest, synthetic: Sequence[Manifest]) -> list[Subset]:
    """The subsets a run asks for, in the order asked, each once.

    "all"; "findings" (one a finding); a column name (one a value found in any set); "sex:F" or "finding:Edema" (just
    that one); {"column": "age", "bins": [40, 60, 80]} (age:<40, age:40-60, age:60-80, age:>=80).
    Raises ConfigError for an unknown name, with the nearest, and for a column that has too many values.
    """
    found: dict[str, Subset] = {}
    for item in requested:
        for subset in _expand_one(item, [real, *synthetic]):
            found.setdefault(subset.name, subset)
    return list(found.values())


def members(manifest: Manifest, subset: Subset, label_policy: str = "u_zeros") -> np.ndarray | str:
    """Which rows of the manifest belong to the subset, (n,) bool; or the reason why nobody can know, as text.

    A row whose value is null belongs to no subset of that column. A finding means positive under `label_policy`.
    """
    who = f"{manifest.origin} set {quoted(manifest.name)}"
    if not subset.column:
        return np.ones(len(manifest), dtype=bool)
    if subset.column == "labels":
        if manifest.table["labels"].null_count == len(manifest):
            return f"{who} has no labels"
        groups = label_policies.apply(manifest.table["labels"], label_policy)
        return groups[:, FINDINGS.index(str(subset.value))] == 1
    if subset.column not in manifest.table.column_names:
        return f"{who} has no column {quoted(subset.column)}"
    column = manifest.table[subset.column]
    if column.null_count == len(column):
        return f"{who} has no value in column {quoted(subset.column)}"
    if subset.bins is None:
        return np.array([text == subset.value for text in as_text(column).to_pylist()], dtype=bool)
    numbers = as_numbers(column)
    if numbers is None:
        return f"column {quoted(subset.column)} of {who} is not numeric"
    low, high = (
        edge if edge is not None else infinite for edge, infinite in zip(subset.bins, (-np.inf, np.inf), strict=True)
    )
    return (numbers >= low) & (numbers < high)


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


def _expand_one(item: str | dict[str, Any], sets: Sequence[Manifest]) -> list[Subset]:
    if isinstance(item, dict):
        unknown = set(item) - {"column", "bins"}
        if unknown or "column" not in item:
            raise ConfigError(f"subsets: expected {{column: NAME, bins: [EDGE, ...]}}, found the keys {listed(item)}.")
        name = str(item["column"])
        return _bins(name, item["bins"], sets) if item.get("bins") else _expand_one(name, sets)
    if item == "all":
        return [ALL]
    if item == "findings":
        return [Subset(f"finding:{name}", "labels", name) for name in FINDINGS]
    if any(item in manifest.table.column_names for manifest in sets) and item not in RESERVED:
        return _values(item, sets)
    base, colon, _ = item.partition(":")
    if colon:
        if base in _columns(sets):
            options = _values(base, sets, limited=False)
        else:
            options = _expand_one("findings" if base == "finding" else base, sets)
        chosen = [subset for subset in options if subset.name == item]
        if chosen:
            return chosen
        raise ConfigError(f"subsets: there is no {quoted(item)}. {_values_hint(item, options)}")
    hint = nearest(item, ["all", "findings", *_columns(sets)])
    raise ConfigError(f"subsets: unknown subset or column {quoted(item)}. {hint}")


def _values_hint(item: str, options: Sequence[Subset]) -> str:
    """The end of an error about a value: the one that is nearly it, or all short ones; other cells are not shown."""
    names, values = [subset.name for subset in options], [str(subset.value) for subset in options]
    if options[0].column == "labels" or all(is_id_like(text) and len(text) <= 20 for text in values):
        return nearest(item, names)
    named = {text: name for text, name in zip(values, names, strict=True) if len(text) <= 60}
    near = difflib.get_close_matches(item.partition(":")[2], named, n=1, cutoff=0.75)
    return f"Did you mean {quoted(named[near[0]])}?" if near else f"It has {len(values):,} other values."


def _columns(sets: Sequence[Manifest]) -> list[str]:
    """Columns that can define a subset, in order of appearance."""
    return list(dict.fromkeys(name for each in sets for name in each.table.column_names if name not in RESERVED))


def _values(name: str, sets: Sequence[Manifest], *, limited: bool = True) -> list[Subset]:
    """One subset for each value of a column in any of the sets, numbers in their order."""
    columns = [each.table[name] for each in sets if name in each.table.column_names]
    if limited and is_identifier(name):
        raise ConfigError(f"subsets: column {quoted(name)} holds identifiers, not groups. Choose another column.")
    texts = {text for column in columns for text in as_text(column).unique().to_pylist()} - {None, ""}
    numeric = all(as_numbers(column) is not None for column in columns)
    if limited and numeric and len(texts) > MAX_NUMBERS:
        numbers = np.concatenate([values for values in map(as_numbers, columns) if values is not None])
        raise ConfigError(
            f"subsets: column {quoted(name)} has {len(texts)} distinct numbers, more than {MAX_NUMBERS} make no "
            f"groups. Ask for bins, such as {{column: {shown(name)}, bins: {_quartiles(numbers)}}}."
        )
    if limited and len(texts) > MAX_VALUES:
        raise ConfigError(
            f"subsets: column {quoted(name)} has {len(texts)} distinct values, more than {MAX_VALUES}. "
            f"Choose a column of groups, or ask for single values, such as '{shown(name)}:VALUE'."
        )
    if not texts:
        raise ConfigError(f"subsets: column {quoted(name)} is empty in every set. Choose another column.")
    ordered = sorted(texts, key=_number) if numeric else sorted(texts)
    return [Subset(f"{name}:{text}", name, text) for text in ordered]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:  # Arrow and Python do not agree on all spellings
        return np.inf


def _quartiles(numbers: np.ndarray) -> list[int]:
    """The quartiles as whole numbers, for a suggestion."""
    known = numbers[np.abs(numbers) < 2**53]  # neither NaN nor what no whole number holds
    return np.unique(np.round(np.quantile(known, (0.25, 0.5, 0.75))).astype(int)).tolist() if len(known) else [0]


def _bins(name: str, edges: Any, sets: Sequence[Manifest]) -> list[Subset]:
    """[low, high) intervals between ascending edges, and the two open ends."""
    known = _columns(sets)
    if name not in known:
        raise ConfigError(f"subsets: unknown column {quoted(name)}. {nearest(name, known)}")
    # Whole numbers may have any number of digits, of which 300 make a float.
    numbers = isinstance(edges, list | tuple) and all(isinstance(e, int | float) and abs(e) < 1e300 for e in edges)
    if not numbers or any(a >= b for a, b in pairwise(edges)):
        raise ConfigError(
            f"subsets: bins of {quoted(name)} are {quoted(edges)}, expected ascending numbers such as [40, 60, 80]."
        )
    for each in sets:
        if name in each.table.column_names and as_numbers(each.table[name]) is None:
            raise ConfigError(
                f"subsets: column {quoted(name)} of {shown(each.name)} is not numeric. Leave out its bins."
            )
    first, last = edges[0], edges[-1]
    inner = [Subset(f"{name}:{a:g}-{b:g}", name, bins=(a, b)) for a, b in pairwise(edges)]
    return [
        Subset(f"{name}:<{first:g}", name, bins=(None, first)),
        *inner,
        Subset(f"{name}:>={last:g}", name, bins=(last, None)),
    ]


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
