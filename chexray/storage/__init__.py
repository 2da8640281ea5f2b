"""A file or folder anywhere, a local path or a URI, behind one small set of verbs with bounded retries.

Everything chexray reads or writes goes through `Storage`, so that a half-written file is never seen, a busy bucket is
waited for, and every failure is a StorageError that names the object and the next move but no credential.
"""

from __future__ import annotations

import io
import time
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from chexray.errors import StorageError
from chexray.grouping import grouped
from chexray.storage.local import LocalFiles
from chexray.storage.protocols import WRITTEN, protocol_of, scheme_of
from chexray.storage.traffic import counted
from chexray.storage.uris import (
    Damaged,
    FileStat,
    StorageFailure,
    absolute,
    basename,
    checked_endpoint,
    inside,
    is_remote,
    is_s3,
    is_web,
    join,
    named,
    parent,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from chexray.storage.fsspec_files import FsspecFiles
    from chexray.storage.parquet import ParquetFile
    from chexray.storage.s3 import Buckets
from chexray.storage.ranges import stream

__all__ = [
    "FileStat", "Storage", "StorageFailure", "absolute", "basename", "inside", "is_remote", "is_s3", "join", "parent",
]  # fmt: skip

T = TypeVar("T")

BACKOFF_S = 0.5
"""First wait between attempts; it doubles up to BACKOFF_MAX_S, so the default 4 retries wait 7.5 s at most."""
BACKOFF_MAX_S = 8.0
WHOLE_BYTES = 1 << 20
"""Remote Parquet files up to this size are read by one GET, which the service's own checksum covers; it covers no
range. Two round trips in place of three to five, too."""


@dataclass(frozen=True)
class Storage:
    """How files are reached. Picklable, safe to use from many threads, and cheap to make.

    Credentials for S3 come from the environment or `profile` unless given here; those of other protocols from the
    environment and the files of their libraries alone. No message, repr or log shows them.
    sse, sse_kms_key_id: the encryption header of every write, and its key. requester_pays: goes with every request.
    retries: attempts after the first, for failures that may pass (503, resets, truncation, timeouts).
    timeout_s: the wait for one answer, and once more for each MiB it moves; to connect, 5 s at most.
    sleep: what waits between attempts; tests pass one that does not.
    """

    endpoint_url: str | None = None
    region: str | None = None
    profile: str | None = None
    anon: bool = False
    key: str | None = field(default=None, repr=False)
    secret: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    sse: str | None = None
    sse_kms_key_id: str | None = None
    requester_pays: bool = False
    retries: int = 4
    timeout_s: float = 30.0
    sleep: Callable[[float], Any] = field(default=time.sleep, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.endpoint_url:
            object.__setattr__(self, "endpoint_url", checked_endpoint(self.endpoint_url, "endpoint_url"))

    def read(self, uri: str, *, most: int | None = None) -> bytes:
        """The whole content of a file. Raises StorageError; its `transient` says whether later may help.

        most: bytes; of more from the web or S3 nothing beyond them is read (code "too_large").
        """
        limit: Any = {"most": most} if most is not None and (is_web(uri) or is_s3(uri)) else {}
        return counted(self._attempt(uri, lambda: self._files(uri).read(uri, **limit)))

    def read_range(self, uri: str, start: int, length: int) -> bytes:
        """`length` bytes from `start` on; fewer at the end of the file."""
        if length <= 0:
            return b""
        return counted(self._attempt(uri, lambda: self._files(uri).read(uri, start, length)))

    def open(self, uri: str) -> BinaryIO:
        """A seekable file for readers that need parts of it, such as Parquet; a remote one is read in ranges."""
        if not is_remote(uri):
            return self._attempt(uri, lambda: LocalFiles().open(uri))
        return stream(self, self._found(uri))

    def write(self, uri: str, data: bytes) -> None:
        """Puts `data` at `uri`, whole or not at all, over what was there. Folders are created.

        Locally a temporary file is synced and renamed; on S3 it is one PUT. Raises where nothing is written
        (`storage.protocols`).
        """
        self._attempt(uri, lambda: self._files(uri).write(uri, data))

    def create(self, uri: str, data: bytes) -> bool:
        """Puts `data` at `uri`, whole or not at all, unless something is there; whether it was put.

        Of two writers at once one gets True: locally by a hard link, on S3 and Azure by If-None-Match, on Google's by
        the generation. A file system or service that knows neither is asked first, and the later of two writers within
        that moment stays. A PUT whose answer was lost is tried again and may return False for what it put itself.
        """
        return self._attempt(uri, lambda: self._files(uri).create(uri, data))

    def keep(self, uri: str, data: bytes) -> None:
        """`data` is at `uri` afterwards; a file that holds it already keeps its version, by which readers know it."""
        if not self.create(uri, data) and self.read(uri) != data:
            self.write(uri, data)

    def exists(self, uri: str) -> bool:
        """True when `uri` is a file (a folder is not)."""
        return self.stat([uri])[0] is not None

    def delete(self, uri: str) -> None:
        """Removes a file; one that is missing is fine."""
        try:
            self._attempt(uri, lambda: self._files(uri).delete(uri))
        except StorageFailure as error:
            if error.code != "not_found":
                raise

    def list(self, uri: str) -> list[FileStat]:
        """Every file below a folder, sorted by uri; [] when nothing is there. Never cached.

        Temporary files of writers that were killed are left out. A bucket that does not exist is an error.
        """
        return sorted(self._files(uri).list(uri, self._attempt), key=lambda entry: entry.uri)

    def folders(self, uri: str) -> list[str]:
        """The uris of the folders directly below a folder, sorted; what lies in them is not listed."""
        return sorted(self._files(uri).folders(uri, self._attempt))

    def stat(self, uris: Sequence[str]) -> list[FileStat | None]:
        """Size and version of many files at once, None for those that are missing, in the order given.

        Raises StorageError when it cannot be known (denied, unreachable).
        """
        names = list(dict.fromkeys(uris))
        known: dict[str, FileStat | None] = {}
        for group in grouped((scheme_of(name), name) for name in names).values():
            known.update(self._files(group[0]).stat(group, self._attempt))
        return [known[uri] for uri in uris]

    def is_dir(self, uri: str) -> bool:
        """True for a folder; in a bucket, for a prefix with at least one object below it."""
        return self._attempt(uri, lambda: self._files(uri).is_dir(uri))

    def check_place(self, uri: str) -> None:
        """Raises StorageError where a folder can neither be made nor written to, as far as is known without writing."""
        protocol = protocol_of(uri)
        if protocol is None and (why := LocalFiles().objection(uri)):
            raise StorageFailure(f"cannot write below {uri}: {why}", code="denied")
        if protocol is not None and protocol.read_only:
            text = f"cannot write below {named(uri)}: {protocol.place} is only read from, because {protocol.read_only}."
            raise StorageFailure(f"{text} Name {WRITTEN}.", code="denied")
        if protocol is not None and protocol.extra:
            self._files(uri)  # a missing package is told here

    def check_writable(self, uri: str) -> None:
        """Writes, reads, lists and deletes a small file in the folder `uri`, so that a run fails before it starts."""
        self.check_place(uri)
        probe = join(uri, f".chexray-probe-{uuid.uuid4().hex}")
        try:
            self.write(probe, b"chexray")
            if self.read(probe) != b"chexray":
                raise StorageFailure(f"{probe}: other bytes came back than were written.", code="corrupt")
            if not self.is_dir(uri):
                raise StorageFailure(f"{probe}: what was written is not listed.")
            self.delete(probe)
        except StorageError as error:
            allowed = "s3:PutObject, s3:GetObject, s3:DeleteObject and s3:ListBucket"
            need = allowed if is_s3(uri) else "permission to write, read, list and delete"
            raise StorageFailure(
                f"cannot write below {uri}: {str(error).rstrip('.')}. A run needs {need} there, or another output.",
                code=getattr(error, "code", "failed"),
                transient=error.transient,
            ) from error

    def read_parquet(
        self, uri: str, columns: Sequence[str] | None = None, *, types: Mapping[str, pa.DataType] | None = None
    ) -> pa.Table:
        """A Parquet file as a table, fetching only `columns` when they are named.

        types: what columns of the file, read or not, must be; another type is a StorageFailure of code "refused".
        """
        try:
            return self._attempt(uri, lambda: self._parquet(uri, columns, types or {}))
        except StorageFailure as error:
            if error.code == "corrupt" and error.transient:  # every attempt found it so: later will not help
                raise StorageFailure(str(error), code="corrupt") from error
            raise

    def _parquet(self, uri: str, columns: Sequence[str] | None, types: Mapping[str, pa.DataType]) -> pa.Table:
        from chexray.storage.parquet import ParquetFile

        with self._parquet_source(uri) as source:
            file = ParquetFile(source, uri, checksums=True)
            file.need(columns or ())
            file.need_types(types)
            return file.read(columns)

    @contextmanager
    def open_parquet(self, uri: str) -> Iterator[ParquetFile]:
        """A Parquet file of which parts are read: on S3 in ranges. Raises StorageFailure (`storage.parquet`)."""
        from chexray.storage.parquet import ParquetFile

        with self.open(uri) as source:
            try:
                yield ParquetFile(source, uri)
            except (OSError, Damaged) as error:
                raise self._explain(uri, error) from None

    def _parquet_source(self, uri: str) -> BinaryIO:
        if not is_remote(uri):
            return self.open(uri)
        found = self._found(uri)
        return io.BytesIO(self.read(uri)) if found.size <= WHOLE_BYTES else stream(self, found)

    def write_parquet(self, uri: str, table: pa.Table, *, plain: bool = False, new: bool = False) -> bool:
        """Writes a table as one Parquet file (zstd), whole or not at all, with a checksum in each page.

        plain: neither compressed nor encoded, for columns of floats that do not shrink and are read many times.
        new: leaves a file that is there as it is, and returns False.
        """
        from chexray.storage.parquet import to_bytes

        if new:
            return self.create(uri, to_bytes(table, plain=plain))
        self.write(uri, to_bytes(table, plain=plain))
        return True

    def fsspec_filesystem(self, uri: str) -> Any:
        """The fsspec file system behind a remote URI, for a library that writes there by itself."""
        files: Any = self._files(uri)
        return files.filesystem()

    def _files(self, uri: str) -> LocalFiles | Buckets | FsspecFiles:
        """What performs one attempt at each verb where `uri` lies. A library is imported on its first URI."""
        if not is_remote(uri):
            return LocalFiles()
        if is_s3(uri):
            from chexray.storage.s3 import buckets

            return buckets(self)
        from chexray.storage.fsspec_files import files_of

        return files_of(uri, self)

    def _found(self, uri: str) -> FileStat:
        found = self.stat([uri])[0]
        if found is None:
            raise StorageFailure(f"{named(uri)}: no such object", code="not_found")
        return found

    def _explain(self, uri: str, error: Exception) -> StorageFailure:
        if isinstance(error, Damaged):
            text = f"{uri} is damaged: {error}. Delete it and make it again."
            # What came over a network may have been spoiled on the way.
            return StorageFailure(text, code="corrupt", transient=is_remote(uri))
        return self._files(uri).explain(uri, error)

    def _attempt(self, uri: str, action: Callable[[], T]) -> T:
        """`action()`, tried again after growing waits while its failure may pass."""
        for attempt in range(self.retries + 1):
            try:
                return action()
            except StorageError:
                raise
            except Exception as error:
                failure = self._explain(uri, error)
                if not failure.transient or attempt == self.retries:
                    # What a service answered may quote a key or a signed URL, and chains end up in logs.
                    raise failure from (None if is_remote(uri) else error)
            # Threads that failed together should not come back together, so the wait varies with the object.
            spread = 0.5 + 0.5 * zlib.crc32(f"{uri}:{attempt}".encode()) / 2**32
            self.sleep(min(BACKOFF_S * 2**attempt, BACKOFF_MAX_S) * spread)
        raise AssertionError("the last attempt returns or raises")
