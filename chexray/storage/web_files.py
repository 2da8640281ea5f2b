"""Files of a web server, http:// and https://, read whole or in exact ranges; nothing is written or listed there.

fsspec holds the session and the event loop. The requests are our own, because fsspec follows redirects to any host,
takes the whole file of a server without ranges for the part asked for, and believes the length of a packed answer.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

import aiohttp
from fsspec.asyn import sync
from fsspec.implementations.http import HTTPFileSystem
from yarl import URL

from chexray.storage.protocols import PROTOCOLS
from chexray.storage.read_only import ReadOnly
from chexray.storage.service_failures import explain
from chexray.storage.uris import FileStat, StorageFailure, named, split
from chexray.text import shown

if TYPE_CHECKING:
    from chexray.storage import Storage

THREADS = 16
CONNECT_TIMEOUT_S = 5.0
MOST_REDIRECTS = 5
SKIPPED_BYTES = 16 << 20
"""A server without ranges sends the whole file for each part; a longer one is refused, since a large file is read in
many parts."""
LARGEST = 1 << 31
"""Bytes of a file that is read whole: twice what a table may have. Archives and Parquet files are read in parts."""
SLOWEST = 1 << 20
"""Bytes an answer must move in `timeout_s`, beyond the wait for its first byte."""
REDIRECTS = (301, 302, 303, 307, 308)
PARTIAL, PAST_THE_END = 206, 416
NO_HEAD = (403, 405, 501)
"""What servers answer that allow only GET."""
_FIRST_BYTE = {"Range": "bytes=0-0"}
_ESCAPE = re.compile(r"(%[0-9A-Fa-f]{2})")
_PORTS = {"http": 80, "https": 443}


class Answered(Exception):
    """A status that brings no file; `Storage` tries again where it may pass."""

    def __init__(self, status: int):
        super().__init__(status)
        self.status = status


class WebFiles(ReadOnly):
    """One session. Methods take http(s):// URIs, make one attempt and let errors pass to `explain`."""

    def __init__(self, storage: Storage):
        self.storage = storage
        self._filesystem: Any = None
        self._connecting = threading.Lock()

    def filesystem(self) -> Any:
        with self._connecting:
            if self._filesystem is None:
                s = self.storage
                timeout = aiohttp.ClientTimeout(
                    total=None, sock_connect=min(CONNECT_TIMEOUT_S, s.timeout_s), sock_read=s.timeout_s
                )
                self._filesystem = HTTPFileSystem(
                    use_listings_cache=False, skip_instance_cache=True,
                    client_kwargs={"trust_env": True, "auto_decompress": False, "timeout": timeout},
                )  # fmt: skip
            return self._filesystem

    def _wait(self, action: Callable, *args: object) -> Any:
        return cast(Any, sync)(self.filesystem().loop, action, *args)

    def read(self, uri: str, start: int = 0, length: int | None = None, *, most: int | None = None) -> bytes:
        """most: bytes of a whole file; a longer one is a StorageFailure of code "too_large"."""
        return self._wait(self._get, uri, start, length, LARGEST if most is None else most)

    async def _get(self, uri: str, start: int, length: int | None, most: int) -> bytes:
        end = None if length is None else start + length
        headers = {} if end is None else {"Range": f"bytes={start}-{end - 1}"}
        answer = await self._send("GET", uri, headers)
        timeout_s = self.storage.timeout_s
        async with answer:
            if end is None:
                _refuse(answer)
                return await _whole(answer, uri, most, timeout_s)
            if answer.status == PAST_THE_END:
                return b""
            _refuse(answer)
            if answer.status == PARTIAL:
                return await _part(answer, uri, start, end, timeout_s)
            return await _skipped(answer, uri, start, end, timeout_s)

    def stat(self, uris: Sequence[str], attempt: Callable) -> dict[str, FileStat | None]:
        with ThreadPoolExecutor(THREADS) as pool:
            found = pool.map(lambda uri: attempt(uri, lambda: self._stat(uri)), uris)
            return dict(zip(uris, found, strict=True))

    def _stat(self, uri: str) -> FileStat | None:
        if uri.endswith("/") or not split(uri)[1]:
            return None
        head = self._wait(self._head, uri)
        if head is None:
            return None
        size, etag, changed = head
        if not (etag or changed):
            raise StorageFailure(
                f"{named(uri)}: its server tells neither ETag nor Last-Modified, by which a changed file is known. "
                "Copy it to a folder, and name that.",
                code="refused",
            )
        return FileStat(uri, size, etag or f"changed {changed}")

    async def _head(self, uri: str) -> tuple[int, str, str] | None:
        """Size, ETag and Last-Modified; None where no file is. By a GET of one byte where HEAD does not tell the size,
        or is not allowed."""
        for verb, headers in (("HEAD", {}), ("GET", _FIRST_BYTE)):
            answer = await self._send(verb, uri, headers, may_be_folder=True)
            async with answer:
                if answer.status in (404, 410) or (answer.status in REDIRECTS):
                    return None
                if verb == "HEAD" and (answer.status in NO_HEAD or "Content-Length" not in answer.headers):
                    continue
                if answer.status == PAST_THE_END:
                    size = _total(answer)
                else:
                    _refuse(answer)
                    size = _total(answer) if answer.status == PARTIAL else answer.content_length
                if size is None:
                    raise StorageFailure(f"{named(uri)}: its server does not tell its size. Copy it to a folder.")
                return size, answer.headers.get("ETag", ""), answer.headers.get("Last-Modified", "")
        raise AssertionError("the second request returns or raises")

    def is_dir(self, uri: str) -> bool:
        """True for a host, for what ends with "/", and for what the server redirects to itself with a "/"."""
        if uri.endswith("/") or not split(uri)[1]:
            return True
        return self._wait(self._is_folder, uri)

    async def _is_folder(self, uri: str) -> bool:
        for verb in ("HEAD", "GET"):
            answer = await self._send(verb, uri, _FIRST_BYTE if verb == "GET" else {}, may_be_folder=True)
            answer.close()
            if answer.status not in NO_HEAD:
                break
        if answer.status not in (404, 410, *REDIRECTS):
            _refuse(answer)
        return answer.status in REDIRECTS

    def folders(self, uri: str, attempt: Callable) -> list[str]:
        return self.list(uri, attempt)  # pyright: ignore[reportReturnType] - it raises

    def list(self, uri: str, attempt: Callable) -> list[FileStat]:
        raise StorageFailure(
            f"{named(uri)}: a web server lists no files. Name a table of the images, a Parquet file or an archive.",
            code="refused",
        )

    async def _send(
        self, verb: str, uri: str, headers: dict[str, str], *, may_be_folder: bool = False
    ) -> aiohttp.ClientResponse:
        """The answer, after redirects within the host. may_be_folder: one that only adds a "/" is not followed."""
        session = await self.filesystem().set_session()
        url = begin = URL(encoded(uri), encoded=True)
        headers = {**headers, "Accept-Encoding": "identity"}  # or ranges would be those of the packed file
        for _ in range(MOST_REDIRECTS + 1):
            async with asyncio.timeout(self.storage.timeout_s + CONNECT_TIMEOUT_S):  # for headers in drops
                answer = await session.request(verb, url, headers=headers, allow_redirects=False)
            if answer.status not in REDIRECTS:
                return answer
            answer.close()
            target = url.join(URL(answer.headers.get("Location", ""), encoded=True))
            if not _same_host(begin, target):
                hub = ", or write hf://datasets/OWNER/NAME" if begin.host == "huggingface.co" else ""
                raise StorageFailure(
                    f"{named(uri)}: redirects to another host, {shown(target.raw_host, 100)}:{target.port}, which is "
                    f"not asked. Name the address that it leads to{hub}.",
                    code="refused",
                )
            if may_be_folder and target.raw_path == f"{url.raw_path}/":
                return answer
            url = target
        raise StorageFailure(f"{named(uri)}: more than {MOST_REDIRECTS} redirects.", code="refused")

    def explain(self, uri: str, error: Exception) -> StorageFailure:
        return explain(error, uri, PROTOCOLS["http"], self.storage)


