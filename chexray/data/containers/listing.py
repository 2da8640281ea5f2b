"""What an archive holds, as columns: names, addresses and sizes of its files, and how many members are none of them.

An archive may hold millions of members: there are no Python objects for each, but for names that are not plain ASCII.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote_from_bytes

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from chexray.errors import ManifestError
from chexray.text import shown

MAX_NAME_BYTES = 1024
"""Bytes of a member's name; those with a longer one are left out and counted."""
MAX_URI_BYTES = (1 << 31) - 1
"""Bytes of all URIs of one archive, since Arrow counts the text of one column in 31 bits."""

_SYSTEM = r"(^|[/\\])(__MACOSX[/\\]|\.[^/\\.])"


@dataclass(frozen=True)
class Directory:
    """table: a row a file, in the order of the archive: name, uri (strings) and size (int64).

    encrypted: rows whose data are. left_out: {what they are: members that are no rows}. notes: on the archive itself.
    """

    table: pa.Table
    encrypted: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def damaged(uri: str, kind: str, what: str) -> ManifestError:
    """The error for an archive that is cut or contradicts itself."""
    return ManifestError(f"{shown(uri)}: is not a whole {kind} archive: {what}. Copy it again, or write it again.")


def files_of(
    uri: str,
    named: pa.Array,
    texts: pa.Array,
    size: np.ndarray,
    at: Sequence[pa.Array],
    *,
    folders: np.ndarray,
    others: Mapping[str, np.ndarray],
    encrypted: np.ndarray | None = None,
    notes: Sequence[str] = (),
) -> Directory:
    """The files among the members of an archive.

    named, texts: the names as bytes and as text, which becomes NFC here. at: the parts of the address, strings.
    folders, others: which members are folders, and which are no files for another reason; both (n,) bool.
    """
    free = ~folders
    reasons = {
        **others,
        "files of an operating system (__MACOSX, names with a point in front)": matches(texts, _SYSTEM),
        f"members with names of more than {MAX_NAME_BYTES:,} bytes": name_lengths(named) > MAX_NAME_BYTES,
    }
    counts = {}
    for what, hits in reasons.items():
        counts[what] = int((hits & free).sum())
        free = free & ~hits
    last = _last_of_each_name(named)
    counts["older members of a name that occurs again, of which the last counts"] = int((free & ~last).sum())
    kept = free & last
    uris = _uris(uri, named.filter(pa.array(kept)), [part.filter(pa.array(kept)) for part in at])
    table = pa.table(
        {"name": _composed(texts.filter(pa.array(kept))), "uri": uris, "size": pa.array(size[kept], pa.int64())}
    )
    n_encrypted = 0 if encrypted is None else int((encrypted & kept).sum())
    return Directory(table, n_encrypted, {what: count for what, count in counts.items() if count}, tuple(notes))


def matches(texts: pa.Array, pattern: str) -> np.ndarray:
    """(n,) bool: where the pattern is found."""
    found = pc.call_function("match_substring_regex", [texts], pc.MatchSubstringOptions(pattern))
    return found.to_numpy(zero_copy_only=False).astype(bool)


def name_lengths(named: pa.Array) -> np.ndarray:
    """(n,) bytes of each name."""
    return pc.call_function("binary_length", [named]).to_numpy(zero_copy_only=False)


def is_ascii(named: pa.Array) -> bool:
    """Whether every name consists of visible ASCII signs and blanks, which all encodings share."""
    return bool(matches(named, r"^[\x20-\x7e]*$").all())


def normal(texts: pa.Array) -> pa.Array:
    """Names with composed letters (NFC): macOS writes "o" and its two dots as two characters, most tables as one."""
    return pc.call_function("utf8_normalize", [texts], pc.Utf8NormalizeOptions("NFC"))


def _composed(texts: pa.Array) -> pa.Array:
    """Names with composed letters, but for those of which two would become one."""
    found = normal(texts)
    codes = found.dictionary_encode().indices.to_numpy()
    return pc.call_function("if_else", [pa.array(np.bincount(codes)[codes] > 1, pa.bool_()), texts, found])


def _last_of_each_name(named: pa.Array) -> np.ndarray:
    codes = named.dictionary_encode().indices.to_numpy()
    last = np.full(int(codes.max(initial=-1)) + 1, -1, np.int64)
    last[codes] = np.arange(len(codes))  # of repeated positions the last assignment stays
    return last[codes] == np.arange(len(codes))


def _uris(uri: str, named: pa.Array, at: Sequence[pa.Array]) -> pa.Array:
    quoted = _quoted(named)
    if (len(uri.encode()) + 120) * len(quoted) + quoted.nbytes > MAX_URI_BYTES:
        raise ManifestError(f"{shown(uri)}: holds {len(quoted):,} files, too many for one table. Split the archive.")
    facts = pc.call_function("binary_join_element_wise", [*at, ":"])
    front = pa.scalar(f"{uri}#member=")
    return pc.call_function("binary_join_element_wise", [front, quoted, pa.scalar("&at="), facts, pa.scalar("")])


def _quoted(named: pa.Array) -> pa.Array:
    """Names as percent-quoted text. Slashes stay, but where steps such as `..` would be resolved by who takes the text
    for a path."""
    odd = matches(named, r"(^|/)\.{0,2}(/|$)")
    if not odd.any() and matches(named, r"^[A-Za-z0-9_.~/-]*$").all():
        return named.cast(pa.string())
    pairs = zip(named.to_pylist(), odd, strict=True)
    return pa.array([quote_from_bytes(name, safe="" if each else "/") for name, each in pairs], pa.string())
