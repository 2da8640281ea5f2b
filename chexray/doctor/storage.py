"""Where a run writes, and S3: who answers, with which credentials, and whether a file can be put, read and removed."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any

from chexray.doctor.case import Case, Check, PendingCheck, fail, not_asked, note, ok, size
from chexray.errors import StorageError
from chexray.storage import Storage, StorageFailure, absolute, basename, is_remote, is_s3, join
from chexray.storage.proxies import proxy_hint

CONNECT_TIMEOUT_S = 5.0
S3_S = 15.0
LEAST_BYTES, FEW_BYTES = 500_000_000, 5_000_000_000
SKEW_S, REFUSED_SKEW_S = 120, 900
"""Seconds between two clocks that are worth a word, and from which on S3 refuses every signature."""
CONTENT = b"written by chexray doctor; may be deleted\n"
VARIABLES = {
    "env": "the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)",
    "assume-role-with-web-identity": "web identity (AWS_ROLE_ARN, AWS_WEB_IDENTITY_TOKEN_FILE)",
    "container-role": "the container (AWS_CONTAINER_CREDENTIALS_FULL_URI or _RELATIVE_URI)",
    "iam-role": "the role of the machine (instance metadata)",
}
"""What botocore calls a source of credentials, and how it is said."""


def pending(case: Case) -> list[PendingCheck]:
    found = []
    if case.remote:
        found.append(PendingCheck("s3 endpoint", lambda: endpoint(case), S3_S, "Look at the network and at storage."))
        found.append(
            PendingCheck("s3 credentials", lambda: credentials(case), S3_S, "Is the metadata service reachable?")
        )
    for setting, folder in case.outputs.items():
        name = setting.replace("_", " ")
        late = f"Is {folder} on a server that is down? Set {setting} to another place."
        found.append(PendingCheck(name, partial(writable, case, setting, folder), S3_S, late))
    return found


def endpoint(case: Case, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Check:
    """Who answers for S3, and by which clock. Leaves in the case why no other S3 check can succeed."""
    import botocore.exceptions as boto
    from botocore.awsrequest import AWSRequest
    from botocore.httpsession import URLLib3Session
    from botocore.utils import get_environ_proxies

    case.s3_down = "the S3 endpoint is not known"
    try:
        url, setting, region = where(case.storage, case.environment)
    except boto.BotoCoreError as error:  # the profile does not exist, or is not readable
        return fail(f"not known: the profile cannot be read ({type(error).__name__}).", "See s3 credentials.")
    verify: Any = case.environment.get("AWS_CA_BUNDLE") or True
    session = URLLib3Session(
        verify=verify, timeout=(CONNECT_TIMEOUT_S, CONNECT_TIMEOUT_S), proxies=get_environ_proxies(url)
    )
    case.s3_down = f"the S3 endpoint {url} does not answer"
    try:
        answer = session.send(AWSRequest("HEAD", url).prepare())
    except (boto.SSLError, boto.InvalidProxiesConfigError) as error:
        return fail(
            f"{url} ({setting}): TLS failed ({type(error).__name__}).",
            "Set AWS_CA_BUNDLE to the certificate of its authority, or write http:// for a server without TLS.",
        )
    except boto.BotoCoreError as error:
        return fail(
            f"{url} ({setting}) does not answer ({type(error).__name__}).",
            "Set storage.endpoint_url to where the buckets are, or see whether the network lets you there."
            + proxy_hint(url, os.environ),
        )
    case.s3_down = ""
    found = f"{url} ({setting}) answers (HTTP {answer.status_code}); {region}"
    skew = _skew(answer.headers.get("Date"), now())
    if abs(skew) >= REFUSED_SKEW_S:
        return fail(f"{found}, but this machine's clock is {skew:+.0f} s off, and S3 refuses that.", "Set the clock.")
    if abs(skew) >= SKEW_S:
        return note(f"{found}, and this machine's clock is {skew:+.0f} s off.", "Set the clock.")
    return ok(found)


def where(storage: Storage, environment: Mapping[str, str]) -> tuple[str, str, str]:
    """(URL of S3, the setting it comes from, the region and the setting it comes from)."""
    import botocore.session

    session = botocore.session.Session(profile=storage.profile)
    regions = {
        "storage.region": storage.region,
        "AWS_DEFAULT_REGION": environment.get("AWS_DEFAULT_REGION"),
        "AWS_REGION": environment.get("AWS_REGION"),
        "the profile": session.get_config_variable("region"),
    }
    named = next(((value, name) for name, value in regions.items() if value), None)
    said = f"region {named[0]} ({named[1]})" if named else "no region named"
    urls = {
        "storage.endpoint_url": storage.endpoint_url,
        "AWS_ENDPOINT_URL_S3": environment.get("AWS_ENDPOINT_URL_S3"),
        "AWS_ENDPOINT_URL": environment.get("AWS_ENDPOINT_URL"),
    }
    for name, url in urls.items():
        if url:
            return url.rstrip("/"), name, said
    client: Any = session.create_client("s3", region_name=named[0] if named else "us-east-1")
    return client.meta.endpoint_url, "storage.endpoint_url is not set", said


def _skew(date: str | None, now: datetime) -> float:
    """Seconds by which this clock is ahead; 0 when the server names no time."""
    with suppress(ValueError, TypeError):
        if date:
            return (now - parsedate_to_datetime(date)).total_seconds()
    return 0.0


def credentials(case: Case) -> Check:
    """Which source of credentials is used. Leaves in the case that there are none."""
    found = source_of_credentials(case)
    if found.state == "FAIL":
        case.s3_down = case.s3_down or "there are no usable S3 credentials"
    return found


def source_of_credentials(case: Case) -> Check:
    """Where the credentials come from: names of variables, never what they hold."""
    import botocore.exceptions as boto
    import botocore.session

    storage = case.storage
    if storage.anon:
        return ok("none are sent (storage.anon)")
    if storage.key and storage.secret:
        return ok("storage.key and storage.secret of the config")
    advice = (
        "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or storage.profile, give the pod a service account with web "
        "identity, or set storage.anon=true for a public bucket."
    )
    try:
        found = botocore.session.Session(profile=storage.profile).get_credentials()
    except boto.ProfileNotFound:
        name = "storage.profile" if storage.profile else "AWS_PROFILE"
        return fail(f"{name} names a profile that ~/.aws/config does not have.", "Correct it, or unset it.")
    except boto.PartialCredentialsError as error:
        return fail(f"{error.kwargs['cred_var']} is missing beside the others.", "Set it, or unset the others.")
    except boto.BotoCoreError as error:
        return fail(f"cannot be obtained ({type(error).__name__}).", advice)
    if found is None:
        return fail("none found in the environment, a profile, web identity or the machine.", advice)
    token_file = case.environment.get("AWS_WEB_IDENTITY_TOKEN_FILE", "")
    if found.method == "assume-role-with-web-identity" and token_file and not os.access(token_file, os.R_OK):
        return fail(
            "web identity, but the file that AWS_WEB_IDENTITY_TOKEN_FILE names cannot be read.",
            "Give the pod its service account again (serviceAccountName), and fsGroup for its user.",
        )
    if found.method in ("shared-credentials-file", "config-file", "assume-role", "sso", "custom-process", "login"):
        by = next((name for name in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE") if case.environment.get(name)), "default")
        return ok(f"the profile ({'storage.profile' if storage.profile else by}; {found.method})")
    return ok(VARIABLES.get(found.method, found.method))


def writable(case: Case, setting: str, folder: str) -> Check:
    """A file written to `folder`, read back and deleted; and the room there."""
    remote, folder = is_remote(folder), absolute(folder)
    if is_s3(folder) and case.s3_down:
        return not_asked(case)
    try:
        if remote:
            case.storage.check_place(folder)
        with probe_file(case.storage, folder) as probe:
            if case.storage.read(probe) != CONTENT:
                return fail(f"{probe}: other bytes came back than were written.", "Check for a proxy in between.")
            room = None if remote else shutil.disk_usage(os.path.dirname(probe))
    except StorageError as error:
        said = " ".join(str(error).split())
        return fail(said, _next_move(setting, folder, getattr(error, "code", ""), said))
    if room is None:
        return ok(f"{folder} can be written, read and deleted from")
    found = f"{folder} can be written, read and deleted from; {size(room.free)} free of {size(room.total)}"
    if room.free < LEAST_BYTES:
        return fail(f"{found}.", f"Free space there, or set {setting} to another disk.")
    return note(f"{found}.", "Features of 100,000 images need about 1 GB.") if room.free < FEW_BYTES else ok(found)


def _next_move(setting: str, folder: str, code: str, said: str) -> str:
    if not is_s3(folder):
        return f"Set {setting} to a {'place' if is_remote(folder) else 'folder'} that you may write to."
    if code == "denied" and "what they may do in bucket" not in said:  # a token, a key or a clock, not a permission
        return f"Or set {setting} elsewhere."
    if code == "denied":
        return (
            f"Allow s3:ListBucket of the bucket, and s3:PutObject, s3:GetObject and s3:DeleteObject below {folder}, "
            f"or set {setting} elsewhere."
        )
    if code == "unavailable":
        return "Set storage.endpoint_url to where the bucket is, or try later."
    return f"Set {setting}, storage.endpoint_url and storage.region to the bucket's."


@contextmanager
def probe_file(storage: Storage, folder: str) -> Iterator[str]:
    """The name of a small file in `folder`, which is removed again with every folder that had to be made for it."""
    made = [] if is_remote(folder) else _missing(folder)
    probe = join(folder, f"chexray-doctor-{uuid.uuid4().hex}")
    written = False
    try:
        storage.write(probe, CONTENT)
        written = True
        yield probe
        written = False
        _delete(storage, probe)
    finally:
        if written:  # what made the block fail is the news
            with suppress(StorageError):
                storage.delete(probe)
        for each in made:
            with suppress(OSError):
                os.rmdir(each)


def _delete(storage: Storage, probe: str) -> None:
    try:
        storage.delete(probe)
    except StorageError as error:
        text = f"{basename(probe)} was written but cannot be deleted: {error}"
        raise StorageFailure(text, code=getattr(error, "code", "failed")) from error


def _missing(folder: str) -> list[str]:
    """`folder` and those above it that do not exist, lowest first."""
    found = []
    while folder and not os.path.exists(folder):
        found.append(folder)
        folder = os.path.dirname(folder)
    return found