def encoded(uri: str) -> str:
    """A URI as it is sent: escapes stay, and every other sign that is not of a path is escaped, "?" and "#" too."""
    front, path = split(uri)
    steps = _ESCAPE.split(f"{path}/" if path and uri.endswith("/") else path)
    return f"{front}/" + "".join(step if n % 2 else quote(step, safe="/:@!$&'()*+,;=~") for n, step in enumerate(steps))


def _same_host(one: URL, other: URL) -> bool:
    if one.host != other.host or other.user or other.password:
        return False
    upgraded = one.scheme == "http" and other.scheme == "https" and one.port == 80 and other.port == 443
    return upgraded or (one.scheme, one.port) == (other.scheme, other.port)


def _refuse(answer: aiohttp.ClientResponse) -> None:
    if answer.status >= 300:
        raise Answered(answer.status)


def _total(answer: aiohttp.ClientResponse) -> int | None:
    found = re.fullmatch(r"bytes (?:\*|\d+-\d+)/(\d{1,18})", answer.headers.get("Content-Range", ""))
    return int(found[1]) if found else None


async def _bounded(answer: aiohttp.ClientResponse, most: int, timeout_s: float) -> bytes | None:
    """The content of an answer, None where it is longer than `most` bytes: then the rest is not read.

    aiohttp raises for an answer that ends early; one need not say its length, or end at all. It measures only the
    pauses between two bytes.
    """
    if (answer.content_length or 0) > most:
        return None
    blocks, size, begin = [], 0, asyncio.get_running_loop().time()
    async with asyncio.timeout(timeout_s) as patience:
        async for block in answer.content.iter_chunked(1 << 20):
            blocks.append(block)
            size += len(block)
            if size > most:
                return None
            patience.reschedule(begin + timeout_s * (1 + size / SLOWEST))
    return b"".join(blocks)


