"""Buckets that refuse what asks without an encryption header, or without agreeing to pay; and what a 403 may mean."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import botocore.exceptions as boto
import pytest
from fixtures.faults import FaultProxy, Rule
from fixtures.s3 import S3, SECRET, make_bucket, reach
from typer.testing import CliRunner

from chexray.cli import app
from chexray.config import StorageConfig, parse_config
from chexray.errors import ConfigError, StorageError
from chexray.plan import make_storage
from chexray.storage import Storage, join
from chexray.storage.s3_failures import explain

SSE, KEY, PAYER = "x-amz-server-side-encryption", "x-amz-server-side-encryption-aws-kms-key-id", "x-amz-request-payer"
PART = 5 << 20


class Gate(FaultProxy):
    """A bucket policy: requests that start an object need `header`, if that is SSE; all requests need it, if PAYER."""

    def __init__(self, host: str, port: int):
        super().__init__(host, port)
        self.header = ""
        self.asked: list[tuple[str, str, dict[str, str]]] = []

    def _fault(self, method: str, path: str, fields: dict[str, str]) -> str:
        self.asked.append((method, path, fields))
        creates = (method == "PUT" and "partNumber" not in path) or (method == "POST" and "uploads" in path)
        concerned = creates if self.header == SSE else bool(self.header)
        return "403" if concerned and self.header not in fields else super()._fault(method, path, fields)


@dataclass
class Guarded:
    gate: Gate
    s3: S3
    names: list[str] = field(default_factory=list)

    def storage(self, header: str, **settings) -> Storage:
        self.gate.header = header
        self.gate.asked.clear()
        return replace(self.s3.storage, **settings)

    def uri(self, name: str = "a.bin") -> str:
        return join(self.s3.bucket, name)


@pytest.fixture(scope="module")
def guarded(s3_server: str) -> Iterator[Guarded]:
    host, port = s3_server.removeprefix("http://").split(":")
    with Gate(host, int(port)) as gate:
        yield Guarded(gate, reach(gate.url, make_bucket(s3_server, "guarded"), gate))


def library(storage: Storage, uri: str) -> None:
    """What a library does that writes by itself: small, in parts, and a copy."""
    filesystem = storage.fsspec_filesystem(uri)
    filesystem.pipe_file(uri, b"x")
    with filesystem.open(f"{uri}-parts", "wb", block_size=PART) as file:
        file.write(bytes(PART + 1))
        file.write(bytes(PART))
    filesystem.copy(uri, f"{uri}-copy")
    assert filesystem.cat_file(f"{uri}-copy") == b"x"


@pytest.mark.parametrize(("sse", "key"), [("AES256", None), ("aws:kms", None), ("aws:kms", "alias/team")])
def test_every_way_to_write_sends_the_encryption_header(guarded: Guarded, sse: str, key: str | None) -> None:
    storage = guarded.storage(SSE, sse=sse, sse_kms_key_id=key)
    storage.write(guarded.uri(), b"x")
    storage.check_writable(guarded.uri("folder"))
    library(storage, guarded.uri("library"))
    made = [fields for method, path, fields in guarded.gate.asked if SSE in fields]
    assert len(made) >= 5
    assert {fields[SSE] for fields in made} == {sse}
    assert {fields.get(KEY) for fields in made} == {key}
    assert all(method == "PUT" or "uploads" in path for method, path, fields in guarded.gate.asked if SSE in fields)


def test_without_the_setting_the_refusal_names_it(guarded: Guarded) -> None:
    storage = guarded.storage(SSE)
    with pytest.raises(
        StorageError, match=r"denied \(AccessDenied\).*s3:PutObject.*set storage.sse to AES256"
    ) as found:
        storage.write(guarded.uri(), b"x")
    assert found.value.code == "denied"
    assert "\n" not in str(found.value)
    assert SECRET not in str(found.value)
    assert storage.list(guarded.s3.bucket) is not None  # reading needs no header


def test_every_request_agrees_to_pay(guarded: Guarded) -> None:
    storage, uri = guarded.storage(PAYER, requester_pays=True), guarded.uri("paid/a.bin")
    storage.write(uri, b"data")
    assert storage.read(uri) == b"data"
    assert storage.read_range(uri, 1, 2) == b"at"
    with storage.open(uri) as file:
        assert file.read() == b"data"
    assert storage.is_dir(guarded.uri("paid"))
    assert len(storage.list(guarded.uri("paid"))) == 1
    assert storage.stat([uri, *(guarded.uri(f"paid/{n}") for n in range(12))])[0].size == 4
    library(storage, guarded.uri("paid/library"))
    storage.delete(uri)
    assert len(guarded.gate.asked) >= 12
    assert {fields[PAYER] for _, _, fields in guarded.gate.asked} == {"requester"}
    with pytest.raises(StorageError, match=r"storage.requester_pays: true"):
        guarded.storage(PAYER).read(uri)


def test_no_header_is_sent_unasked(guarded: Guarded) -> None:
    storage = guarded.storage("")
    storage.write(guarded.uri(), b"x")
    assert storage.read(guarded.uri()) == b"x"
    assert not [1 for _, _, fields in guarded.gate.asked if {SSE, KEY, PAYER} & set(fields)]


def test_a_config_says_it_and_what_does_not_go_together_is_refused() -> None:
    def settings(**storage) -> StorageConfig:
        data = {"real": "a", "synthetic": "b", "encoders": ["pixels"], "storage": storage}
        return parse_config(data, [], origin="test").storage

    made = make_storage(settings(sse="aws:kms", sse_kms_key_id="arn:aws:kms:eu-west-1:1:key/k", requester_pays=True))
    assert (made.sse, made.sse_kms_key_id, made.requester_pays) == ("aws:kms", "arn:aws:kms:eu-west-1:1:key/k", True)
    with pytest.raises(ConfigError, match="sse_kms_key_id needs sse: aws:kms"):
        settings(sse="AES256", sse_kms_key_id="k")
    with pytest.raises(ConfigError, match=r"storage\.sse"):
        settings(sse="aes")
    named = ["storage.sse=aws:kms", "storage.sse_kms_key_id=alias/team"]  # a key's name is no secret
    smallest = {"real": "a", "synthetic": "b", "encoders": ["pixels"]}
    assert parse_config(smallest, named, origin="test").storage.sse_kms_key_id == "alias/team"


@pytest.mark.parametrize("command", [["compare", "a", "b"], ["filter", "a"]])
def test_commands_without_a_config_take_the_same_settings(command: list[str], tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    made: list[StorageConfig] = []
    monkeypatch.setattr("chexray.plan.make_storage", lambda config: made.append(config) or make_storage(config))
    found = CliRunner().invoke(app, [*command, "--storage", "sse=AES256", "--storage", "requester_pays=true"])
    assert found.exit_code == 1  # there is no such run
    assert [(config.sse, config.requester_pays) for config in made] == [("AES256", True)]
    for wrong, words in (("sse=aes", "storage.sse"), ("secret=hush", "a secret was given"), ("ssl=1", "unknown key")):
        error = CliRunner().invoke(app, [*command, "--storage", wrong]).exception
        assert words in str(error)
        assert "hush" not in str(error)


def answer(verb: str, status: int, code: str = "", message: str = "", headers: dict | None = None) -> boto.ClientError:
    metadata = {"HTTPStatusCode": status, "HTTPHeaders": headers or {}}
    return boto.ClientError({"Error": {"Code": code, "Message": message}, "ResponseMetadata": metadata}, verb)


POLICY = (
    "User: arn:aws:iam::123456789012:user/jane is not authorized to perform: s3:PutObject on resource: "
    '"arn:aws:s3:::b/k" with an explicit deny in a resource-based policy'
)
KMS = "User: arn:aws:iam::1:user/jane is not authorized to perform: kms:GenerateDataKey on resource: arn:aws:kms:x"
SAID = [
    ("PutObject", 403, "AccessDenied", POLICY, {}, "service names s3:PutObject, denied by a resource-based policy"),
    ("PutObject", 403, "AccessDenied", POLICY, {}, "set storage.sse to AES256 or aws:kms"),
    ("PutObject", 403, "AccessDenied", "", {"sse": "AES256"}, "may require another storage.sse"),
    ("PutObject", 403, "AccessDenied", "", {"sse": "aws:kms"}, "kms:GenerateDataKey on the key"),
    ("PutObject", 403, "AccessDenied", KMS, {"sse": "aws:kms"}, "names kms:GenerateDataKey. Allow it on the KMS key"),
    ("CreateMultipartUpload", 403, "AccessDenied", "", {}, "set storage.sse to AES256 or aws:kms"),
    ("GetObject", 403, "AccessDenied", "", {}, "Without s3:ListBucket a missing object is denied, too"),
    ("HeadObject", 403, "403", "Forbidden", {}, "s3:GetObject. Without s3:ListBucket"),
    ("HeadObject", 403, "403", "Forbidden", {}, "storage.requester_pays: true"),
    ("ListObjectsV2", 403, "AccessDenied", "", {}, "s3:ListBucket"),
    ("DeleteObject", 403, "AccessDenied", "", {}, "s3:DeleteObject"),
    ("PutObject", 400, "KMS.DisabledException", "", {"sse": "aws:kms"}, "The KMS key is disabled"),
    ("PutObject", 400, "KMS.NotFoundException", "", {"sse": "aws:kms"}, "correct storage.sse_kms_key_id"),
    ("GetObject", 400, "KMS.KMSInvalidStateException", "", {}, "denied (KMS.KMSInvalidStateException)"),
    ("PutObject", 501, "NotImplemented", "", {"sse": "aws:kms"}, "Does the service know storage.sse aws:kms"),
    ("PutObject", 400, "InvalidArgument", "", {"sse": "aws:kms"}, "Does the service know storage.sse aws:kms"),
    ("GetObject", 403, "InvalidObjectState", "", {}, "archived: restore it first"),
    ("GetObject", 403, "RequestTimeTooSkewed", "", {}, "Set the clock of this machine"),
    ("GetObject", 403, "InvalidAccessKeyId", "", {}, "does not know this access key"),
    ("GetObject", 403, "SignatureDoesNotMatch", "", {}, "The secret does not belong"),
]


@pytest.mark.parametrize(("verb", "status", "code", "message", "settings", "words"), SAID)
def test_a_refusal_names_what_may_be_missing(verb, status, code, message, settings, words) -> None:
    found = explain(answer(verb, status, code, message), "s3://b/k", "b", "AWS S3", Storage(**settings))
    assert words in str(found)
    assert not found.transient
    assert found.code == ("failed" if "Does the service know" in words else "denied")
    for hidden in ("jane", "123456789012", "arn:"):
        assert hidden not in str(found)


def test_a_region_that_only_a_header_names_and_a_busy_key_service() -> None:
    elsewhere = answer("HeadObject", 403, "403", "", {"x-amz-bucket-region": "eu-west-1"})
    assert "another region (403). Set region to eu-west-1" in str(
        explain(elsewhere, "s3://b/k", "b", "AWS S3", Storage(region="us-east-1"))
    )
    busy = explain(answer("PutObject", 400, "KMS.ThrottlingException"), "s3://b/k", "b", "AWS S3", Storage())
    assert (busy.code, busy.transient) == ("unavailable", True)


def test_a_proxy_that_catches_a_local_server_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "no_proxy"):  # of this machine, which would win
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://user:password@proxy:3128")
    monkeypatch.setenv("NO_PROXY", "other")
    error = boto.ConnectTimeoutError(endpoint_url="http://minio:9000")
    text = str(explain(error, "s3://b/k", "b", "http://minio:9000", Storage()))
    assert text.endswith(" HTTP_PROXY applies to minio. To reach it directly, add minio to no_proxy.")
    assert "password" not in text
    refused = explain(answer("GetObject", 403, "403"), "s3://b/k", "b", "http://minio:9000", Storage())
    assert "no_proxy" in str(refused)  # a proxy's own refusal has no error code of S3
    denied = explain(answer("GetObject", 403, "AccessDenied"), "s3://b/k", "b", "http://minio:9000", Storage())
    assert "no_proxy" not in str(denied)
    monkeypatch.setenv("NO_PROXY", "minio")
    assert "no_proxy" not in str(explain(error, "s3://b/k", "b", "http://minio:9000", Storage()))


def test_a_gate_passes_faults_on(guarded: Guarded) -> None:
    """The fixture itself: without it the tests above would prove nothing."""
    storage = guarded.storage("")
    guarded.gate.rules = [Rule("404", method="GET")]
    with pytest.raises(StorageError, match="no such object"):
        storage.read(guarded.uri())
    guarded.gate.rules = []
