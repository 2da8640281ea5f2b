"""Objects in S3 or what speaks it: the verbs of `Storage`, one attempt each.

s3fs holds the session, the credentials and the event loop. The calls go to its client directly: s3fs would retry each
of them on top of botocore's own retries (20 answers of 503 take 36 s so), read an object's head before its body, and
list from a cache that other writers do not update.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, cast

import botocore.exceptions as boto
import s3fs
from fsspec.asyn import sync

from chexray.grouping import grouped
from chexray.storage.s3_failures import Unidentified, explain
from chexray.storage.s3_session import endpoint_of_environment, endpoint_of_profile, session_of
from chexray.storage.uris import FileStat, StorageFailure

if TYPE_CHECKING:
    from chexray.storage import Storage
from chexray.storage.s3_keys import Answer, address, below, entries_of, folders_of, just_before, version_of
from chexray.text import shown

THREADS = 16
FEW_KEYS = 8
"""Up to so many keys are asked for one by one; more are looked up in listings."""
PAGE_KEYS = 1000
"""Keys in one page of a listing; S3 gives no more."""
CONNECT_TIMEOUT_S = 5.0
CREDENTIALS_TIMEOUT_S = 15.0
"""For a token service or an instance's metadata service; botocore alone would wait for minutes."""
PRECONDITION_FAILED, PAST_THE_END = 412, 416
SLOWEST = 1 << 20
"""Bytes a transfer must move in `timeout_s`, beyond the wait for its first byte, or it counts as stalled. aiohttp
measures the pauses between the bytes of an answer, but an upload that nobody reads would hang for ever."""

for _noisy in ("aiobotocore.credentials", "botocore.credentials"):
    # They log the traceback of a failure that is told in one line here, and in it what a token service answered.
    logging.getLogger(_noisy).setLevel(logging.CRITICAL)

_open: dict[tuple[int, Storage], Buckets] = {}
_lock = threading.Lock()


def _new_lock() -> None:
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_new_lock)  # another thread of the parent may hold the old one, for ever


def buckets(storage: Storage) -> Buckets:
    """The connection for these settings, one for each process: threads share it, a fork gets its own."""
    key = (os.getpid(), storage)
    with _lock:
        if key not in _open:
            _open[key] = Buckets(storage)
        return _open[key]


