"""Files of this machine: the verbs of `Storage`, one attempt each."""

from __future__ import annotations

import errno
import os
import re
import stat as mode
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import BinaryIO

from chexray.storage.uris import FileStat, StorageFailure, join, local_path

STAT_THREADS = 16
TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}\.tmp")
"""Names of files being written; a killed writer leaves one behind, and listings skip it."""
NO_FILE = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP}
"""Nothing can be there: a row that names it is a reject, and no other row is lost with it."""
FILE_MODE = 0o640
"""Of every file chexray writes, less what the umask takes away."""
NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
"""What file systems without hard links answer: FAT, SMB, some that are mounted from object stores."""
TRANSIENT = {errno.ESTALE, errno.EIO, errno.ETIMEDOUT, errno.EAGAIN, errno.EBUSY, errno.EINTR}
"""What a network file system answers while its server restarts."""


class LocalFiles:
    """The local file system. Stateless."""

    def open(self, uri: str) -> BinaryIO:
        # A pipe or a device that a table names would be waited for, or read, for ever.
        descriptor = os.open(local_path(uri), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if mode.S_ISDIR(status.st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            if not mode.S_ISREG(status.st_mode):
                raise StorageFailure(f"{uri} is a device or a pipe, not a file. Name a file.")
            return os.fdopen(descriptor, "rb")
        except BaseException:
            os.close(descriptor)
            raise

    def read(self, uri: str, start: int = 0, length: int | None = None) -> bytes:
        with self.open(uri) as file:
            file.seek(start)
            return file.read() if length is None else file.read(length)

    def write(self, uri: str, data: bytes) -> None:
        """Temporary file beside the target, sync, rename: readers see the old content or the new."""
        self._put(local_path(uri), data, os.replace)

    def create(self, uri: str, data: bytes) -> bool:
        """The same with a link in place of the rename, which fails where something is."""
        path = local_path(uri)
        if os.path.lexists(path):
            return False
        try:
            self._put(path, data, _link)
        except FileExistsError:
            return False
        return True

    def _put(self, path: str, data: bytes, place: Callable[[str, str], None]) -> None:
        folder, name = os.path.split(path)
        os.makedirs(folder or ".", exist_ok=True)
        temporary = os.path.join(folder, f".{name[:100]}.{uuid.uuid4().hex}.tmp")
        try:
            with _create(temporary) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            place(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        _sync_folder(folder or ".")

    def delete(self, uri: str) -> None:
        os.unlink(local_path(uri))

    def is_dir(self, uri: str) -> bool:
        return os.path.isdir(local_path(uri))

    def objection(self, uri: str) -> str:
        """Why no file can be written below a folder, as far as can be seen without writing one; "" where it may be."""
        path = os.path.abspath(local_path(uri))
        while not os.path.lexists(path) and os.path.dirname(path) != path:
            path = os.path.dirname(path)
        if not os.path.isdir(path):
            kind = "a link to nothing" if not os.path.exists(path) else "not a folder"
            return f"{path} is {kind}. Name another output."
        if not os.access(path, os.W_OK | os.X_OK):
            return f"{path} is not writable for this user. Change its owner or mode, or name another output."
        return ""

    def list(self, uri: str, attempt: Callable) -> list[FileStat]:
        return attempt(uri, lambda: self._list(uri))

    def _list(self, uri: str) -> list[FileStat]:
        """All files below. Symbolic links are followed, but for those to a folder they lie in."""
        root = local_path(uri)
        found: list[FileStat] = []

        def walk(folder: str, name: str, above: frozenset[tuple[int, int]]) -> None:
            try:
                status, entries = os.stat(folder), os.scandir(folder)
            except (FileNotFoundError, NotADirectoryError):  # never there, or deleted meanwhile
                return
            here = (status.st_dev, status.st_ino)
            with entries:
                for entry in [] if here in above else entries:
                    try:
                        status = entry.stat()
                    except FileNotFoundError:  # deleted meanwhile, or a link to nowhere
                        continue
                    if mode.S_ISDIR(status.st_mode):
                        walk(entry.path, join(name, entry.name), above | {here})
                    elif mode.S_ISREG(status.st_mode) and not TEMPORARY.fullmatch(entry.name):
                        found.append(_file_stat(join(name, entry.name), status))

        try:
            walk(root, uri, frozenset())
        except PermissionError as error:  # of a folder or a link below, which is to be named
            raise self.explain(str(error.filename or uri), error) from error
        return found

    def folders(self, uri: str, attempt: Callable) -> list[str]:
        def one() -> list[str]:
            try:
                with os.scandir(local_path(uri)) as entries:
                    return [join(uri, entry.name) for entry in entries if entry.is_dir()]
            except (FileNotFoundError, NotADirectoryError):
                return []

        return attempt(uri, one)

    def stat(self, uris: Sequence[str], attempt: Callable) -> dict[str, FileStat | None]:
        """Threads pay on network file systems; slices, since a future for each file costs more than a local stat."""

        def one(uri: str) -> FileStat | None:
            try:
                status = os.stat(local_path(uri))
            except OSError as error:
                if error.errno in NO_FILE:
                    return None
                raise
            return _file_stat(uri, status) if mode.S_ISREG(status.st_mode) else None

        slices = [uris[start : start + 256] for start in range(0, len(uris), 256)]
        with ThreadPoolExecutor(STAT_THREADS) as pool:
            parts = list(pool.map(lambda part: [attempt(uri, lambda uri=uri: one(uri)) for uri in part], slices))
        return dict(zip(uris, (entry for part in parts for entry in part), strict=True))

    def explain(self, uri: str, error: Exception) -> StorageFailure:
        """The failure in words. Errors that are no I/O errors are defects and pass through."""
        if not isinstance(error, OSError):
            raise error
        number, reason = error.errno, (error.strerror or type(error).__name__).lower()
        if number in (errno.ENOENT, errno.ENOTDIR):
            return StorageFailure(f"{uri}: no such file", code="not_found")
        if number in (errno.EACCES, errno.EPERM, errno.EROFS):
            return StorageFailure(f"{uri}: {reason}. Check its owner and mode.", code="denied")
        if number in (errno.ENOSPC, errno.EDQUOT):
            return StorageFailure(
                f"{uri}: disk full ({reason}). Free space there, or write to another place.", code="disk_full"
            )
        if number == errno.EISDIR:
            return StorageFailure(f"{uri} is a folder, not a file", code="is_folder")
        transient = number in TRANSIENT or isinstance(error, TimeoutError | ConnectionError)
        return StorageFailure(f"{uri}: {reason}", code="unavailable" if transient else "failed", transient=transient)


def _link(temporary: str, path: str) -> None:
    """Gives a file its name unless that is taken. Raises FileExistsError."""
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
        os.replace(temporary, path)
    else:
        os.unlink(temporary)


def _file_stat(uri: str, status: os.stat_result) -> FileStat:
    return FileStat(uri, status.st_size, str(status.st_mtime_ns))


def _create(path: str) -> BinaryIO:
    # Results hold labels, ids and perhaps prompts of patients: the owner's group may read them, others may not.
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, FILE_MODE), "wb")


def _sync_folder(folder: str) -> None:
    """Makes the rename itself durable; some network file systems refuse, and then it is their promise to keep."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
