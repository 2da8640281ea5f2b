"""Splits of a data set that lie in one folder, as Hugging Face writes them: merged only where the config says so."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa

from chexray.data.keys import setting
from chexray.data.values import is_id_like
from chexray.errors import ManifestError
from chexray.text import listed, quoted, shown

ALL = "all"
_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "validate", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_SPLIT = {word: split for split, words in _WORDS.items() for word in words}
_SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}.*")


def of_folders(path: str) -> str:
    """The split that a folder on the way to a file is called after, "" for none."""
    return next((_SPLIT[step] for step in path.lower().split("/")[:-1] if step in _SPLIT), "")


def of_shards(path: str) -> str:
    """The split that a file of a set is called after, as in data/train-00000-of-00002.parquet, "" for none."""
    name = re.sub(r"\.(parquet|zip|tar)$", "", path.lower().rsplit("/", 1)[-1])
    shard = _SHARD.fullmatch(name)
    words = re.split(r"[^a-z]+", name)
    named = next((_SPLIT[word] for word in words if word in _SPLIT), shard[1] if shard else "")
    return named or of_folders(path)


def chooser(
    paths: Sequence[str], split: str | None, of: Callable[[str], str], where: str, origin: str
) -> Callable[[str], bool]:
    """Whether a path belongs to the split that the config names; every path does where there is one split or none.

    Raises ManifestError for several splits of which none is named, and for a split that is not there.
    """
    found = sorted({of(path) for path in paths} - {""})
    key = setting(origin, "split")
    if split is None and len(found) > 1:
        raise ManifestError(
            f"{where}: holds {len(found)} splits, {listed(found)}. Name one in {key}, or set it to all to read them as "
            "one set."
        )
    if split in (None, ALL):
        return lambda path: True
    wanted = _meant(str(split))
    if wanted not in found:
        raise ManifestError(f"{where}: has no split {quoted(split)}, named in {key}. Found: {listed(found) or 'none'}.")
    return lambda path: of(path) == wanted


def rows_of(column: pa.ChunkedArray | None, split: str | None, where: str, origin: str) -> np.ndarray:
    """(n,) bool: the rows whose cell of the column is the split that the config names, all where there is one split.

    column: None for a table without one. Raises ManifestError as `chooser` does.
    """
    key = setting(origin, "split")
    if column is None:
        raise ManifestError(f"{where}: has no column split, so {key} cannot choose one. Leave it out.")
    found = sorted({text for text in column.unique().to_pylist() if text})
    if split is None and len(found) > 1:
        raise ManifestError(
            f"{where}: its rows are of {len(found)} splits, {_shown(found)}. Name one in {key}, or set it to all."
        )
    if split in (None, ALL):
        return np.ones(len(column), bool)
    wanted = _meant(str(split))
    if wanted not in map(_meant, found):
        raise ManifestError(f"{where}: has no split {quoted(split, 60)}, named in {key}. Found: {_shown(found)}.")
    return np.array([text is not None and _meant(text) == wanted for text in column.to_pylist()], bool)


def _shown(found: Sequence[str]) -> str:
    """The splits of a column for a message; only their number where a cell may be a patient's text."""
    short = all(is_id_like(each) and len(each) <= 40 for each in found) and len(found) <= 20
    return (listed(found, 5) or "none") if short else f"{len(found):,} values that are no names of splits"


def _meant(split: str) -> str:
    return _SPLIT.get(split.lower(), split.lower())


def left_out(n: int, split: str) -> str:
    return f"{n} files of other splits are left out (split {shown(split, 60)})"
