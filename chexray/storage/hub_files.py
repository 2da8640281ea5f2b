"""Files of repositories on the Hugging Face hub, hf://datasets/owner/name@revision/path; nothing is written there.

fsspec's file system resolves the address; its files would list a whole folder before each read and keep the listing,
so that the hub is asked directly.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from huggingface_hub import HfFileSystem, hf_hub_url
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_backoff

from chexray.grouping import grouped
from chexray.storage.protocols import PROTOCOLS
from chexray.storage.read_only import ReadOnly
from chexray.storage.service_failures import explain
from chexray.storage.uris import FileStat, StorageFailure, join, split
from chexray.storage.web_files import PARTIAL, PAST_THE_END
from chexray.text import shown

if TYPE_CHECKING:
    from chexray.storage import Storage

# It logs each failed attempt with its address, which may be signed; the last one is told in one line here.
logging.getLogger("huggingface_hub.utils._http").setLevel(logging.ERROR)

THREADS = 8
PATHS = 256
"""Files that are asked for in one request."""


class HubFiles(ReadOnly):
    """The hub as one user sees it. Methods make one attempt and let errors pass to `explain`."""

    def __init__(self, storage: Storage):
        self.storage = storage
        self._filesystem = HfFileSystem(use_listings_cache=False, skip_instance_cache=True)

    def filesystem(self) -> Any:
        return self._filesystem

    def read(self, uri: str, start: int = 0, length: int | None = None) -> bytes:
        front, path = split(uri)
        repository = self._resolved(front)
        if not path:
            raise FileNotFoundError
        url = hf_hub_url(filename=path, endpoint=self._filesystem.endpoint, **repository)
        headers = {**build_hf_headers(), "Accept-Encoding": "identity"}  # or a range would be one of the packed file
        if length is not None:
            headers["Range"] = f"bytes={start}-{start + length - 1}"
        # Large files lie on another host, where the hub sends whoever asks.
        answer = http_backoff("GET", url, headers=headers, timeout=self.storage.timeout_s, max_retries=0)
        if length is not None and answer.status_code == PAST_THE_END:
            return b""
        hf_raise_for_status(answer)
        data = answer.content
        if length is not None and answer.status_code != PARTIAL:
            return data[start : start + length]
        if length is not None and len(data) > length:
            raise StorageFailure(f"{shown(uri)}: {length} bytes were asked for, {len(data)} came.", code="corrupt")
        return data

    def stat(self, uris: Sequence[str], attempt: Callable) -> dict[str, FileStat | None]:
        slices = []
        for group in grouped((split(uri)[0], uri) for uri in uris).values():
            slices += [group[start : start + PATHS] for start in range(0, len(group), PATHS)]
        with ThreadPoolExecutor(THREADS) as pool:
            parts = pool.map(lambda part: attempt(part[0], lambda: self._infos(part)), slices)
            return {uri: entry for part in parts for uri, entry in part.items()}

    def _infos(self, uris: Sequence[str]) -> dict[str, FileStat | None]:
        paths = {uri: split(uri)[1] for uri in uris}
        repository = self._resolved(split(uris[0])[0])
        wanted = sorted({path for path in paths.values() if path})
        found = self._filesystem._api.get_paths_info(paths=wanted, **repository) if wanted else []
        files = {info.path: info for info in found if _is_file(info)}
        return {uri: _stat(uri, files[path]) if path in files else None for uri, path in paths.items()}

    def is_dir(self, uri: str) -> bool:
        front, path = split(uri)
        repository = self._resolved(front)
        if not path:
            return True
        found = self._filesystem._api.get_paths_info(paths=[path], **repository)
        return any(not _is_file(info) for info in found)

    def list(self, uri: str, attempt: Callable) -> list[FileStat]:
        front = split(uri)[0]
        return attempt(uri, lambda: [_stat(join(front, info.path), info) for info in self._tree(uri) if _is_file(info)])

    def folders(self, uri: str, attempt: Callable) -> list[str]:
        front = split(uri)[0]
        return attempt(
            uri, lambda: [join(front, info.path) for info in self._tree(uri, recursive=False) if not _is_file(info)]
        )

    def _tree(self, uri: str, recursive: bool = True) -> Iterator[Any]:
        from huggingface_hub.errors import EntryNotFoundError

        front, path = split(uri)
        repository = self._resolved(front)
        try:
            api = self._filesystem._api
            yield from api.list_repo_tree(path_in_repo=path or None, recursive=recursive, **repository)
        except EntryNotFoundError:
            return

    def _resolved(self, front: str) -> dict[str, Any]:
        """What the hub's API calls a repository and its revision. Raises where there is none, as for a bucket."""
        try:
            found: Any = self._filesystem.resolve_path(_plain(front))
        except FileNotFoundError as error:
            if type(error).__name__ == "LocalEntryNotFoundError":
                raise
            raise StorageFailure(
                f"{shown(front)}: no such repository or revision, or none that may be seen. Check its name, its kind "
                "(hf://datasets/OWNER/NAME) and HF_TOKEN.",
                code="not_found",
            ) from None
        if not hasattr(found, "repo_id"):
            raise StorageFailure(f"{shown(front)}: only repositories are read. Name datasets/OWNER/NAME.")
        return {"repo_id": found.repo_id, "repo_type": found.repo_type, "revision": found.revision}

    def explain(self, uri: str, error: Exception) -> StorageFailure:
        return explain(error, uri, PROTOCOLS["hf"], self.storage)


def _plain(uri: str) -> str:
    return uri.removeprefix("hf://").rstrip("/")


def _is_file(info: Any) -> bool:
    return hasattr(info, "blob_id")


def _stat(uri: str, info: Any) -> FileStat:
    """The version is a hash of the content: of the large file where there is one, else git's."""
    large = getattr(info, "lfs", None)
    sha256 = large.get("sha256") if isinstance(large, dict) else getattr(large, "sha256", None)
    return FileStat(uri, int(info.size), str(sha256 or info.blob_id))
