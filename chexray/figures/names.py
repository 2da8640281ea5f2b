"""Names that came from files or users, made fit for figures and for file names."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

LONGEST = 72
"""Characters of a name shown in a figure."""


def shown(name: str) -> str:
    """The name on one line without control, direction and other invisible characters, which XML may not even hold."""
    spaced = " ".join(name.split())
    kept = "".join(char for char in spaced if unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co", "Cn"))
    return kept if len(kept) <= LONGEST else kept[: LONGEST - 1] + "…"


def file_stems(names: Sequence[str]) -> list[str]:
    """One file name without ending for each of these distinct names: letters, digits, `.`, `_` and `-` only.

    phantom-good@1a2b becomes phantom-good-1a2b. Names that lose more than that, are long, or that a disk which ignores
    case would take for one another carry a digest of the whole name.
    """
    plain = [re.sub(r"[^A-Za-z0-9._-]+|[.]{2,}", "-", name.replace("@", "-")).strip(".-")[:80] for name in names]
    shared = Counter(stem.lower() for stem in plain)
    stems = []
    for name, stem in zip(names, plain, strict=True):
        if stem != name.replace("@", "-") or shared[stem.lower()] > 1:
            digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
            stem = f"{stem}-{digest}".strip("-")
        stems.append(stem)
    return stems
