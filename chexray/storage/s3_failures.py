"""What went wrong at S3, as one line: the object, the endpoint, the service's error code, and the next move.

The service's free text is not repeated: it may hold a key, a signed URL, or a page of HTML. Only the name of an action
and of a kind of policy is taken from it.
"""

from __future__ import annotations

import asyncio
import os
import re
from typing import TYPE_CHECKING

import aiohttp
import botocore.exceptions as boto
import botocore.parsers

from chexray.storage.proxies import proxy_hint
from chexray.storage.uris import StorageFailure
from chexray.text import shown

if TYPE_CHECKING:
    from chexray.storage import Storage

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
    "InvalidObjectState": "The object is archived: restore it first.",
    "KMS.DisabledException": "The KMS key is disabled: enable it, or name another (storage.sse_kms_key_id).",
    "KMS.NotFoundException": "There is no such KMS key in the bucket's region: correct storage.sse_kms_key_id.",
}
"""Error codes that mean denied, and the next move for each."""


class Unidentified(Exception):
    """Temporary credentials could not be had; the cause says why."""


def explain(error: Exception, uri: str, bucket: str, endpoint: str, storage: Storage) -> StorageFailure:
    """The failure in words. Errors that are none of storage's are defects and pass through."""
    where = f"{shown(uri)} at {endpoint}"
    failure = _explained(error, where, bucket, storage)
    of_the_service = isinstance(error, boto.ClientError) and not _code(error).isdigit()  # a number: no S3 error
    if (
        failure.code not in ("unavailable", "denied")
        or of_the_service
        or isinstance(error, (Unidentified, *CREDENTIALS))
    ):
        return failure
    hint = proxy_hint(endpoint, os.environ)
    text = f"{str(failure).rstrip('.')}.{hint}" if hint else str(failure)
    return StorageFailure(text, code=failure.code, transient=failure.transient)


def _explained(error: Exception, where: str, bucket: str, storage: Storage) -> StorageFailure:
    if isinstance(error, boto.ClientError):
        return _explain_answer(error, where, bucket, storage)
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
        text = f"{where}: stalled for {storage.timeout_s:g} s. Check the network, or raise timeout_s."
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


def _explain_answer(error: boto.ClientError, where: str, bucket: str, storage: Storage) -> StorageFailure:
    """A StorageFailure for an answer of the service, from its status and code."""
    status, code = _status(error), _code(error)
    if code == "NoSuchBucket":
        return StorageFailure(f"{where}: bucket {bucket!r} does not exist there. Create it first.", code="not_found")
    if status == 404:
        return StorageFailure(f"{where}: no such object", code="not_found")
    if (status in (301, 307, 400) and code in REGION_CODES) or (status in (400, 403) and _elsewhere(error, storage)):
        region = error.response.get("Error", {}).get("Region") or _headers(error).get("x-amz-bucket-region")
        move = f"Set region to {region}." if region else "Set region."
        return StorageFailure(f"{where}: bucket {bucket!r} is in another region ({code or status}). {move}")
    if not _busy(error) and (status in (401, 403) or code in DENIED or code.startswith("KMS.")):
        move = DENIED.get(code) or _missing(error, bucket, storage)
        return StorageFailure(f"{where}: denied ({code or status}). {move}", code="denied")
    if _busy(error):
        return StorageFailure(f"{where}: busy or failing ({status} {code})", code="unavailable", transient=True)
    if storage.sse and error.operation_name in WRITES:
        move = f"Does the service know storage.sse {storage.sse}, and the key? Correct it, or leave it out."
        return StorageFailure(f"{where}: refused ({status} {code}). {move}")
    if status == 400 and error.operation_name.startswith("Head"):  # answers to HEAD have no body that would say
        return StorageFailure(f"{where}: refused (400). Check the region, and whether the session token has expired.")
    return StorageFailure(f"{where}: refused ({status} {code})")


WRITES = {"PutObject", "CopyObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"}
_READS = {"GetObject": "s3:GetObject", "HeadObject": "s3:GetObject", "ListObjectsV2": "s3:ListBucket"}
_ACTION = re.compile(r"not authorized to perform: ((?:s3|kms):[A-Za-z]{3,40})\b")
_POLICY = re.compile(r"with an explicit deny in an? ([a-z-]{3,40}) policy")
"""All of a service's text that is repeated: AWS says which action is missing, and which kind of policy denies it."""


def _missing(error: boto.ClientError, bucket: str, storage: Storage) -> str:
    """What a denied request may lack, as far as the operation, the settings and the service's own words tell."""
    said = str(error.response.get("Error", {}).get("Message", ""))[:2000]
    named, policy = _ACTION.search(said), _POLICY.search(said)
    parts = [f"Check the credentials and what they may do in bucket {bucket!r}"]
    verb = error.operation_name
    action = named[1] if named else "s3:PutObject" if verb in WRITES else _READS.get(verb, f"s3:{verb}")
    parts[0] += f": {'the service names ' if named else ''}{action}"
    parts[0] += f", denied by a {policy[1]} policy." if policy else "."
    if action.startswith("kms:"):
        return f"{parts[0]} Allow it on the KMS key{' (storage.sse_kms_key_id)' if verb in WRITES else ''}."
    if verb in WRITES and not storage.sse:
        parts.append("If the bucket requires an encryption header, set storage.sse to AES256 or aws:kms.")
    elif verb in WRITES:
        need = "" if storage.sse == "AES256" else ", and kms:GenerateDataKey on the key"
        parts.append(f"The bucket may require another storage.sse or storage.sse_kms_key_id{need}.")
    elif verb in ("GetObject", "HeadObject"):
        parts.append("Without s3:ListBucket a missing object is denied, too; one encrypted by KMS needs kms:Decrypt.")
    if not storage.requester_pays:
        parts.append("A requester-pays bucket needs storage.requester_pays: true.")
    return " ".join(parts)


def _elsewhere(error: boto.ClientError, storage: Storage) -> bool:
    """Whether the answer names a region that is not the one the config asked in: a HEAD has no body to say so."""
    region = _headers(error).get("x-amz-bucket-region")
    return bool(region and storage.region and region != storage.region)


def _busy(error: boto.ClientError) -> bool:
    status, code = _status(error), _code(error)
    if status == 501:  # not implemented: no wait changes that
        return False
    return status >= 500 or status == 429 or code in BUSY_CODES or code.endswith("ThrottlingException")


def _status(error: boto.ClientError) -> int:
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)


def _code(error: boto.ClientError) -> str:
    return error.response.get("Error", {}).get("Code", "")


def _headers(error: boto.ClientError) -> dict[str, str]:
    return error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
