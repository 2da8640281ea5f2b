"""Objects in S3 or what speaks it: the verbs of `Storage`, one attempt each.

s3fs holds the session, the credentials and the event loop. The calls go to its client directly: s3fs would retry each
of them on top of botocore's own retries (20 answers of 503 take 36 s so), read an object's head before its body, and
list from a cache that other writers do not update.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, cast

import aiohttp
import botocore.exceptions as boto
import botocore.parsers
import s3fs
from fsspec.asyn import sync

from chexray.storage.uris import FileStat, StorageFailure

if TYPE_CHECKING:
    from chexray.storage import Storage

THREADS = 16
FEW_KEYS = 8
"""Up to so many keys are asked for one by one; more are looked up in listings."""
PAGE_KEYS = 1000
"""Keys in one page of a listing; S3 gives no more."""
CONNECT_TIMEOUT_S = 5.0
NO_CREDENTIALS = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.ProfileNotFound,
    boto.TokenRetrievalError,
    boto.SSOError,
)
PASSING = (
    boto.HTTPClientError,
    boto.ConnectionError,
    boto.IncompleteReadError,
    boto.ResponseStreamingError,
    botocore.parsers.ResponseParserError,  # an answer cut short, or a proxy's error page
    aiohttp.ClientError,  # a truncated body is ClientPayloadError, neither an OSError nor one of botocore's
    OSError,
    EOFError,
)
BUSY_CODES = {"SlowDown", "RequestTimeout", "Throttling", "ThrottlingException", "BadDigest", "OperationAborted"}

_open: dict[tuple[int, Storage], Buckets] = {}
_lock = threading.Lock()


def buckets(storage: Storage) -> Buckets:
    """The connection for these settings, one for each process: threads share it, a fork gets its own."""
    with _lock:
        return _open.setdefault((os.getpid(), storage), Buckets(storage))


class Buckets:
    """One S3 session. Methods take s3:// URIs, make one attempt and let errors pass to `explain`."""

    def __init__(self, storage: Storage):
        self.storage = storage
        self.endpoint = (
            storage.endpoint_url or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        )
        self._filesystem: s3fs.S3FileSystem | None = None
        self._connecting = threading.Lock()

    def filesystem(self) -> s3fs.S3FileSystem:
        """The session as fsspec knows it, for libraries that write by themselves."""
        with self._connecting:
            if self._filesystem is None:
                s = self.storage
                # Kubernetes sets AWS_REGION, which botocore does not read.
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
                session: dict[str, Any] = {"profile": s.profile} if s.profile else {}
                self._filesystem = s3fs.S3FileSystem(
                    anon=s.anon,
                    key=s.key,
                    secret=s.secret,
                    token=s.token,
                    endpoint_url=self.endpoint,
                    client_kwargs={"region_name": region} if region else {},
                    config_kwargs=config,
                    use_listings_cache=False,
                    skip_instance_cache=True,
                    **session,
                )
            return self._filesystem

    def _call(self, verb: str, uri: str, **arguments: Any) -> dict[str, Any]:
        """One request; a body in the answer is read whole, so that a truncated one fails here."""
        bucket, _ = address(uri)
        filesystem = self.filesystem()

        async def request() -> dict[str, Any]:
            await filesystem.set_session()
            client = await filesystem.get_s3(bucket)
            answer = await getattr(client, verb)(Bucket=bucket, **arguments)
            if "Body" in answer:
                body = answer["Body"]
                try:
                    answer["Body"] = await body.read()
                finally:
                    body.close()
            return answer

        return cast(dict[str, Any], sync(filesystem.loop, request))

    def read(self, uri: str, start: int = 0, length: int | None = None) -> bytes:
        part = {} if length is None else {"Range": f"bytes={start}-{start + length - 1}"}
        return self._call("get_object", uri, Key=address(uri)[1], **part)["Body"]

    def write(self, uri: str, data: bytes) -> None:
        self._call("put_object", uri, Key=address(uri)[1], Body=data)

    def delete(self, uri: str) -> None:
        self._call("delete_object", uri, Key=address(uri)[1])

    def is_dir(self, uri: str) -> bool:
        page = self._call("list_objects_v2", uri, Prefix=below(uri), MaxKeys=1)
        return bool(page.get("Contents"))

    def list(self, uri: str) -> list[FileStat]:
        found: list[FileStat] = []
        more: dict[str, Any] = {}
        while True:
            page = self._call("list_objects_v2", uri, Prefix=below(uri), MaxKeys=PAGE_KEYS, **more)
            found += _entries(uri, page)
            if not page.get("IsTruncated"):
                return found
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def stat(self, uris: Sequence[str], attempt: Callable) -> dict[str, FileStat | None]:
        """HEADs for a few keys; otherwise listings that start just before the next key still unknown.

        Every page answers for all wanted keys in its range, so the requests are at most one a key and at most one
        per PAGE_KEYS objects of the bucket, whatever the folders look like: a folder for each study costs no HEAD each.
        """
        if len(uris) <= FEW_KEYS:
            return self._heads(uris, attempt)
        groups: dict[str, list[str]] = {}
        for uri in sorted(uris, key=lambda uri: uri.encode()):  # the order in which S3 lists
            groups.setdefault(address(uri)[0], []).append(uri)
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
        return FileStat(uri, head["ContentLength"], _version(head))

    def _scan(self, run: list[str], attempt: Callable) -> dict[str, FileStat | None]:
        """The stats of sorted uris of one bucket, from as few pages as cover them."""
        keys = [address(uri)[1] for uri in run]
        prefix = os.path.commonprefix(keys)  # noqa: RUF071 - an S3 prefix is made of characters, not of folders
        known: dict[str, FileStat | None] = {}
        after = _just_before(keys[0])
        while len(known) < len(run):
            try:
                span = {"Prefix": prefix, "StartAfter": after, "MaxKeys": PAGE_KEYS}
                page = attempt(run[0], lambda part=span: self._call("list_objects_v2", run[0], **part))
            except StorageFailure as error:
                if error.code != "denied":
                    raise
                # Credentials that may read objects need not be allowed to list them.
                return known | self._heads(run[len(known) :], attempt)
            listed = {entry.uri: entry for entry in _entries(run[0], page)}
            last = page["Contents"][-1]["Key"].encode() if page.get("IsTruncated") else None
            while len(known) < len(run) and (last is None or keys[len(known)].encode() <= last):
                uri = run[len(known)]
                known[uri] = listed.get(uri)
            if last is not None and len(known) < len(run):
                after = max(last.decode(), _just_before(keys[len(known)]), key=str.encode)
        return known

    def explain(self, uri: str, error: Exception) -> StorageFailure:
        """The failure in words: the object, the endpoint, the service's error code, never its free text."""
        where = f"{uri} at {self.endpoint or 'AWS S3'}"
        if isinstance(error, boto.ClientError):
            return _explain_answer(uri, where, error)
        if isinstance(error, NO_CREDENTIALS):
            return StorageFailure(
                f"{where}: no usable credentials ({type(error).__name__}). Set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, a profile, or anon for a public bucket.",
                code="denied",
            )
        if isinstance(error, boto.FlexibleChecksumError):
            return StorageFailure(
                f"{where}: its bytes do not match its stored checksum. Upload it again.", code="corrupt", transient=True
            )
        if isinstance(error, boto.SSLError):
            return StorageFailure(f"{where}: TLS failed. Check the endpoint's certificate, or AWS_CA_BUNDLE.")
        if isinstance(error, boto.EndpointConnectionError | boto.ConnectTimeoutError | boto.ProxyConnectionError):
            return StorageFailure(
                f"{where}: cannot connect. Check the endpoint and the network.", code="unavailable", transient=True
            )
        if isinstance(error, PASSING):
            kind = type(error).__name__
            return StorageFailure(f"{where}: the transfer broke off ({kind})", code="unavailable", transient=True)
        if isinstance(error, boto.BotoCoreError | ValueError):
            # Settings botocore refuses: an endpoint without a scheme, a bucket name with a blank.
            return StorageFailure(f"{where}: refused before sending ({type(error).__name__}). Check URI and endpoint.")
        raise error