class Buckets:
    """One S3 session. Methods take s3:// URIs, make one attempt and let errors pass to `explain`."""

    def __init__(self, storage: Storage):
        self.storage = storage
        self.endpoint = storage.endpoint_url or endpoint_of_environment()
        self.payer = {"RequestPayer": "requester"} if storage.requester_pays else {}
        wanted = {"ServerSideEncryption": storage.sse, "SSEKMSKeyId": storage.sse_kms_key_id}
        self.encryption = {name: value for name, value in wanted.items() if value}
        self._filesystem: s3fs.S3FileSystem | None = None
        self._session: Any = None
        self._connecting = threading.Lock()
        self._credentials: list[Any] = []

    def filesystem(self) -> s3fs.S3FileSystem:
        """The session as fsspec knows it, for libraries that write by themselves."""
        with self._connecting:
            if self._filesystem is None:
                s = self.storage
                self._session = session_of(s.profile)
                self.endpoint = self.endpoint or endpoint_of_profile(self._session)
                # EKS and the newer SDKs set AWS_REGION, which botocore does not read.
                region = s.region or os.environ.get("AWS_DEFAULT_REGION") or os.environ.get("AWS_REGION")
                config: dict[str, Any] = {
                    "retries": {"total_max_attempts": 1, "mode": "standard"},
                    "connect_timeout": min(CONNECT_TIMEOUT_S, s.timeout_s),
                    "read_timeout": s.timeout_s,
                    "max_pool_connections": 2 * THREADS,
                }
                if self.endpoint:
                    # bucket.host names do not resolve for servers inside a cluster or at an IP address.
                    config["s3"] = {"addressing_style": "path"}
                self._filesystem = s3fs.S3FileSystem(
                    anon=s.anon, key=s.key, secret=s.secret, token=s.token, endpoint_url=self.endpoint,
                    client_kwargs={"region_name": region} if region else {}, config_kwargs=config,
                    requester_pays=s.requester_pays, s3_additional_kwargs=dict(self.encryption),
                    use_listings_cache=False, skip_instance_cache=True, session=self._session,
                )  # fmt: skip
            return self._filesystem

    def _call(self, verb: str, uri: str, most: int | None = None, /, **arguments: object) -> Answer:
        """One request; a body in the answer is read whole, so that a truncated one fails here, or is None where it is
        longer than `most` bytes."""
        return cast(Answer, sync(self.filesystem().loop, self._request, verb, address(uri)[0], most, arguments))

    async def _request(self, verb: str, bucket: str, most: int | None, arguments: Answer) -> Answer:
        client = await self._client(bucket)
        async with asyncio.timeout(self._patience(len(arguments.get("Body", b"")))):
            answer = await getattr(client, verb)(Bucket=bucket, **arguments, **self.payer)
        if "Body" in answer:
            stream = answer["Body"]
            size = answer.get("ContentLength", 0)
            try:
                async with asyncio.timeout(self._patience(size)):
                    answer["Body"] = None if most is not None and size > most else await stream.read()
            finally:
                stream.close()
        return answer

    def _patience(self, n_bytes: int) -> float:
        """Seconds after which a transfer of this size is given up: to connect, to be answered, and to move."""
        timeout = self.storage.timeout_s
        return min(CONNECT_TIMEOUT_S, timeout) + timeout * (1 + n_bytes / SLOWEST)

    async def _client(self, bucket: str) -> Any:
        """A client whose credentials are at hand, so that failing to get them is not taken for the bucket's failure."""
        filesystem = self.filesystem()
        try:
            async with asyncio.timeout(CREDENTIALS_TIMEOUT_S):
                await filesystem.set_session()
                client = await filesystem.get_s3(bucket)
                try:
                    await self._identify()
                except Exception as error:
                    raise Unidentified from error
        except TimeoutError as error:
            raise Unidentified from error
        return client

    async def _identify(self) -> None:
        """Fetches temporary credentials, or new ones in place of those about to expire."""
        if self.storage.anon or self.storage.key:
            return
        if not self._credentials:
            self._credentials.append(await self._session.get_credentials())
        if self._credentials[0] is not None:  # without any, the request itself says so
            await self._credentials[0].get_frozen_credentials()

    def read(self, uri: str, start: int = 0, length: int | None = None, *, most: int | None = None) -> bytes:
        """most: bytes of a whole object; of a longer one nothing is read (code "too_large")."""
        part: dict[str, Any] = {} if length is None else {"Range": f"bytes={start}-{start + length - 1}"}
        try:
            answer = self._call("get_object", uri, most, Key=address(uri)[1], **part)
            if answer["Body"] is None:
                raise StorageFailure(f"{shown(uri)}: a file of more than {most:,} bytes.", code="too_large")
            return answer["Body"]
        except boto.ClientError as error:
            if part and error.response["ResponseMetadata"]["HTTPStatusCode"] == PAST_THE_END:
                return b""
            raise

    def write(self, uri: str, data: bytes, **condition: str) -> None:
        self._call("put_object", uri, Key=address(uri)[1], Body=data, **self.encryption, **condition)

    def create(self, uri: str, data: bytes) -> bool:
        """One conditional PUT; where a service knows none, a look and a PUT."""
        try:
            self.write(uri, data, IfNoneMatch="*")
        except boto.ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == PRECONDITION_FAILED:
                return False
            if error.response.get("Error", {}).get("Code") != "NotImplemented":
                raise
            if self._head(uri) is not None:
                return False
            self.write(uri, data)
        return True

    def delete(self, uri: str) -> None:
        self._call("delete_object", uri, Key=address(uri)[1])

    def is_dir(self, uri: str) -> bool:
        page = self._call("list_objects_v2", uri, Prefix=below(uri), MaxKeys=1)
        return bool(page.get("Contents"))

    def list(self, uri: str, attempt: Callable) -> list[FileStat]:
        """Each page is tried again by itself: of a hundred pages some would fail in every pass."""
        return [entry for page in self._pages(uri, attempt) for entry in entries_of(uri, page)]

    def folders(self, uri: str, attempt: Callable) -> list[str]:
        return [folder for page in self._pages(uri, attempt, Delimiter="/") for folder in folders_of(uri, page)]

    def _pages(self, uri: str, attempt: Callable, **how: str) -> Iterator[Answer]:
        span: dict[str, Any] = {"Prefix": below(uri), "MaxKeys": PAGE_KEYS, **how}
        while True:
            page = attempt(uri, lambda span=span: self._call("list_objects_v2", uri, **span))
            yield page
            if not page.get("IsTruncated"):
                return
            span = {**span, "ContinuationToken": page["NextContinuationToken"]}

    def stat(self, uris: Sequence[str], attempt: Callable) -> dict[str, FileStat | None]:
        """HEADs for a few keys; otherwise listings that start just before the next key still unknown.

        Every page answers for all wanted keys in its range, so the requests are at most one a key and at most one
        per PAGE_KEYS objects of the bucket, whatever the folders look like: a folder for each study costs no HEAD each.
        """
        if len(uris) <= FEW_KEYS:
            return self._heads(uris, attempt)
        as_listed = sorted(uris, key=lambda uri: uri.encode())  # the order in which S3 lists
        groups = grouped((address(uri)[0], uri) for uri in as_listed)
        runs = []
        for group in groups.values():
            width = max(1000, -(-len(group) // THREADS))
            runs += [group[start : start + width] for start in range(0, len(group), width)]
        with ThreadPoolExecutor(THREADS) as pool:
            found = list(pool.map(lambda run: self._scan(run, attempt), runs))
        return {uri: entry for part in found for uri, entry in part.items()}

    def _heads(self, uris: Sequence[str], attempt: Callable) -> dict[str, FileStat | None]:
        with ThreadPoolExecutor(THREADS) as pool:
            return dict(zip(uris, pool.map(lambda uri: attempt(uri, lambda: self._head(uri)), uris), strict=True))

    def _head(self, uri: str) -> FileStat | None:
        try:
            head = self._call("head_object", uri, Key=address(uri)[1])
        except boto.ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                return None
            raise
        return FileStat(uri, head["ContentLength"], version_of(head))

    def _scan(self, run: list[str], attempt: Callable) -> dict[str, FileStat | None]:
        """The stats of sorted uris of one bucket, from as few pages as cover them."""
        keys = [address(uri)[1] for uri in run]
        prefix = os.path.commonprefix(keys)  # noqa: RUF071 - an S3 prefix is made of characters, not of folders
        known: dict[str, FileStat | None] = {}
        after = just_before(keys[0])
        while len(known) < len(run):
            try:
                span = {"Prefix": prefix, "StartAfter": after, "MaxKeys": PAGE_KEYS}
                page = attempt(run[0], lambda part=span: self._call("list_objects_v2", run[0], **part))
            except StorageFailure as error:
                if error.code != "denied":
                    raise
                # Credentials that may read objects need not be allowed to list them.
                return known | self._heads(run[len(known) :], attempt)
            listed = {entry.uri: entry for entry in entries_of(run[0], page)}
            last = page["Contents"][-1]["Key"].encode() if page.get("IsTruncated") else None
            while len(known) < len(run) and (last is None or keys[len(known)].encode() <= last):
                uri = run[len(known)]
                known[uri] = listed.get(uri)
            if last is not None and len(known) < len(run):
                after = max(last.decode(), just_before(keys[len(known)]), key=str.encode)
        return known

    def explain(self, uri: str, error: Exception) -> StorageFailure:
        """The failure in words: the object, the endpoint, the service's error code, never its free text."""
        return explain(error, uri, address(uri)[0], self.endpoint or "AWS S3", self.storage)
