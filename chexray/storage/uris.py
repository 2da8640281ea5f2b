"""Names of files: local paths and s3:// URIs joined, split and kept inside their root, without touching storage."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from chexray.errors import StorageError


class StorageFailure(StorageError):
    """A StorageError that also says what kind it is.

    `code`: "not_found", "denied", "unavailable", "corrupt" (a checksum), "refused" (types or sizes
    that are not read), "disk_full", "is_folder" or "failed".
    """

    def __init__(self, message: str, *, code: str = "failed", transient: bool = False):
        super().__init__(message, transient=transient)
        self.code = code


class Damaged(Exception):
    """Bytes that fail a checksum kept inside the file. The text says which, without the name of the file."""


@dataclass(frozen=True)
class FileStat:
    """One file as listed: `size` in bytes, and a `version` that changes when the content does.

    `version` is the modification time in nanoseconds for a local file, the ETag on S3.
    """

    uri: str
    size: int
    version: str


def checked_endpoint(url: str, name: str) -> str:
    """The URL of an S3 service without a slash at its end. `name`: the setting it comes from, for the message."""
    if "@" in url:
        raise StorageFailure(f"{name} holds a user or password. Set AWS_ACCESS_KEY_ID and so on instead.")
    if not re.fullmatch(r"https?://[^/\s]+(/\S*)?", url):
        raise StorageFailure(f"{name} is {url!r}. Write it as https://host:port, or http:// for a server without TLS.")
    return url.rstrip("/")


def is_remote(uri: str) -> bool:
    """True for s3:// and s3a://; False for local paths, file:// included."""
    return uri.startswith(("s3://", "s3a://"))


def local_path(uri: str) -> str:
    """The path of a local URI. Raises StorageError for a scheme chexray does not speak."""
    if uri.startswith("file://"):
        return unquote(urlsplit(uri).path)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", uri):
        raise StorageFailure(f"{uri}: only local paths and s3:// are supported. Copy the data to one of these.")
    if not uri or "\0" in uri:
        raise StorageFailure(f"{uri!r} is not a path")
    return uri


def join(base: str, *parts: str) -> str:
    """`base` with `parts` below it. A "/" at the front of a part is dropped, so joining never replaces `base`."""
    for part in parts:
        part = part.strip("/") if base else part
        if part:
            base = part if not base else base + part if base.endswith("/") else f"{base}/{part}"
    return base


def split(uri: str) -> tuple[str, str]:
    """The fixed front of a URI ("s3://bucket", "/" or "") and the path below it, without "/" at either end."""
    if is_remote(uri):
        scheme, _, rest = uri.partition("://")
        bucket, _, key = rest.partition("/")
        return f"{scheme}://{bucket}", key.strip("/")
    path = local_path(uri)
    return ("/" if path.startswith("/") else ""), path.strip("/")


def parent(uri: str) -> str:
    """The folder that holds `uri`; a bucket and "/" are their own parents, a bare name has "."."""
    front, path = split(uri)
    return join(front, posixpath.dirname(path)) or "."


def basename(uri: str) -> str:
    """The last component of `uri`, "" for a bucket."""
    return posixpath.basename(split(uri)[1])


def absolute(uri: str) -> str:
    """`uri` as any process of this machine understands it: local paths absolute, "~" expanded; s3:// untouched."""
    return uri if is_remote(uri) else os.path.abspath(os.path.expanduser(local_path(uri)))


def shared_folder(uris: Iterable[str]) -> str:
    """The deepest folder that holds every file, which may be "/" or a whole bucket; "" for no file, for relative paths,
    for several buckets, and for what is no path."""
    try:
        known = {uri if is_remote(uri) else posixpath.normpath(local_path(uri)) for uri in uris}
    except StorageError:
        return ""
    fronts = {split(uri)[0] for uri in known}
    if len(fronts) != 1 or fronts == {""}:
        return ""
    return join(fronts.pop(), posixpath.commonpath([split(parent(uri))[1] for uri in known]))


def inside(root: str, relative: str) -> str:
    """The URI of `relative` below `root`, with "." and ".." resolved in the text. Absolute ones inside root are fine.

    Raises StorageError when it leaves `root` in any spelling: "..", "%2e%2e", backslashes, another scheme or bucket.
    A "%2F" in front leads out of a folder of this machine for whoever decodes it; below s3:// it is part of a key,
    which nobody decodes.
    The test is lexical: a symbolic link inside root may still lead out of it, which is its owner's choice.
    """
    outside = StorageFailure(f"{relative!r} leaves its root {root}. Name files below the root, or set another root.")
    below = relative
    if relative.startswith(("/", "s3://", "s3a://", "file://")):
        (front, base), (other, path) = split(root), split(relative)
        if other != front or (base and path != base and not path.startswith(base + "/")):
            raise outside
        below = path[len(base) :].lstrip("/")
    spellings = [below]
    while (decoded := unquote(spellings[-1])) != spellings[-1]:
        spellings.append(decoded)
    for times, spelling in enumerate(spellings):
        spelling = spelling.replace("\\", "/")
        if times and is_remote(root):
            spelling = spelling.lstrip("/")
        if spelling.startswith("/") or "\0" in spelling or re.match(r"[A-Za-z]:/|[A-Za-z0-9+.-]+://", spelling):
            raise outside
        depth = 0
        for step in spelling.split("/"):
            # Never below zero on the way, not only at the end: "../other/../root" has left it.
            depth += {"": 0, ".": 0, "..": -1}.get(step, 1)
            if depth < 0:
                raise outside
    kept = posixpath.normpath(below) if below else "."
    return root if kept == "." else join(root, kept)
