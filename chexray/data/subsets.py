"""Subsets of a run: all images, images with a finding, or images with a value in any column of the tables.

Both sets are cut by the same rule, so a subset compares like with like.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from chexray.data import labels as label_policies
from chexray.data.manifest import Manifest
from chexray.data.schema import RESERVED
from chexray.data.values import as_numbers, as_text, is_id_like, is_identifier
from chexray.errors import ConfigError
from chexray.findings import FINDINGS
from chexray.spelling import nearest, suggestion
from chexray.text import listed, quoted, shown

Request = str | dict[str, Any]
"""A subset as a config asks for it: a name, or {"column": name, "bins": edges}."""

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


def expand(requested: Sequence[Request], real: Manifest, synthetic: Sequence[Manifest]) -> list[Subset]:
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


def is_asked(name: str, asked: Sequence[str]) -> bool:
    """Whether the subset called `name` is among these: by its own name, its column, or `findings`."""
    return bool({name, name.partition(":")[0], *(["findings"] if name.startswith("finding:") else [])} & set(asked))


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


def _expand_one(item: Request, sets: Sequence[Manifest]) -> list[Subset]:
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
    hint = suggestion(item, ["all", "findings", *_columns(sets)])
    raise ConfigError(f"subsets: unknown subset or column {quoted(item)}. {hint}")


def _values_hint(item: str, options: Sequence[Subset]) -> str:
    """The end of an error about a value: the one that is nearly it, or all short ones; other cells are not shown."""
    names, values = [subset.name for subset in options], [str(subset.value) for subset in options]
    if options[0].column == "labels" or all(is_id_like(text) and len(text) <= 20 for text in values):
        return suggestion(item, names)
    named = {text: name for text, name in zip(values, names, strict=True) if len(text) <= 60}
    near = nearest(item.partition(":")[2], named, cutoff=0.75)
    return f"Did you mean {quoted(named[near])}?" if near else f"It has {len(values):,} other values."


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
        raise ConfigError(f"subsets: unknown column {quoted(name)}. {suggestion(name, known)}")
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