def address(uri: str) -> tuple[str, str]:
    """Bucket and key of an s3:// URI."""
    bucket, _, key = uri.partition("://")[2].partition("/")
    return bucket, key


def below(uri: str) -> str:
    """The prefix of every key in the folder `uri`; "" for a whole bucket."""
    key = address(uri)[1].strip("/")
    return f"{key}/" if key else ""


def _just_before(key: str) -> str:
    """A string that sorts before `key` with hardly any key between: where a listing starts that must show `key`."""
    return key[:-1] + chr(ord(key[-1]) - 1) if "!" < key[-1] < "\x7f" else key[:-1]


def _version(entry: dict[str, Any]) -> str:
    return entry.get("ETag", "").strip('"') or entry["LastModified"].isoformat()


def _entries(uri: str, page: dict[str, Any]) -> Iterator[FileStat]:
    front = f"{uri.partition('://')[0]}://{address(uri)[0]}"
    for entry in page.get("Contents", ()):
        if not entry["Key"].endswith("/"):  # the mark some tools leave for an empty folder
            yield FileStat(f"{front}/{entry['Key']}", entry["Size"], _version(entry))


def _explain_answer(uri: str, where: str, error: boto.ClientError) -> StorageFailure:
    """A StorageFailure for an answer of the service, from its status and code."""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = error.response.get("Error", {}).get("Code", "")
    if code == "NoSuchBucket":
        bucket = address(uri)[0]
        return StorageFailure(f"{where}: bucket {bucket!r} does not exist there. Create it first.", code="not_found")
    if status == 404:
        return StorageFailure(f"{where}: no such object", code="not_found")
    if status in (401, 403) or code in ("ExpiredToken", "InvalidToken"):
        return StorageFailure(
            f"{where}: denied ({code or status}). Check the credentials and what they may do in bucket "
            f"{address(uri)[0]!r}.",
            code="denied",
        )
    if status in (301, 307, 400) and code in ("PermanentRedirect", "AuthorizationHeaderMalformed", "301", "307"):
        return StorageFailure(f"{where}: the bucket is in another region ({code}). Set region.")
    if status >= 500 or status == 429 or code in BUSY_CODES:
        return StorageFailure(f"{where}: busy or failing ({status} {code})", code="unavailable", transient=True)
    return StorageFailure(f"{where}: refused ({status} {code})")
