"""Buckets and keys of s3:// URIs, and what a listing says of an object."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from chexray.storage.uris import FileStat

if TYPE_CHECKING:
    pass

Answer = dict[str, Any]
"""What a service answered to one request, or an entry of it."""


def address(uri: str) -> tuple[str, str]:
    """Bucket and key of an s3:// URI."""
    bucket, _, key = uri.partition("://")[2].partition("/")
    return bucket, key


def below(uri: str) -> str:
    """The prefix of every key in the folder `uri`; "" for a whole bucket."""
    key = address(uri)[1].strip("/")
    return f"{key}/" if key else ""


def just_before(key: str) -> str:
    """A string that sorts before `key` with hardly any key between: where a listing starts that must show `key`."""
    return key[:-1] + chr(ord(key[-1]) - 1) if "!" < key[-1] < "\x7f" else key[:-1]


def version_of(entry: Answer) -> str:
    return entry.get("ETag", "").strip('"') or entry["LastModified"].isoformat()


def entries_of(uri: str, page: Answer) -> Iterator[FileStat]:
    front = f"{uri.partition('://')[0]}://{address(uri)[0]}"
    for entry in page.get("Contents", ()):
        if not entry["Key"].endswith("/"):  # the mark some tools leave for an empty folder
            yield FileStat(f"{front}/{entry['Key']}", entry["Size"], version_of(entry))
