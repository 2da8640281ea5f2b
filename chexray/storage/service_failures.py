"""What went wrong at a service other than S3, as one line: the object, what was answered, and the next move.

The libraries' own texts are not repeated: they may hold a signed URL, a token or a page of HTML.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from chexray.storage.protocols import Protocol
from chexray.storage.proxies import proxy_hint
from chexray.storage.uris import StorageFailure, named, split

if TYPE_CHECKING:
    from chexray.storage import Storage

BUSY = {408, 409, 423, 425, 429}
"""Statuses below 500 that a later attempt may not get. 409: another writer of the same object is not through yet."""
_AUTH_MODULES = ("google.auth", "azure.identity")
_OF_THE_NETWORK = {
    "ClientError",  # aiohttp
    "TransportError",  # httpx
    "RequestException",  # requests
    "ServiceRequestError", "ServiceResponseError", "IncompleteReadError",  # azure.core
    "ChecksumError",  # gcsfs
    "JSONDecodeError",  # of an answer that was cut short
}  # fmt: skip
"""Names of the libraries' base classes, none of which need be installed, for failures that may pass."""


def explain(error: Exception, uri: str, protocol: Protocol, storage: Storage) -> StorageFailure:
    """The failure in words. Errors that are none of storage's are defects and pass through."""
    where, kind = named(uri), type(error).__name__
    status = status_of(error)
    if status is not None:
        return of_status(status, where, protocol)
    if type(error).__module__.startswith(_AUTH_MODULES):
        return StorageFailure(f"{where}: no usable credentials ({kind}). {advice(protocol)}", code="denied")
    if kind == "LocalEntryNotFoundError" or kind.startswith("OfflineMode"):  # of the hub: a lookup that was not made
        return StorageFailure(
            f"{where}: {protocol.place} was not asked ({kind}). Check the network, and unset HF_HUB_OFFLINE.",
            code="unavailable", transient=kind == "LocalEntryNotFoundError",
        )  # fmt: skip
    if isinstance(error, FileNotFoundError):
        return StorageFailure(f"{where}: no such file, or none that may be seen", code="not_found")
    if isinstance(error, IsADirectoryError):
        return StorageFailure(f"{where} is a folder, not a file", code="is_folder")
    # gcsfs has no class for it.
    if isinstance(error, PermissionError) or (type(error) is OSError and str(error).startswith("Forbidden")):
        return StorageFailure(f"{where}: denied. {advice(protocol)}", code="denied")
    if isinstance(error, TimeoutError | asyncio.TimeoutError) or "Timeout" in kind:
        text = f"{where}: no answer within {storage.timeout_s:g} s. Check the network, or raise storage.timeout_s."
        return StorageFailure(text, code="unavailable", transient=True)
    if "SSL" in kind or "Certificate" in kind:
        text = f"{where}: TLS failed ({kind}). Check the certificate of the server, or SSL_CERT_FILE."
        return StorageFailure(text, code="unavailable")
    if _is_of_the_network(error):
        hint = proxy_hint(split(uri)[0], os.environ)
        text = f"{where}: the transfer broke off ({kind}).{hint or ' Check the network.'}"
        return StorageFailure(text, code="unavailable", transient=True)
    if isinstance(error, ValueError | NotImplementedError | OSError) or not _is_builtin(error):
        return StorageFailure(f"{where}: refused by the library for {protocol.place} ({kind}). Check its spelling.")
    raise error


def of_status(status: int, where: str, protocol: Protocol) -> StorageFailure:
    """The failure for a status of HTTP."""
    if status in (404, 410):
        return StorageFailure(f"{where}: no such file, or none that may be seen", code="not_found")
    if status in (401, 403, 407):
        return StorageFailure(f"{where}: denied ({status}). {advice(protocol)}", code="denied")
    if (status >= 500 and status != 501) or status in BUSY:
        return StorageFailure(f"{where}: busy or failing ({status})", code="unavailable", transient=True)
    return StorageFailure(f"{where}: refused ({status})")


def status_of(error: Exception) -> int | None:
    """The status of HTTP that an error of one of the libraries carries."""
    for holder in (error, getattr(error, "response", None)):
        for name in ("status_code", "status", "code"):
            found = getattr(holder, name, None)
            if isinstance(found, str) and found.isdigit():
                found = int(found)
            if isinstance(found, int) and not isinstance(found, bool) and 100 <= found < 600:
                return int(found)
    return None


def advice(protocol: Protocol) -> str:
    return f"Check what may be read there, and the credentials ({protocol.credentials or 'none are known'})."


def _is_of_the_network(error: Exception) -> bool:
    if isinstance(error, ConnectionError | EOFError) or type(error) is OSError:
        return True
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & _OF_THE_NETWORK) and "InvalidURL" not in names


def _is_builtin(error: Exception) -> bool:
    return type(error).__module__ == "builtins"
