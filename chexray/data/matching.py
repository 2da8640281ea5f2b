"""How the images of one set are found by what another set calls them: sample_id, a column they share, or file name."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from chexray.data.manifest import Manifest
from chexray.data.sources._names import without_suffix
from chexray.data.values import as_text, file_of, identified, is_id_like
from chexray.errors import ManifestError
from chexray.spelling import suggestion
from chexray.storage import basename
from chexray.text import quoted, shown

NAMING = ("real_id", "id", "path", "dicom_id")
"""Columns of a synthetic table that may name the real image; `id` and `path` are upstream CheXGenBench's."""

SYNTHETIC_STEM = r"(?:SyntheticImg_)?(.+)"
"""What a synthetic file name without its suffix looks like; the first group is the id of a real image."""

Column: TypeAlias = "pa.Array | pa.ChunkedArray"


def index_in(values: Column, known: Column) -> np.ndarray:
    """(n,) int64: the first place of each value among `known`, -1 for a null and for what is not there."""
    found = pc.call_function("index_in", [values], pc.SetLookupOptions(known, skip_nulls=True))
    return found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)


def is_in(values: Column, known: Column) -> np.ndarray:
    """(n,) bool: whether each value is among `known`; a null never is."""
    return index_in(values, known) >= 0


def stem(name: str) -> str:
    """The file name without its folder and without the suffix of an image: "00000001_000" of "a/00000001_000.png".

    Only a known suffix at the very end goes, so 1.2.840.113 and v1.png.png keep what belongs to the name. Upstream
    CheXGenBench strips a set of characters instead (privacy_metrics.py:587): page_12.jpg becomes age_12 there.
    """
    return without_suffix(basename(name))


def stems(manifest: Manifest) -> list[str | None]:
    """The stem of each image's file; of its sample_id if the image lies inside a larger file; None without a file."""
    uris, ids = manifest.table["uri"].to_pylist(), manifest.table["sample_id"].to_pylist()
    return [
        None if uri is None else stem(name if file_of(uri) != uri else uri) for uri, name in zip(uris, ids, strict=True)
    ]


def resolve(texts: Column, real: Manifest, column: str = "") -> np.ndarray:
    """(n,) rows of the real table that the texts name, -1 where they name none or more than one.

    A text is a sample_id, or a value of the real set's own `column`, or the file name, with or without folder and
    suffix, of a real image; the first of these that fits counts.
    """
    index = index_in(texts, real.table["sample_id"])
    names = pa.array([None if text is None else stem(text) for text in texts.to_pylist()], pa.string())
    ways: list[tuple[Column, Column]] = [(names, pa.array(stems(real), pa.string()))]
    if column in real.table.column_names:
        ways.insert(0, (texts, as_text(real.table[column])))
    for wanted, known in ways:
        counted = known.value_counts()
        unique = counted.field("values").filter(pa.array(counted.field("counts").to_numpy() == 1))
        found = np.where(is_in(wanted, unique), index_in(wanted, known), -1)
        index = np.where(index >= 0, index, found)
    return index


def named(
    real: Manifest, synthetic: Manifest, by_prompt: np.ndarray, real_prompts: Column, names: Column
) -> tuple[np.ndarray, list[str]]:
    """(n,) rows of the real table that the synthetic table itself names, -1 where it names none, and a note.

    Of the columns in NAMING and the file names (`names`, their stems), the one that names most images and contradicts
    no prompt: row numbers may look like ids. by_prompt: (n,) a real row of the same prompt, -1 where there is none.
    File names must agree with at least one prompt, since numbered files are called alike everywhere.
    """
    prompts = np.array(real_prompts.to_pylist(), dtype=object)
    best, label, notes = np.full(len(synthetic), -1), "", []
    columns = [name for name in NAMING if name in synthetic.table.column_names]
    ways = [(f"column {name}", as_text(synthetic.table[name]), name) for name in columns]
    played = set(synthetic.roles.values()) - {synthetic.roles.get("sample_id")}
    ways = [way for way in ways if way[2] not in played]
    for way, texts, column in [*ways, ("the file name", names, "")]:
        index = resolve(texts, real, column)
        both = (index >= 0) & (by_prompt >= 0)
        n_against = int((prompts[index[both]] != prompts[by_prompt[both]]).sum())
        if n_against:
            if column:
                notes.append(f"{way} is not used: its real images have other prompts in {n_against} rows")
        elif (column or both.any()) and (index >= 0).sum() > (best >= 0).sum():
            best, label = index, way
    if label:
        notes.append(
            f"{label} of {shown(synthetic.name)} names the real image of {int((best >= 0).sum())} synthetic images"
        )
    return best, notes


def checked_ids(ids: pa.ChunkedArray, manifest: Manifest, where: str) -> pa.ChunkedArray:
    """The column, if each id in it is one of the set, of its rejects, or may be one that was left out."""
    name = f"{manifest.origin}_id"
    if ids.null_count:
        row = pc.index(ids.is_null(), True).as_py() + 1
        raise ManifestError(
            f"{where}: {ids.null_count} of {len(ids)} rows have no {name}, first data row {row}. Fill it."
        )
    chunks = [*manifest.table["sample_id"].chunks, *manifest.rejects["sample_id"].chunks]
    known = pa.chunked_array(chunks, pa.string()).combine_chunks()
    unknown = np.flatnonzero(~is_in(ids, known))
    if len(unknown) and not set(manifest.excluded) - {"duplicate_sample_id"}:
        word = ids[int(unknown[0])].as_py()
        ordered = known.sort()
        # Edit distances to 237,388 ids would take a minute: the neighbours in the alphabet share the prefix.
        place = int(np.searchsorted(ordered.to_numpy(zero_copy_only=False), word))
        close = [text for text in ordered[max(0, place - 500) : place + 500].to_pylist() if is_id_like(text)]
        raise ManifestError(
            f"{where}: {len(unknown)} of {len(ids)} pairs name a {name} that is not in {quoted(manifest.name)}, first "
            f"{identified(word)} (data row {unknown[0] + 1}). {suggestion(word, close, at_most=5)}"
        )
    return ids
