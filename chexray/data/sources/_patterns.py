"""Files that a path stands for: itself, those of a folder, or those of a pattern with `*`, `?` and `{000..010}`."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from chexray.errors import ManifestError
from chexray.storage import Storage, basename
from chexray.storage.uris import is_web
from chexray.text import shown

MAX_FILES = 100_000
"""Files that numbers in braces may stand for."""

_SHARD = re.compile(r"(?P<front>.*)-(?P<n>\d{1,9})-of-(?P<of>\d{1,9})(?!\d).*?(?P<end>\.[^./]*)?", re.DOTALL)
_NUMBERS = re.compile(r"\{(\d{1,9})\.\.(\d{1,9})\}")


def is_glob(path: str) -> bool:
    """Whether a path is a pattern. "?" begins a query in a web address, which storage refuses."""
    return "*" in path or ("?" in path and not is_web(path)) or _NUMBERS.search(path) is not None


def find_files(where: str, storage: Storage, suffixes: tuple[str, ...]) -> list[str]:
    """The files a path stands for, sorted; [] when there are none. suffixes: of the files of a folder that count."""
    if (numbers := _NUMBERS.search(where)) is not None:
        return _numbered(where, numbers, storage, suffixes)
    if is_glob(where):
        depth = where.count("/")
        found = [entry.uri for entry in storage.list(folder_of(where) or "/")]
        # A star stands for a part of one name, as in a shell; ** for any folders.
        return [f for f in found if fnmatchcase(f, where) and ("**" in where or f.count("/") == depth)]
    if storage.is_dir(where):
        return [entry.uri for entry in storage.list(where) if entry.uri.lower().endswith(suffixes)]
    return [where] if storage.exists(where) else []


def folder_of(where: str) -> str:
    """The folder below which the files of a path are."""
    if not is_glob(where):
        return where.rstrip("/")
    numbers = _NUMBERS.search(where)
    signs = "*" if is_web(where) else "*?"
    ends = [where.find(sign) for sign in signs if sign in where] + ([numbers.start()] if numbers else [])
    fixed = where[: min(ends)]
    return fixed[: fixed.rfind("/")]


def missing_shards(files: Sequence[str], where: str) -> list[str]:
    """A line for each series such as train-00000-of-00003.tar of which files are missing.

    where: the path of the set. No file is missing where it names one itself.
    """
    series: dict[tuple[str, str, str], set[int]] = {}
    for file in files if list(files) != [where] else ():
        if found := _SHARD.fullmatch(file):
            series.setdefault((found["front"], found["of"], found["end"] or ""), set()).add(int(found["n"]))
    notes = []
    for (front, of, end), there in series.items():
        first = 0 if 0 in there or int(of) not in there else 1
        numbers = range(first, first + int(of))
        if n_missing := len(numbers) - sum(n in numbers for n in there):
            name = f"{basename(front)}-{next(n for n in numbers if n not in there):0{len(of)}d}-of-{of}{end}"
            notes.append(f"{n_missing:,} of {int(of):,} shards are missing, first {shown(name)}: copy them")
    return notes


def _numbered(where: str, numbers: re.Match[str], storage: Storage, suffixes: tuple[str, ...]) -> list[str]:
    """Each number in place of the first braces. A file that is missing is an error, so that no shard is lost."""
    first, last = int(numbers[1]), int(numbers[2])
    n_files = math.prod(max(0, int(each[2]) - int(each[1]) + 1) for each in _NUMBERS.finditer(where))
    if n_files > MAX_FILES:
        raise ManifestError(f"{shown(where)}: stands for {n_files:,} files, at most {MAX_FILES:,} are read. Split it.")
    width = len(numbers[1])
    named = [f"{where[: numbers.start()]}{n:0{width}d}{where[numbers.end() :]}" for n in range(first, last + 1)]
    if any(is_glob(name) for name in named):
        return sorted({file for name in named for file in find_files(name, storage, suffixes)})
    stats = storage.stat(named)
    missing = [name for name, stat in zip(named, stats, strict=True) if stat is None]
    if missing and len(missing) < len(named):
        raise ManifestError(
            f"{shown(where)}: {len(missing)} of {len(named)} files are missing, first {shown(missing[0])}. Copy them, "
            "or change the numbers in braces."
        )
    return [] if missing else named
