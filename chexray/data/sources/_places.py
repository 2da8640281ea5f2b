"""Where the images of a table lie: below a folder that somebody named, the table's own folder, or one of its name.

Nothing else is taken by itself: the files of a neighbour may be called the same. Nothing outside the folder is read.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from chexray.config.secrets import url_problem
from chexray.data.keys import root_setting, setting
from chexray.data.sources._lookup import Index
from chexray.data.sources._names import without_suffix
from chexray.data.values import identified, is_id_like, may_exist
from chexray.errors import ManifestError, StorageError
from chexray.storage import Storage, absolute, basename, inside, is_remote, join, parent
from chexray.storage.protocols import REMOTE
from chexray.storage.uris import folder_of_cells, is_web, local_path, split
from chexray.text import shown

N_PROBES = 16
"""Rows, spread over the table, whose images are looked for to tell which folder is meant."""
MAX_SCANNED = 20_000
"""Files beside a table among which its images are looked for, to say in a message where they are."""


@dataclass(frozen=True)
class Root:
    """A folder below which images may lie. why: how it was chosen, for the user.

    start: the folder that relative paths start from. table: the folder of the table, from which `../` leads elsewhere.
    named: whether files below it may be looked for by their names alone.
    """

    uri: str
    why: str
    start: str
    table: str
    named: bool

    def place(self, image: str) -> str | None:
        """The uri of an image of the table; None for what is not below the folder, in any spelling.

        A path that is written as being below is, whatever links lead to: these are the folder's owner's. Others are
        resolved, with `..` and links, and compared with the resolved folder.
        """
        try:
            found = inside(self.start, image)
            return found if self.start == self.uri else inside(self.uri, found)
        except StorageError:  # it quotes the cell, also as the context of another error
            return self._resolved(image)

    def _resolved(self, image: str) -> str | None:
        try:
            if is_remote(self.uri):
                return inside(self.uri, _above(self.table, image)) if image.startswith("../") else None
            path = local_path(image)
            if is_remote(image) or (is_remote(self.table) and not path.startswith("/")):
                return None
            folder, name = os.path.split(posixpath.join(self.table, path))
            target = os.path.join(_real(folder), name)
            target = os.path.realpath(target) if name == ".." or os.path.islink(target) else target
            return inside(_real(self.uri), target)
        except (StorageError, OSError, ValueError):
            return None


def _above(folder: str, image: str) -> str:
    """The uri of `../x.png` seen from a folder of a bucket. Raises StorageError above the bucket."""
    front, path = split(folder)
    steps = path.split("/") if path else []
    for step in image.split("/"):
        if step == ".." and not steps:
            raise StorageError("above the bucket")
        steps = steps[:-1] if step == ".." else [*steps, step]
    return join(front, *steps)


@lru_cache(maxsize=4096)
def _real(folder: str) -> str:
    return os.path.realpath(folder)


def candidates(path: str, image_root: str | None, origin: str, storage: Storage) -> list[Root]:
    """The folders in which the images of the table at `path` may lie, best first."""
    table = parent(path)
    if image_root is not None:
        return list(_named(image_root, f"as {setting(origin, 'image_root')} says", table, origin, storage))
    found: list[Root] = []
    if of_run := getattr(origin, "image_root", ""):
        found += _named(of_run, "as image_root of the run says", table, origin, storage)
    own = join(table, basename(path).split(".")[0])
    found.append(Root(table, "the table's own folder", table, table, named=False))
    return [*found, Root(own, "the folder of the table's name", own, table, named=True)]


def _named(image_root: str, why: str, table: str, origin: str, storage: Storage) -> Iterator[Root]:
    root = absolute(image_root)
    if not is_web(root) and not storage.is_dir(root):  # a web server does not say what is a folder
        raise ManifestError(f"{root_setting(origin)}: {shown(image_root)} is not a folder. Name an existing one.")
    yield Root(root, why, root, table, named=True)
    if table != root and f"{table}/".startswith(f"{root.rstrip('/')}/"):
        yield Root(root, f"{why}; paths start from the table's folder", table, table, named=True)


def choose(
    roots: Sequence[Root], images: Sequence[str | None], lookup: bool | None, storage: Storage
) -> tuple[Root | None, Index | None]:
    """The first folder in which images of the table are, and its files where they are found by name.

    lookup: None to look for names only where no path leads to an image, and only below a named folder.
    """
    probes = spread(images)
    for root in roots if not lookup else ():
        places = [place for image in probes if (place := root.place(image)) and may_exist(place)]
        if any(found is not None for found in storage.stat(places)):
            return root, None
    # Nobody means all files of a machine or a bucket, and a web server lists none.
    may = [root for root in roots if lookup or (root.named and split(root.uri)[1] and not is_web(root.uri))]
    may = may if lookup is not False else []
    for place, root in enumerate(may):
        if root.uri not in [before.uri for before in may[:place]] and storage.is_dir(root.uri):
            index = Index.of(root.uri, storage)
            # A path that leads elsewhere is not taken for a name, unless the config says so.
            if any(index.named(image) for image in probes if lookup or root.place(image) is not None):
                return root, index
    return None, None


def spread(images: Sequence[str | None]) -> list[str]:
    known = [image for image in images if image is not None]
    return [known[place] for place in np.unique(np.linspace(0, len(known) - 1, N_PROBES).astype(int))] if known else []


def nowhere(path: str, roots: Sequence[Root], images: Sequence[str | None], origin: str) -> ManifestError:
    """The error for a table whose images are in none of the folders."""
    probes = spread(images)
    row = list(images).index(probes[0])
    if odd := odd_path(probes[0]):
        return ManifestError(f"{path}: data row {row + 1} names {_named_as(probes[0])}, {odd}.")
    where = " and ".join(dict.fromkeys(shown(root.uri) for root in roots))
    shared = _absolute_folder(images)
    if roots[0].place(probes[0]) is None:
        return _leaves(path, row, probes[0], where, shared, origin)
    seen = "" if is_remote(path) else _seen(parent(path), probes)
    hint = f"Files of these names are below {shown(seen)}: if they are meant, set" if seen else "Set"
    return ManifestError(
        f"{path}: images such as {identified(probes[0])} are not below {where}. {hint} {root_setting(origin)} to "
        f"{'that folder' if seen else 'the folder that holds them, also in folders of their own'}."
    )


def places_of(path: str, root: Root, images: Sequence[str | None], origin: str | None) -> list[str | None]:
    """The uris of a table's images. Raises ManifestError naming the first row whose image is not below the folder.

    origin: None for a source whose folder is not to be chosen.
    """
    uris: list[str | None] = []
    for row, image in enumerate(images):
        place = None if image is None else root.place(image)
        if place is not None and is_web(place) and url_problem(place):
            raise ManifestError(f"{path}: data row {row + 1} names {_named_as(place)}. {_FETCH}")
        if image is not None and place is None:
            if odd := odd_path(image):
                raise ManifestError(f"{path}: data row {row + 1} names {_named_as(image)}, {odd}.")
            raise _leaves(path, row, image, shown(root.uri), _absolute_folder(images), origin)
        uris.append(place)
    return uris


def odd_path(image: str) -> str:
    """What is wrong with a path that no folder makes right, and the next move; "" for others."""
    if not is_remote(image) and re.match(r"(?i)(?!file://)[a-z][a-z0-9+.-]*://", image):
        return f"an address that is not read ({', '.join(REMOTE)} are). Download them, and name the files"
    if re.match(r"[A-Za-z]:[\\/]", image) or "\\" in image:
        return "a path with backslashes, as on Windows. Write it with / and below a folder of this machine"
    return ""


def _leaves(path: str, row: int, image: str, root: str, shared: str, origin: str | None) -> ManifestError:
    """shared: a folder that all paths lie in, where they are absolute."""
    if url_problem(image):
        return ManifestError(f"{path}: data row {row + 1} names {_named_as(image)}. {_FETCH}")
    which = f"{shown(shared)}, in which all of them lie" if shared else "a folder that holds all images"
    if is_remote(image) and not shared:
        which = "the address of a folder that holds all images, if you trust that server"
    advice = "Correct it." if origin is None else f"Correct the path, or set {root_setting(origin)} to {which}."
    return ManifestError(
        f"{path}: data row {row + 1} names {_named_as(image)}, which leaves the image root {root}. {advice}"
    )


_FETCH = "Fetch the images once, and name the files."


def _named_as(image: str) -> str:
    """A cell for a message, which must repeat no credentials."""
    why = url_problem(image)
    return f"an address that {why}" if why else identified(image)


def _absolute_folder(images: Sequence[str | None]) -> str:
    """The deepest folder that all images lie in, where all have absolute paths; none of their cells may be a text."""
    known = [image for image in images if image is not None]
    found = folder_of_cells(known) if all(map(is_id_like, known)) else ""
    return "" if found == "/" else found


def _seen(folder: str, images: Sequence[str]) -> str:
    """The folder below that of the table from which its images are seen; "" where none is found soon."""
    wanted = {basename(image): posixpath.dirname(image) for image in images if may_exist(image)}
    found: set[str] = set()
    n = 0
    for here, folders, files in os.walk(folder):
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        for name in {each for file in files for each in (file, without_suffix(file))} & set(wanted):
            above = wanted[name] and here.endswith(f"/{wanted[name]}")
            found.add(here[: -len(wanted[name]) - 1] if above else here)
        n += len(files)
        if n > MAX_SCANNED:
            break
    return posixpath.commonpath(sorted(found)) if found else ""
