"""Copies of remote weights in a private cache: whole or not at all, bounded, fetched again when they have changed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit, urlunsplit

from chexray.errors import WeightsError
from chexray.storage import Storage, is_s3
from chexray.text import shown

LARGEST_FILE = 20_000_000_000
"""Bytes of a file of weights. The largest vision networks in use take 8 GB; hashing 20 GB takes about a minute."""
_COPY_BYTES = 2**20


def hash_file(path: Path) -> str:
    """sha256 of a file, 64 hex digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def cache_root() -> Path:
    """`$CHEXRAY_CACHE/weights`, or `~/.cache/chexray/weights`; readable by this user only."""
    root = Path(os.environ.get("CHEXRAY_CACHE") or Path.home() / ".cache" / "chexray") / "weights"
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    return root


def public_url(reference: str) -> str:
    """The reference without user, password, query or fragment: presigned URLs carry secrets there."""
    if "://" not in reference:
        return reference
    parts = urlsplit(reference)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def copy_bounded(source: Any, target: IO[bytes], largest: int) -> None:
    """Copies a stream that says nothing reliable about its length. Raises WeightsError above `largest` bytes."""
    copied = 0
    while block := source.read(_COPY_BYTES):
        copied += len(block)
        if copied > largest:
            raise WeightsError(f"the download has more than {largest:,} bytes")
        target.write(block)


def fetch(url: str, target: Path, storage: Storage | None, expected: str, largest: int = LARGEST_FILE) -> Path:
    """`target`, a current copy of the file at `url`. expected: a sha256 with which a copy is used without asking.

    Raises WeightsError above `largest` bytes, and what storage or fsspec raise.
    """
    note = target.with_name(target.name + ".json")
    sha256 = hash_file(target) if target.is_file() else ""
    if expected and sha256 == expected:
        return target
    state, size = _remote_state(url, storage)
    if size > largest:
        raise WeightsError(
            f"{shown(public_url(url))} has {size:,} bytes; files of that kind above {largest:,} are not read"
        )
    if sha256 and state and _noted(note) == {"state": state, "sha256": sha256}:
        return target
    with atomic(target) as stream:
        if storage is not None and is_s3(url):
            stream.write(storage.read(url))
        else:
            import fsspec

            with fsspec.open(url, "rb") as source:
                copy_bounded(source, stream, largest)
    with atomic(note) as stream:
        stream.write(json.dumps({"state": state, "sha256": hash_file(target)}).encode())
    return target


def _noted(note: Path) -> Any:
    """What is known of a cached copy; None where nothing is, or the note is damaged."""
    try:
        return json.loads(note.read_text()) if note.is_file() else None
    except ValueError:
        return None


def _remote_state(url: str, storage: Storage | None) -> tuple[str, int]:
    """Size and version of a remote file as its server tells them, or "" when it tells nothing that can be trusted.

    And the size alone, 0 where it is not told.
    """
    if storage is not None and is_s3(url):  # it knows endpoint and credentials of S3; fsspec knows the rest
        found = storage.stat([url])[0]
        return (f"{found.size}/{found.version}" if found.version else "", found.size) if found else ("", 0)
    import fsspec

    filesystem, path = fsspec.core.url_to_fs(url)
    facts = filesystem.info(path)
    version = next((facts[key] for key in ("ETag", "etag", "mtime", "LastModified", "updated") if facts.get(key)), "")
    size = facts.get("size")
    return f"{size}/{version}" if version else "", size if isinstance(size, int) else 0


@contextlib.contextmanager
def atomic(target: Path):
    """A temporary file beside `target` that replaces it only when everything went well: two workers may race."""
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".part-", delete=False) as stream:
        try:
            yield stream
            stream.flush()
            os.replace(stream.name, target)
        except BaseException:
            os.unlink(stream.name)
            raise
