"""What went wrong at S3, as one line: the object, the endpoint, the service's error code, and the next move.

The service's free text is never repeated: it may hold a key, a signed URL, or a page of HTML.
"""

from __future__ import annotations

import asyncio

import aiohttp
import botocore.exceptions as boto
import botocore.parsers

from chexray.storage.uris import StorageFailure

CREDENTIALS = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.ProfileNotFound,
    boto.TokenRetrievalError,
    boto.SSOError,
)
UNREACHABLE = (boto.EndpointConnectionError, boto.ConnectTimeoutError, boto.ProxyConnectionError)
STALLED = (TimeoutError, asyncio.TimeoutError, boto.ReadTimeoutError)
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
BUSY_CODES |= {"ConditionalRequestConflict"}  # another writer of the same object is not through yet
REGION_CODES = {"PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed", "301", "307"}
DENIED = {
    "ExpiredToken": "The session token has expired: get a new one and run again.",
    "TokenRefreshRequired": "The session token has expired: get a new one and run again.",
    "InvalidToken": "The session token is not one of this service.",
    "InvalidAccessKeyId": "The service does not know this access key.",
    "SignatureDoesNotMatch": "The secret does not belong to the access key, or a proxy changes requests on their way.",
    "RequestTimeTooSkewed": "Set the clock of this machine.",
}
"""Error codes that mean denied, and the next move for each."""


class Unidentified(Exception):
    """Temporary credentials could not be had; the cause says why."""


def explain(error: Exception, uri: str, bucket: str, endpoint: str, timeout_s: float) -> StorageFailure:
    """The failure in words. Errors that are none of storage's are defects and pass through."""
    where = f"{uri} at {endpoint}"
    if isinstance(error, boto.ClientError):
        return _explain_answer(error, where, bucket)
    if isinstance(error, (Unidentified, *CREDENTIALS)):
        return _explain_credentials(error, where)
    if isinstance(error, boto.FlexibleChecksumError):
        return StorageFailure(
            f"{where}: its bytes do not match its stored checksum. Upload it again.", code="corrupt", transient=True
        )
    if isinstance(error, boto.SSLError):
        return StorageFailure(f"{where}: TLS failed. Check the endpoint's certificate, or AWS_CA_BUNDLE.")
    if isinstance(error, UNREACHABLE):
        return StorageFailure(
            f"{where}: cannot connect. Check the endpoint and the network.", code="unavailable", transient=True
        )
    if isinstance(error, STALLED):
        text = f"{where}: stalled for {timeout_s:g} s. Check the network, or raise timeout_s."
        return StorageFailure(text, code="unavailable", transient=True)
    if isinstance(error, PASSING):
        kind = type(error).__name__
        return StorageFailure(f"{where}: the transfer broke off ({kind})", code="unavailable", transient=True)
    if isinstance(error, boto.BotoCoreError | ValueError):
        # Settings botocore refuses: a region or a bucket name with a blank.
        return StorageFailure(
            f"{where}: refused before sending ({type(error).__name__}). Check URI, region and endpoint."
        )
    raise error


def _explain_credentials(error: Exception, where: str) -> StorageFailure:
    """No credentials at all, or a service that did not give them."""
    cause = error.__cause__ if isinstance(error, Unidentified) else error
    reason, transient = type(cause).__name__, False
    if isinstance(cause, boto.ClientError):
        reason = f"{cause.operation_name}: {_code(cause) or _status(cause)}"
        transient = _busy(cause)
    elif isinstance(cause, OSError) and cause.filename:
        reason = f"{cause.filename}: {(cause.strerror or reason).lower()}"
    elif isinstance(cause, STALLED):
        reason, transient = "their service does not answer", True
    elif isinstance(cause, PASSING):
        reason, transient = f"their service cannot be reached, {reason}", True
    return StorageFailure(
        f"{where}: no usable credentials ({reason}). Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, "
        "the pod's service account, or anon for a public bucket.",
        code="denied",
        transient=transient,
    )


def _explain_answer(error: boto.ClientError, where: str, bucket: str) -> StorageFailure:
    """A StorageFailure for an answer of the service, from its status and code."""
    status, code = _status(error), _code(error)
    if code == "NoSuchBucket":
        return StorageFailure(f"{where}: bucket {bucket!r} does not exist there. Create it first.", code="not_found")
    if status == 404:
        return StorageFailure(f"{where}: no such object", code="not_found")
    if status in (401, 403) or code in DENIED:
        move = DENIED.get(code, f"Check the credentials and what they may do in bucket {bucket!r}.")
        return StorageFailure(f"{where}: denied ({code or status}). {move}", code="denied")
    if status in (301, 307, 400) and code in REGION_CODES:
        region = error.response.get("Error", {}).get("Region") or _headers(error).get("x-amz-bucket-region")
        move = f"Set region to {region}." if region else "Set region."
        return StorageFailure(f"{where}: bucket {bucket!r} is in another region ({code}). {move}")
    if _busy(error):
        return StorageFailure(f"{where}: busy or failing ({status} {code})", code="unavailable", transient=True)
    if status == 400 and error.operation_name.startswith("Head"):  # answers to HEAD have no body that would say
        return StorageFailure(f"{where}: refused (400). Check the region, and whether the session token has expired.")
    return StorageFailure(f"{where}: refused ({status} {code})")


def _busy(error: boto.ClientError) -> bool:
    return _status(error) >= 500 or _status(error) == 429 or _code(error) in BUSY_CODES


def _status(error: boto.ClientError) -> int:
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)


def _code(error: boto.ClientError) -> str:
    return error.response.get("Error", {}).get("Code", "")


def _headers(error: boto.ClientError) -> dict[str, str]:
    return error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
