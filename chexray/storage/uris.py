"""Names of files: local paths and URIs joined, split and kept inside their root, without touching storage."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from chexray.errors import StorageError
from chexray.storage.protocols import REMOTE
from chexray.text import shown


class StorageFailure(StorageError):
    """A StorageError that also says what kind it is.

    `code`: "not_found", "denied", "unavailable", "corrupt" (a checksum), "refused" (types or sizes
    that are not read), "too_large" (for who asked), "disk_full", "is_folder" or "failed".
    """

    def __init__(self, message: str, *, code: str = "failed", transient: bool = False):
        super().__init__(message, transient=transient)
        self.code = code


class Damaged(Exception):
    """Bytes that fail a checksum kept inside the file. The text says which, without the name of the file."""


@dataclass(frozen=True, slots=True)
class FileStat:
    """One file as listed: `size` in bytes, and a `version` that changes when the content does.

    `version` is the modification time in nanoseconds for a local file, the ETag on S3, a hash of the content on
    Hugging Face and Google Cloud Storage, and the ETag or the time of a web server's file; bytes that are no text are
    escaped.
    """

    uri: str
    size: int
    version: str

    def __post_init__(self) -> None:
        if not self.version.isascii():
            object.__setattr__(self, "version", self.version.encode("utf-8", "backslashreplace").decode())


def checked_endpoint(url: str, name: str) -> str:
    """The URL of an S3 service without a slash at its end. `name`: the setting it comes from, for the message."""
    if "@" in url:
        raise StorageFailure(f"{name} holds a user or password. Set AWS_ACCESS_KEY_ID and so on instead.")
    if not re.fullmatch(r"https?://[^/\s]+(/\S*)?", url):
        raise StorageFailure(f"{name} is {url!r}. Write it as https://host:port, or http:// for a server without TLS.")
    return url.rstrip("/")


def is_remote(uri: str) -> bool:
    """True for the protocols of `storage.protocols`; False for local paths, file:// included."""
    return uri.startswith(REMOTE)


def is_s3(uri: str) -> bool:
    """True for s3:// and s3a://."""
    return uri.startswith(("s3://", "s3a://"))


def is_web(uri: str) -> bool:
    """True for http:// and https://, whose servers decode %-escapes."""
    return uri.startswith(("http://", "https://"))


def named(uri: str) -> str:
    """A URI for a message: of a web address without a user, and without what follows "?", which may be a token."""
    if not is_web(uri):
        return shown(uri)
    address, query, _ = re.sub(r"(?<=://)[^/]*@", "", uri).partition("?")
    return shown(f"{address}?..." if query else address)


def local_path(uri: str) -> str:
    """The path of a local URI. Raises StorageError for a scheme chexray does not speak."""
    if uri.startswith("file://"):
        return unquote(urlsplit(uri).path)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", uri):
        known = ", ".join(REMOTE)
        raise StorageFailure(f"{shown(uri)}: only local paths and {known} are read. Copy the data to one of these.")
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


HUB_KINDS = ("datasets", "spaces", "models", "buckets", "kernels")
"""First steps of hf:// URIs that are none of the repository's name."""


def split(uri: str) -> tuple[str, str]:
    """The fixed front of a URI ("s3://bucket", "/" or "") and the path below it, without "/" at either end.

    The front of hf:// is the repository with its revision, that of http:// the host with its port.
    """
    if is_remote(uri):
        scheme, _, rest = uri.partition("://")
        steps = rest.split("/")
        n = 1 if scheme != "hf" else 3 if steps[0] in HUB_KINDS else 2
        return f"{scheme}://{'/'.join(steps[:n])}", "/".join(steps[n:]).strip("/")
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
    """`uri` as any process of this machine understands it: local paths absolute, "~" expanded; others untouched."""
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


def folder_of_cells(uris: Iterable[str]) -> str:
    """`shared_folder` of the cells of a table, "" where it is neither on this machine nor on S3: a table that somebody
    else wrote must not choose which servers are asked, such as those that only this network reaches."""
    folder = shared_folder(uris)
    return folder if is_s3(folder) or not is_remote(folder) else ""


def inside(root: str, relative: str) -> str:
    """The URI of `relative` below `root`, with "." and ".." resolved in the text. Absolute ones inside root are fine.

    Raises StorageError when it leaves `root` in any spelling: "..", "%2e%2e", backslashes, another scheme or bucket.
    A "%2F" in front leads out of a folder of this machine for whoever decodes it; elsewhere it is part of a key, or
    joined to the root before it is decoded.
    The test is lexical: a symbolic link inside root may still lead out of it, which is its owner's choice.
    """
    outside = StorageFailure(f"{relative!r} leaves its root {root}. Name files below the root, or set another root.")
    below = relative
    if relative.startswith(("/", "file://")) or is_remote(relative):
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
