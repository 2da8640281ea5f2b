"""Files that fsspec reaches, one attempt at each verb of `Storage`: gs://, az:// and memory://.

The file systems are made for each process, keep no listings, and their whole-file calls are used: an fsspec file that
is open for writing commits what it holds even when its writer failed.
"""

from __future__ import annotations

import logging
import os
import threading
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import fsspec
from fsspec.asyn import sync

from chexray.grouping import grouped
from chexray.storage.protocols import PROTOCOLS, Protocol, scheme_of
from chexray.storage.service_failures import advice, explain, status_of
from chexray.storage.uris import FileStat, StorageFailure, is_web, join, named, parent, shared_folder, split

if TYPE_CHECKING:
    from chexray.storage import Storage

THREADS = 16
FEW_FILES = 256
"""Up to so many files are asked for one by one; more are looked up in one listing of the folder they share."""
SLOWEST = 1 << 20
"""Bytes a transfer must move in `timeout_s`, beyond the wait for its first byte."""
PRECONDITION_FAILED, PAST_THE_END = 412, 416

for _noisy in ("gcsfs", "google.auth", "azure", "adlfs"):
    # They log the traceback of a failure that is told in one line here, and in it the address with its parameters.
    logging.getLogger(_noisy).setLevel(logging.CRITICAL)

_NAMES = {"abfss": "abfs"}
"""Of schemes that fsspec knows by another name."""

_open: dict[tuple[int, str, str, Storage], Any] = {}
_lock = threading.Lock()


def _new_lock() -> None:
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_new_lock)  # another thread of the parent may hold the old one, for ever


def files_of(uri: str, storage: Storage) -> Any:
    """What performs the verbs where `uri` lies, one for each process: threads share it, a fork gets its own."""
    scheme, front = scheme_of(uri), split(uri)[0]
    if "@" in front and is_web(uri):
        raise StorageFailure("an address holds a user or password, and messages repeat it. Put them into ~/.netrc.")
    # An account of Azure may be part of the URI; elsewhere one connection serves every bucket.
    key = (os.getpid(), scheme, front if scheme.startswith("a") else "", storage)
    with _lock:
        if key not in _open:
            _open[key] = _made(scheme, front, storage)
        return _open[key]


def _made(scheme: str, front: str, storage: Storage) -> Any:
    """Raises StorageFailure, naming the extra, where the package for a protocol is missing."""
    protocol = PROTOCOLS[scheme]
    try:
        if scheme in ("http", "https"):
            from chexray.storage.web_files import WebFiles

            return WebFiles(storage)
        if scheme == "hf":
            from chexray.storage.hub_files import HubFiles

            return HubFiles(storage)
        kind = _google() if protocol is PROTOCOLS["gs"] else fsspec.get_filesystem_class(_NAMES.get(scheme, scheme))
        options = kind._get_kwargs_from_urls(f"{front}/x")
        filesystem = kind(use_listings_cache=False, skip_instance_cache=True, **options)
        _try_once(getattr(filesystem, "service_client", None))
        return FsspecFiles(protocol, filesystem, storage)
    except ImportError as error:
        raise missing(scheme, protocol, error) from None
    except Exception as error:
        text = f"{named(front)}: {protocol.place} cannot be set up ({type(error).__name__}). {advice(protocol)}"
        raise StorageFailure(text, code="denied") from None


def _google() -> Any:
    """gcsfs with one attempt a request: its own six, with growing waits, would multiply those of `Storage`."""
    from gcsfs.core import GCSFileSystem  # pyright: ignore[reportMissingImports] - an extra

    once = getattr(GCSFileSystem._request, "__wrapped__", GCSFileSystem._request)
    return type("GoogleFiles", (GCSFileSystem,), {"_request": once})


def _key_of(name: str) -> str:
    """The key in a listed name, which has the bucket in front."""
    return name.lstrip("/").partition("/")[2]


def _try_once(client: Any) -> None:
    """Azure's client waits 15 s and more before each of its own attempts."""
    for policy in getattr(getattr(client, "_pipeline", None), "_impl_policies", ()):
        if hasattr(policy, "total_retries"):
            policy.total_retries = 0


def missing(scheme: str, protocol: Protocol, error: ImportError) -> StorageFailure:
    extra = f"chexray[{protocol.extra}]" if protocol.extra else protocol.needs
    lacking = (error.name or protocol.needs).split(".")[0]
    return StorageFailure(f"{scheme}:// needs the package {lacking}, which is not installed: pip install '{extra}'")


