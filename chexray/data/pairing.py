"""Which synthetic image is compared with which real one: by prompt, by id, as a table says, or none."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from chexray.data.manifest import Manifest
from chexray.data.matching import SYNTHETIC_STEM, checked_ids, index_in, is_in, named, resolve, stems
from chexray.data.pairs import SCHEMA, Pairs, finished, no_pairs, unpaired_table
from chexray.data.sources._names import no_such_column
from chexray.data.sources._tables import read_table
from chexray.data.values import as_text, blank_to_null, codes, identified, is_id_like
from chexray.errors import ConfigError, ManifestError
from chexray.spelling import suggestion
from chexray.storage import Storage, absolute, basename
from chexray.text import first_line, quoted, shown

HOW = ("auto", "same_prompt", "same_id", "given", "none")

_PREFIX = re.compile("^SyntheticImg_")
_SEED_SUFFIX = r"_gen_(?P<seed>\d+)$"


def build(how: str, real: Manifest, synthetic: Manifest, storage: Storage, path: str | None = None) -> Pairs:
    """The pairs that a config asks for.

    "auto": the table at `path` when there is one, else by prompt or by id, whichever pairs more images (among equals by
    prompt, unless the set's source says that its ids name real images), else none, and a note says why. Ids that are
    mere numbers meet by chance, so "auto" never pairs by them.
    Raises ConfigError for a request that contradicts itself, ManifestError when what was asked for by name finds no
    pair and for a table that does not fit the sets.
    """
    if how not in HOW:
        raise ConfigError(f"pairs: {quoted(how)} is not a way to pair. {suggestion(how, HOW)}")
    if path is not None and how in ("auto", "given"):
        where = absolute(path)
        return given(read_table(where, storage, lambda name: True), real, synthetic, where)
    if path is not None:
        raise ConfigError(f"pairs: {how!r} and the table {shown(path)} exclude each other. Leave one of them out.")
    if how == "given":
        raise ConfigError("pairs: 'given' needs a table with the columns real_id and synthetic_id. Name its path.")
    if how == "none":
        return no_pairs(synthetic, "no pairs: none were asked for")
    if how == "auto":
        return _best(real, synthetic)
    pairs = same_prompt(real, synthetic) if how == "same_prompt" else same_id(real, synthetic)
    if not len(pairs):
        what = "prompt" if how == "same_prompt" else "file name"
        raise ManifestError(
            f"pairs: {how} finds none: no {what} of {len(synthetic)} images of {quoted(synthetic.name)} is that of an "
            f"image of {quoted(real.name)}. Give the generator's training set, or a table of pairs."
        )
    return pairs


def _best(real: Manifest, synthetic: Manifest) -> Pairs:
    """By prompt or by id, whichever pairs more images; among equals by id only where the set's source says so."""
    prompts, ids = same_prompt(real, synthetic), same_id(real, synthetic)
    paired = is_in(synthetic.table["sample_id"], ids.table["synthetic_id"])
    names = [name for name, used in zip(stems(synthetic), paired, strict=True) if name and used]
    says = synthetic.pairs == "same_id"
    by_chance = not says and all(name.isdigit() for name in names)
    if len(ids) and not by_chance and (len(ids) > len(prompts) or (says and len(ids) == len(prompts))):
        return ids
    if len(prompts):
        return prompts
    if not len(ids):
        return no_pairs(
            synthetic, f"no pairs: no prompt and no id of {shown(synthetic.name)} is one of {shown(real.name)}"
        )
    why = f"no pairs: {len(ids)} ids of {shown(synthetic.name)} equal ids of {shown(real.name)}"
    return no_pairs(synthetic, f"{why}, but they are plain numbers; ask for same_id if they mean the same")


def same_prompt(real: Manifest, synthetic: Manifest) -> Pairs:
    """Each synthetic image with the real image of its prompt, over all seeds of the prompt.

    A column of the synthetic table, or a file name, that names the real image decides where it can and contradicts no
    prompt; elsewhere several real images may share the prompt, and the first row of the real table stands for it, as in
    upstream CheXGenBench. The seed is column `seed`, or k of a file name that ends in _gen_<k>, or counted from 0 in
    the order of sample_ids.
    """
    prompts, real_prompts = (blank_to_null(each.table["prompt"]) for each in (synthetic, real))
    in_file_order = np.argsort(real.table["row"].to_numpy(), kind="stable")
    place = index_in(prompts, real_prompts.take(pa.array(in_file_order)))
    by_prompt = np.append(in_file_order, -1)[place]
    names = [None if name is None else re.sub(_SEED_SUFFIX, "", _PREFIX.sub("", name)) for name in stems(synthetic)]
    index, notes = named(real, synthetic, by_prompt, real_prompts, pa.array(names, pa.string()))
    left = (index < 0) & (by_prompt >= 0)
    index = np.where(left, by_prompt, index)
    real_codes = codes(real_prompts)
    used = np.unique(real_codes[by_prompt[left]])
    n_several = int((np.bincount(real_codes, minlength=1)[used] > 1).sum())
    if n_several:
        notes.append(
            f"{n_several} of {len(used)} prompts belong to several real images; "
            f"the first row of {shown(real.name)} is used for each"
        )
    why = np.where(prompts.is_null().to_numpy(), "it has no prompt", "no real image has its prompt")
    return _pairs("same_prompt", real, synthetic, index, why, notes, count=True)


def same_id(real: Manifest, synthetic: Manifest, stem: str = SYNTHETIC_STEM) -> Pairs:
    """Each synthetic image with the real image that its file name names, as `SyntheticImg_<id>.png` of SynthCheX-75K.

    stem: a regular expression that the file name without its suffix must match in full; its first group must be the
    sample_id of a real image or the name of its file without suffix. Seeds are null unless the table or the names have
    them. Raises ConfigError for an expression without a group.
    """
    try:
        fits = re.compile(stem)
    except (re.error, RecursionError, OverflowError) as error:
        raise ConfigError(f"pairs: {quoted(stem)} is no regular expression ({first_line(error)}).") from None
    if not fits.groups:
        raise ConfigError(f"pairs: {quoted(stem)} has no group. Put the part that is the id in parentheses.")
    matches = [None if name is None else fits.fullmatch(name) for name in stems(synthetic)]
    names = pa.array([match[1] if match else None for match in matches], pa.string())
    why = np.full(len(synthetic), "its file name is that of no real image", dtype=object)
    return _pairs("same_id", real, synthetic, resolve(names, real), why, [], count=False)


def given(table: pa.Table, real: Manifest, synthetic: Manifest, where: str) -> Pairs:
    """The pairs of a table: real_id, synthetic_id, and prompt_id and seed if it has them.

    Pairs of rejected images, and of images that the run leaves out (`limit`), are left out and counted. Raises
    ManifestError for a missing column, an empty cell, an id of neither set and a pair given twice.
    """
    for name in ("real_id", "synthetic_id"):
        if name not in table.column_names:
            raise ManifestError(f"{where}: has no column {name!r}. {no_such_column(name, table.column_names)}")
    ids = [checked_ids(as_text(table[f"{each.origin}_id"]), each, where) for each in (real, synthetic)]
    both = codes(ids[0]).astype(np.int64) * max(1, len(table)) + codes(ids[1])
    _, first, inverse = np.unique(both, return_index=True, return_inverse=True)
    repeated = np.flatnonzero(first[inverse] != np.arange(len(both)))
    if len(repeated):
        row, earlier = int(repeated[0]), int(first[inverse[repeated[0]]])
        raise ManifestError(
            f"{where}: {len(repeated)} of {len(table)} pairs repeat, first {identified(ids[0][row].as_py())} with "
            f"{identified(ids[1][row].as_py())} (data rows {earlier + 1} and {row + 1}). Keep one row of each."
        )
    notes, has_prompts = [], "prompt_id" in table.column_names
    prompts = pc.call_function("coalesce", [as_text(table["prompt_id"]), ids[0]]) if has_prompts else ids[0]
    if has_prompts and _are_prompts(prompts, ids[0], (real, synthetic)):
        notes.append(
            f"column prompt_id of {shown(basename(where))} holds prompts; the first real_id of each replaces it"
        )
        _, start, group = np.unique(codes(prompts), return_index=True, return_inverse=True)
        prompts = ids[0].take(pa.array(start[group]))
    seeds = as_text(table["seed"]) if "seed" in table.column_names else pa.nulls(len(table), pa.string())
    whole = pa.table([*ids, prompts, seeds], schema=SCHEMA)
    used = is_in(ids[0], real.table["sample_id"]) & is_in(ids[1], synthetic.table["sample_id"])
    if not used.all():
        notes.append(f"{int((~used).sum())} of {len(table)} pairs name an image that was rejected or left out")
    whole = whole.filter(pa.array(used))
    alone = ~is_in(synthetic.table["sample_id"], whole["synthetic_id"])
    why = np.full(
        len(synthetic), "the table of pairs does not name it, or with an image that is not used", dtype=object
    )
    return finished("given", whole, unpaired_table(synthetic.table["sample_id"], alone, why), notes, len(synthetic))


def _are_prompts(values: pa.ChunkedArray, real_ids: pa.ChunkedArray, sets: Iterable[Manifest]) -> bool:
    """Whether a column of prompt_ids holds prompts: of the sets, or any text that is neither an id nor looks like one.

    A prompt_id is shown and stored; a prompt, which may be a patient's report, never is.
    """
    known = is_in(values, real_ids)
    strange = values.filter(pa.array(~known)).unique().to_pylist()
    return not all(map(is_id_like, strange)) or any(is_in(values, each.table["prompt"]).any() for each in sets)


def _pairs(
    how: str, real: Manifest, synthetic: Manifest, index: np.ndarray, why: np.ndarray, notes: list[str], *, count: bool
) -> Pairs:
    """The pairs of the synthetic images with the real rows at `index`; -1 leaves one unpaired for the reason in `why`.

    count: number the images of a prompt where neither a column nor the file names say the seed.
    """
    rows = np.flatnonzero(index >= 0)
    prompts = real.table["sample_id"].take(pa.array(index[rows]))
    ids = synthetic.table["sample_id"]
    columns = [prompts, ids.take(pa.array(rows)), prompts, _seeds(synthetic, rows, codes(prompts), count)]
    unpaired = unpaired_table(ids, index < 0, why)
    return finished(how, pa.table(columns, schema=SCHEMA), unpaired, notes, len(synthetic))


def _seeds(synthetic: Manifest, rows: np.ndarray, groups: np.ndarray, count: bool) -> pa.Array | pa.ChunkedArray:
    """The seed of each image at `rows`: of the column, else of the file names, else counted within `groups` or null."""
    if "seed" in synthetic.table.column_names:
        seeds = as_text(synthetic.table["seed"]).take(pa.array(rows))
        if seeds.null_count < len(seeds):
            return seeds
    found = [re.search(_SEED_SUFFIX, name or "") for name in np.array(stems(synthetic), dtype=object)[rows]]
    if found and all(found):
        return pa.array([match["seed"] for match in found if match], pa.string())
    if not count:
        return pa.nulls(len(rows), pa.string())
    order = np.argsort(groups, kind="stable")
    number = np.empty(len(rows), dtype=np.int64)
    number[order] = np.arange(len(rows)) - np.searchsorted(groups[order], groups[order])
    return pa.array(number).cast(pa.string())
