"""Archives as sources see them: which files are archives, and what their members are called as images of a set."""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from chexray.data.containers import tar, zip
from chexray.data.containers.listing import Directory
from chexray.storage import Storage
from chexray.text import printable

ARCHIVE_SUFFIXES = (".zip", ".tar")
PACKED = re.compile(r"(?i)\.(tgz|tbz2?|txz|tzst|7z|rar|(tar\.)?(gz|bz2|xz|zst|lz4))$")
"""Endings of archives of which no part can be read by itself."""
THREADS = 8
"""Archives whose directories are read at once."""


def read_directories(files: Sequence[str], storage: Storage) -> list[Directory]:
    """The directory of each archive. Raises ManifestError and StorageError."""

    def read(file: str) -> Directory:
        return (tar if file.lower().endswith(".tar") else zip).read(file, storage)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(read, files))


def safe_id(name: str) -> str:
    """A member's name as an id that leads nowhere: no folder above, no root, no sign that a terminal obeys."""
    steps = [step for step in name.replace("\\", "/").split("/") if step not in ("", ".", "..")]
    return printable("/".join(steps)) or "unnamed"


def stem(name: str) -> str:
    """The name without what stands behind the last point of its last part: ids such as 1.2.840.113 hold points."""
    last = name.rfind("/") + 1
    point = name.rfind(".")
    return name[:point] if point > last else name


def webdataset_key(name: str) -> str:
    """The name up to the first point of its last part, as WebDataset groups members."""
    last = name.rfind("/") + 1
    point = name.find(".", last)
    return name[:point] if point > last else name
