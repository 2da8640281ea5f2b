"""Places that are only read from: every verb that writes says so, and where to write."""

from __future__ import annotations

from typing import NoReturn

from chexray.storage.protocols import PROTOCOLS, WRITTEN
from chexray.storage.uris import StorageFailure, named


class ReadOnly:
    """The verbs of a place that takes no writes. Each raises StorageFailure, code "denied", and sends nothing."""

    def write(self, uri: str, data: bytes) -> NoReturn:
        _refuse(uri)

    def create(self, uri: str, data: bytes) -> NoReturn:
        _refuse(uri)

    def delete(self, uri: str) -> NoReturn:
        _refuse(uri)


def _refuse(uri: str) -> NoReturn:
    protocol = PROTOCOLS[uri.partition("://")[0]]
    raise StorageFailure(
        f"{named(uri)}: {protocol.place} is only read from, because {protocol.read_only}. Write to {WRITTEN}.",
        code="denied",
    )
