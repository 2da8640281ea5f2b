"""Whether images are still those that a run was planned with: keys made again from what their files are by now."""

from __future__ import annotations

import re
from collections.abc import Sequence

from chexray.data.containers.guard import guarded
from chexray.data.depth import Depth
from chexray.data.manifest import deep_key, image_key
from chexray.data.rejects import Reject
from chexray.data.values import file_of
from chexray.storage import Storage, is_remote
from chexray.text import shown

CHANGED = "changed"
"""Code of a reject whose file is another than the plan saw. It may pass: the next plan sees the new file."""
_KEY = re.compile(r"[0-9a-f]{32}")


def changed(
    uris: Sequence[str], keys: Sequence[str], depths: Sequence[Depth | None], storage: Storage
) -> dict[int, Reject]:
    """{position: why} of the images whose file is no more what their `image_key` was made from.

    Asked after the reads: a file that is the planned one then was it before, too. Each container is asked for once. A
    remote file that holds one image is not asked for: the request would cost as much as reading it. Nor is a key that
    `image_key` did not make. A container that cannot be asked makes rejects of its images, which may pass.
    """
    files = [file_of(uri) for uri in uris]
    asked = [
        row
        for row, (uri, key) in enumerate(zip(uris, keys, strict=True))
        if _KEY.fullmatch(key) and (files[row] != uri or not is_remote(uri))
    ]
    names = list(dict.fromkeys(files[row] for row in asked))
    stats = guarded(lambda: storage.stat(names))
    if isinstance(stats, Reject):
        return dict.fromkeys(asked, Reject(stats.code, stats.detail, transient=True))
    now = dict(zip(names, stats, strict=True))
    found: dict[int, Reject] = {}
    for row in asked:
        stat, depth = now[files[row]], depths[row]
        key = "" if stat is None else image_key(uris[row], stat.size, stat.version)
        if (deep_key(key, str(depth)) if depth and depth.bits else key) != keys[row]:
            found[row] = _reject(files[row], there=stat is not None)
    return found


def _reject(file: str, *, there: bool) -> Reject:
    what = "changed" if there else "was removed"
    copied = "" if is_remote(file) else ", or this node has another copy of it (copies must keep its time: cp -p)"
    detail = f"{shown(file)} {what} after the run was planned{copied}: run the same command again"
    return Reject(CHANGED, detail, transient=True)