async def _whole(answer: aiohttp.ClientResponse, uri: str, most: int, timeout_s: float) -> bytes:
    data = await _bounded(answer, most, timeout_s)
    if data is None and most < LARGEST:
        raise StorageFailure(f"{named(uri)}: a file of more than {most:,} bytes.", code="too_large")
    if data is None:
        raise StorageFailure(f"{named(uri)}: more than {LARGEST:,} bytes; copy it to a folder.", code="refused")
    return data


async def _part(answer: aiohttp.ClientResponse, uri: str, start: int, end: int, timeout_s: float) -> bytes:
    """The bytes of a partial answer, which must begin where they were asked for."""
    found = re.fullmatch(r"bytes (\d{1,18})-(\d{1,18})/(?:\*|\d+)", answer.headers.get("Content-Range", ""))
    fits = found is not None and int(found[1]) == start <= int(found[2]) < end
    size = int(found[2]) + 1 - start if found and fits else 0
    data = await _bounded(answer, size, timeout_s) if fits else None
    if data is None:
        raise StorageFailure(f"{named(uri)}: other bytes came than bytes={start}-{end - 1}.", code="corrupt")
    if len(data) != size:
        raise ConnectionError("cut short")
    return data


async def _skipped(answer: aiohttp.ClientResponse, uri: str, start: int, end: int, timeout_s: float) -> bytes:
    """The part of a whole file that was sent in place of it."""
    data = None if answer.content_length is None else await _bounded(answer, SKIPPED_BYTES, timeout_s)
    if data is None:
        raise StorageFailure(
            f"{named(uri)}: its server sends whole files where a part is asked for. Copy it to a folder, or use a "
            "server that answers range requests.",
            code="refused",
        )
    return data[start:end]
