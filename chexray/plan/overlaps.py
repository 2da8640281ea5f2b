"""Sets of one run that hold the same images: folders inside one another, links, and copies of files.

A score between sets that share images measures what they share. Sometimes that is meant, as for a set against itself,
so it is said and not refused. Copies in another format are found later, by their pixels (`chexray.suites.real_copies`).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from typing import TypeVar

from chexray.data.manifest import Manifest
from chexray.data.values import file_of
from chexray.errors import StorageError
from chexray.storage import absolute, is_remote
from chexray.storage.uris import local_path
from chexray.text import quoted, shown

T = TypeVar("T")

SAMPLED_BYTES = 4096
"""Read from the middle of files of equal size, to tell most of them apart: headers and borders may be alike."""
READ_BYTES = 500_000_000
"""Read in all to compare files that agree so far; beyond it, files are not compared further."""
MOST_SAMPLED = 20_000
THREADS = 16

CONSEQUENCES = {
    frozenset({"real", "synthetic"}): "scores then measure these copies",
    frozenset({"training", "synthetic"}): "privacy then finds copies, and utility trains on them twice",
    frozenset({"heldout", "synthetic"}): "the baseline of the privacy suite then holds synthetic images",
    frozenset({"training", "heldout"}): "the baseline of the privacy suite then holds training images",
    frozenset({"real", "training"}): "training images are then also test images",
    frozenset({"real", "heldout"}): "privacy and fidelity then share real images, which is allowed",
    frozenset({"synthetic"}): "the two are not independent",
}
"""By the roles of the two sets."""

_ROLES = {"heldout": "held-out"}

HARMLESS = (frozenset({"real", "heldout"}), frozenset({"synthetic"}))


@dataclass(frozen=True)
class Listed:
    """A set as it is compared with others. uris: of its images; location: its path as the config gives it, or ""."""

    name: str
    role: str
    uris: Sequence[str]
    location: str = ""
    etags: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, manifest: Manifest, role: str, location: str = "") -> Listed:
        return cls(manifest.name, role, manifest.table["uri"].to_pylist(), location, manifest.etags)

    @cached_property
    def identities(self) -> dict[str, str]:
        """{uri: what tells its file from others}, the same for every path, link and hard link to one file, and for
        objects of one size and ETag. Images inside a file are told apart by their place in it."""
        with ThreadPoolExecutor(THREADS) as pool:
            return dict(zip(self.uris, pool.map(self._identity, self.uris), strict=True))

    def _identity(self, uri: str) -> str:
        if uri in self.etags:
            return f"etag {self.etags[uri]}"
        file = file_of(uri)
        found = _stat(file)
        return uri if found is None else f"file {found.st_dev} {found.st_ino}{uri.removeprefix(file)}"


def overlaps(sets: Sequence[Listed], whole: set[tuple[str, str]] | None = None) -> list[str]:
    """A line for each two sets that share images, the harmful ones first, and for folders inside one another.

    whole: takes up (set, other set) where the other has every image of the set.
    """
    loud: list[str] = []
    quiet: list[str] = []
    same_bytes = _Contents()
    for a, b in combinations(sets, 2):
        roles = frozenset({a.role, b.role})
        shared = _shared(a, b, same_bytes)
        if shared:
            if whole is not None:
                pairs = ((a, b, shared[0]), (b, a, shared[1]))
                whole |= {(one.name, other.name) for one, other, found in pairs if len(found) == len(one.uris)}
            (quiet if roles in HARMLESS else loud).append(_line(a, b, shared, roles))
        elif _nested(a.location, b.location):
            inner, outer = (a, b) if _inside(a.location, b.location) else (b, a)
            quiet.append(
                f"the folder of {quoted(inner.name, 60)} lies in that of {quoted(outer.name, 60)}; they share no image"
            )
    return [*loud, *quiet]


def _line(a: Listed, b: Listed, shared: tuple[set[str], set[str]], roles: frozenset[str]) -> str:
    parts = [
        f"{len(found):,} of {len(each.uris):,} images of {_ROLES.get(each.role, each.role)} set {quoted(each.name, 60)}"
        for each, found in ((a, shared[0]), (b, shared[1]))
    ]
    first = shown(os.path.basename(min(shared[1])), 80)
    where = ""
    if _nested(a.location, b.location):
        same = _place(a.location) == _place(b.location)
        where = " (one folder)" if same else " (one folder lies in the other)"
    what = f"{parts[0]} and {parts[1]} are the same files{where}, first {first}: {CONSEQUENCES[roles]}"
    return what if roles in HARMLESS else f"SHARED IMAGES: {what}. Remove them from one, unless this is intended."


def _shared(a: Listed, b: Listed, same_bytes: _Contents) -> tuple[set[str], set[str]] | None:
    """(images of a, images of b) that are the same, None where there are none."""
    ours, theirs = a.identities, b.identities
    common = set(ours.values()) & set(theirs.values())
    found = ({u for u, one in ours.items() if one in common}, {u for u, one in theirs.items() if one in common})
    more = same_bytes.of([u for u in ours if u not in found[0]], [u for u in theirs if u not in found[1]])
    found[0].update(more[0])
    found[1].update(more[1])
    return found if found[1] else None


class _Contents:
    """Which local files have the same content: by size, then by bytes from the middle, then by all of them."""

    def __init__(self) -> None:
        self.left = READ_BYTES
        self._known: dict[tuple[str, bool], str] = {}

    def of(self, ours: Iterable[str], theirs: Iterable[str]) -> tuple[set[str], set[str]]:
        sides = [
            {uri: stat.st_size for uri in each if (stat := _stat(uri)) and stat.st_size} for each in (ours, theirs)
        ]
        groups: list[dict[str, str]] = [{uri: str(size) for uri, size in side.items()} for side in sides]
        groups = _meeting(groups)
        groups = [dict(sorted(group.items())[:MOST_SAMPLED]) for group in groups]
        for whole in (False, True):
            groups = [self._refined(group, whole) for group in _meeting(groups)]
        alike = _meeting(groups)
        return set(alike[0]), set(alike[1])

    def _refined(self, group: dict[str, str], whole: bool) -> dict[str, str]:
        """The files with a digest of their content added to what they are told apart by; those not read left out."""
        wanted = []
        for uri, key in group.items():
            cost = int(key.split()[0]) if whole else 0
            if (uri, whole) in self._known:
                wanted.append(uri)
            elif cost <= self.left:
                self.left -= cost
                wanted.append(uri)
        with ThreadPoolExecutor(THREADS) as pool:
            digests = pool.map(lambda uri: self._known.get((uri, whole)) or _digest(uri, whole), wanted)
            self._known |= {(uri, whole): digest for uri, digest in zip(wanted, digests, strict=True)}
        return {uri: f"{group[uri]} {self._known[uri, whole]}" for uri in wanted if self._known[uri, whole]}


def _meeting(groups: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """Of each side the files whose key the other has too."""
    common = set(groups[0].values()) & set(groups[1].values())
    return [{uri: key for uri, key in group.items() if key in common} for group in groups]


def _digest(uri: str, whole: bool) -> str:
    try:
        with open(local_path(uri), "rb") as file:
            if whole:
                return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
            file.seek(max(0, os.fstat(file.fileno()).st_size // 2 - SAMPLED_BYTES // 2))
            return hashlib.blake2b(file.read(SAMPLED_BYTES), digest_size=16).hexdigest()
    except (OSError, ValueError, StorageError):
        return ""


def _stat(uri: str) -> os.stat_result | None:
    if is_remote(uri):
        return None
    return _or_none(lambda: os.stat(local_path(uri)))


def _place(location: str) -> str:
    """Where a set's folder really is; "" for a set without one."""
    if not location:
        return ""
    if is_remote(location):
        return location.rstrip("/")
    found = _or_none(lambda: os.path.realpath(local_path(absolute(location))))
    return found if found is not None and os.path.isdir(found) else ""


def _inside(inner: str, outer: str) -> bool:
    inner, outer = _place(inner), _place(outer)
    return bool(inner and outer) and (inner == outer or inner.startswith(f"{outer.rstrip('/')}/"))


def _nested(a: str, b: str) -> bool:
    return _inside(a, b) or _inside(b, a)


def _or_none(get: Callable[[], T]) -> T | None:
    try:
        return get()
    except (OSError, ValueError, StorageError):
        return None