class FsspecFiles:
    """One file system of fsspec. Methods make one attempt and let errors pass to `explain`."""

    def __init__(self, protocol: Protocol, filesystem: Any, storage: Storage):
        self.protocol, self.storage, self._filesystem = protocol, storage, filesystem

    def filesystem(self) -> Any:
        """For a library that writes by itself."""
        return self._filesystem

    def read(self, uri: str, start: int = 0, length: int | None = None) -> bytes:
        part = {} if length is None else {"start": start, "end": start + length}
        try:
            data = self._call("cat_file", length or 0, uri, **part)
        except Exception as error:
            if length is not None and status_of(error) == PAST_THE_END:
                return b""
            raise
        if length is not None and len(data) > length:
            raise StorageFailure(f"{uri}: {length} bytes were asked for, and {len(data)} came.", code="corrupt")
        return data

    def write(self, uri: str, data: bytes) -> None:
        self._call("pipe_file", len(data), uri, data)

    def create(self, uri: str, data: bytes) -> bool:
        """One conditional upload: ifGenerationMatch on Google's, If-None-Match on Azure's. Memory has a lock."""
        try:
            with _lock if self.protocol is PROTOCOLS["memory"] else nullcontext():
                self._call("pipe_file", len(data), uri, data, mode="create")
        except Exception as error:
            if isinstance(error, FileExistsError) or status_of(error) == PRECONDITION_FAILED:
                return False
            raise
        return True

    def delete(self, uri: str) -> None:
        self._call("rm_file", 0, uri)

    def is_dir(self, uri: str) -> bool:
        try:  # `isdir` takes every failure for a no
            return self._call("info", 0, uri.rstrip("/")).get("type") == "directory"
        except (FileNotFoundError, NotADirectoryError):
            return False

    def list(self, uri: str, attempt: Callable) -> list[FileStat]:
        found = attempt(uri, lambda: self._call("find", 0, uri.rstrip("/"), detail=True))
        found = found if isinstance(found, dict) else {}  # of a file Azure's gives a list
        front, path = split(uri)
        below = f"{path}/" if path else ""
        # Names come with the bucket, and what is listed may be a file that only begins like the folder.
        names = ((_key_of(name), info) for name, info in found.items() if info.get("type", "file") == "file")
        kept = ((key, info) for key, info in names if key.startswith(below) and not key.endswith("/"))
        return [self._stat(join(front, key), info) for key, info in kept]

    def folders(self, uri: str, attempt: Callable) -> list[str]:
        try:
            found = attempt(uri, lambda: self._call("ls", 0, uri.rstrip("/"), detail=True))
        except StorageFailure as error:
            if error.code != "not_found":
                raise
            return []
        front, here = split(uri)
        names = [_key_of(info["name"]).rstrip("/") for info in found if info.get("type") == "directory"]
        return [join(front, name) for name in names if name and name != here]

    def stat(self, uris: Sequence[str], attempt: Callable) -> dict[str, FileStat | None]:
        known: dict[str, FileStat | None] = {}
        for group in grouped((split(uri)[0], uri) for uri in uris).values():
            if len(group) <= FEW_FILES:
                with ThreadPoolExecutor(THREADS) as pool:
                    found = pool.map(lambda uri: attempt(uri, lambda: self._info(uri)), group)
                    known |= dict(zip(group, found, strict=True))
            else:
                listed = {entry.uri: entry for entry in self.list(shared_folder(group) or parent(group[0]), attempt)}
                known |= {uri: listed.get(uri) for uri in group}
        return known

    def _info(self, uri: str) -> FileStat | None:
        try:
            info = self._call("info", 0, uri)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return self._stat(uri, info) if info.get("type", "file") == "file" else None

    def _stat(self, uri: str, info: dict[str, Any]) -> FileStat:
        return FileStat(uri, int(info["size"]), self._version(uri, info))

    def _version(self, uri: str, info: dict[str, Any]) -> str:
        if self.protocol is PROTOCOLS["memory"]:
            return f"{zlib.crc32(self._filesystem.cat_file(uri)):08x}"
        found = next((info[key] for key in _VERSIONS if info.get(key)), None)
        if found is None:
            raise StorageFailure(f"{uri}: its service tells no version of it, by which a changed file is known.")
        return str(found.hex() if isinstance(found, bytes | bytearray) else found).strip('"')

    def _call(self, verb: str, n_bytes: int, uri: str, *args: Any, **kwargs: Any) -> Any:
        """One call of the file system; one that is asynchronous is given up after the time that its bytes justify."""
        coroutine = getattr(self._filesystem, f"_{verb}", None) if self._filesystem.async_impl else None
        if coroutine is None:
            return getattr(self._filesystem, verb)(uri, *args, **kwargs)
        patience = 2 * self.storage.timeout_s + self.storage.timeout_s * n_bytes / SLOWEST
        timeout = None if verb == "find" else patience
        return sync(self._filesystem.loop, coroutine, uri, *args, timeout=timeout, **kwargs)

    def explain(self, uri: str, error: Exception) -> StorageFailure:
        return explain(error, uri, self.protocol, self.storage)


_VERSIONS = ("md5Hash", "content_md5", "etag", "ETag", "generation", "mtime", "last_modified", "updated")
