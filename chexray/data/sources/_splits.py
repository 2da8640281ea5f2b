"""Splits of a data set that lie in one folder, as Hugging Face writes them: merged only where the config says so."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from chexray.data.keys import setting
from chexray.errors import ManifestError
from chexray.text import listed, quoted, shown

ALL = "all"
_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_SPLIT = {word: split for split, words in _WORDS.items() for word in words}
_SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}.*")


def of_folders(path: str) -> str:
    """The split that a folder on the way to a file is called after, "" for none."""
    return next((_SPLIT[step] for step in path.lower().split("/")[:-1] if step in _SPLIT), "")


def of_shards(path: str) -> str:
    """The split that a Parquet file is called after, as in data/train-00000-of-00002.parquet, "" for none."""
    name = path.lower().rsplit("/", 1)[-1].removesuffix(".parquet")
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
    wanted = _SPLIT.get(str(split).lower(), str(split).lower())
    if wanted not in found:
        raise ManifestError(f"{where}: has no split {quoted(split)}, named in {key}. Found: {listed(found) or 'none'}.")
    return lambda path: of(path) == wanted


def left_out(n: int, split: str) -> str:
    return f"{n} files of other splits are left out (split {shown(split, 60)})"
