"""Where credentials come from, what is said without them, and how long it takes to say so."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest
from fixtures.faults import Rule
from fixtures.s3 import S3
from fixtures.stub_s3 import StubS3

from chexray.errors import StorageError
from chexray.storage import Storage, join, s3

ROLE = "arn:aws:iam::123456789012:role/evaluator"


@pytest.fixture(autouse=True)
def bare(monkeypatch, tmp_path: Path):
    """No AWS setting of this machine, and no request to its metadata service."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def sts(monkeypatch, tmp_path: Path, faulty_s3: S3) -> S3:
    """A pod with a web identity: the token service behind the proxy gives credentials for it."""
    (tmp_path / "token").write_text("the-token-of-the-service-account")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", ROLE)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", faulty_s3.endpoint)
    return faulty_s3


def write_and_read(storage: Storage, bucket: str) -> None:
    storage.write(join(bucket, "a"), b"x")
    assert storage.read(join(bucket, "a")) == b"x"


def test_a_profile_by_setting_and_by_environment(faulty_s3: S3, monkeypatch, tmp_path):
    (tmp_path / "credentials").write_text(
        "[lab]\naws_access_key_id = AKIALAB\naws_secret_access_key = hidden\n"
        "[home]\naws_access_key_id = AKIAHOME\naws_secret_access_key = hidden\n"
    )
    (tmp_path / "config").write_text("[profile lab]\nregion = eu-west-1\n")
    monkeypatch.setenv("AWS_PROFILE", "home")
    write_and_read(Storage(faulty_s3.endpoint, "us-east-1"), faulty_s3.bucket)
    write_and_read(Storage(faulty_s3.endpoint, profile="lab"), faulty_s3.bucket)
    signed = {part.split("/")[0]: part.split("/")[2] for part in faulty_s3.proxy.signed}
    assert signed == {"AKIAHOME": "us-east-1", "AKIALAB": "eu-west-1"}


def test_settings_go_before_the_environment_and_the_environment_before_files(faulty_s3: S3, monkeypatch, tmp_path):
    (tmp_path / "credentials").write_text("[default]\naws_access_key_id = AKIAFILE\naws_secret_access_key = hidden\n")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a-session-token")
    write_and_read(Storage(faulty_s3.endpoint, "us-east-1"), faulty_s3.bucket)
    write_and_read(Storage(faulty_s3.endpoint, "us-east-1", key="AKIASET", secret="hidden"), faulty_s3.bucket)
    assert {part.split("/")[0] for part in faulty_s3.proxy.signed} == {"AKIAENV", "AKIASET"}


def test_a_web_identity_is_exchanged_once(sts: S3):
    storage = Storage(timeout_s=21)
    write_and_read(storage, sts.bucket)
    assert [method for method, path, _ in sts.proxy.seen if path == "/"] == ["POST"]
    assert any(part.startswith("ASIA") for part in sts.proxy.signed)  # temporary, not a key of ours


def test_a_web_identity_that_is_refused(sts: S3):
    sts.proxy.rules = [Rule("403", times=9, method="POST")]
    with pytest.raises(StorageError, match=r"no usable credentials .AssumeRoleWithWebIdentity: AccessDenied.") as found:
        Storage(timeout_s=22).read(join(sts.bucket, "a"))
    assert (found.value.code, found.value.transient) == ("denied", False)
    assert "the-token-of" not in str(found.value)


def test_a_token_file_that_is_missing(sts: S3, monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "none"))
    with pytest.raises(StorageError, match=rf"no usable credentials .{tmp_path}/none: no such file.* service account"):
        Storage(timeout_s=23).read(join(sts.bucket, "a"))


def test_a_token_service_that_stalls_is_given_up_and_tried_again(sts: S3, monkeypatch):
    monkeypatch.setattr(s3, "CREDENTIALS_TIMEOUT_S", 0.5)
    waits: list[float] = []
    sts.proxy.rules = [Rule("stall", times=99, method="POST")]
    storage = Storage(timeout_s=24, retries=1, sleep=waits.append)
    with pytest.raises(StorageError, match=r"no usable credentials .their service does not answer") as found:
        storage.read(join(sts.bucket, "a"))
    assert found.value.transient
    assert len(waits) == 1
    sts.proxy.rules = []
    monkeypatch.setattr(s3, "CREDENTIALS_TIMEOUT_S", 15.0)
    write_and_read(storage, sts.bucket)


def test_the_identity_of_a_container(faulty_s3: S3, monkeypatch, tmp_path):
    """ECS, and EKS with pod identities: an agent on the node gives the credentials."""
    given = {"AccessKeyId": "ASIAPOD", "SecretAccessKey": "hidden", "Token": "t", "Expiration": "2099-01-01T00:00:00Z"}
    (tmp_path / "token").write_text("the-token-of-the-pod")
    with StubS3() as agent:
        agent.answers["/v1/credentials"] = ("application/json", json.dumps(given).encode())
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{agent.url}/v1/credentials")
        monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(tmp_path / "token"))
        write_and_read(Storage(faulty_s3.endpoint, "us-east-1"), faulty_s3.bucket)
        assert agent.asked == ["/v1/credentials"]
    assert {part.split("/")[0] for part in faulty_s3.proxy.signed} == {"ASIAPOD"}


def test_no_identity_is_asked_of_a_metadata_service_that_is_silent_only_once(faulty_s3: S3, monkeypatch):
    """Outside of AWS nobody answers there: botocore waits for a second or two, once a process."""
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(16)
        silent.setblocking(False)
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}/")
        storage = Storage(faulty_s3.endpoint, "us-east-1")
        with pytest.raises(StorageError, match=r"no usable credentials .NoCredentialsError.. Set AWS_ACCESS_KEY_ID"):
            storage.read(join(faulty_s3.bucket, "a"))
        asked = connections(silent)
        with pytest.raises(StorageError, match="no usable credentials"):
            storage.stat([join(faulty_s3.bucket, str(number)) for number in range(20)])
        assert (asked > 0, connections(silent)) == (True, 0)


def connections(listening: socket.socket) -> int:
    """How many came since the last call."""
    count = 0
    while True:
        try:
            listening.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1


def test_half_a_key_and_a_profile_that_is_missing(faulty_s3: S3, monkeypatch):
    with pytest.raises(StorageError, match=r"no usable credentials .PartialCredentialsError"):
        Storage(faulty_s3.endpoint, "us-east-1", key="AKIAHALF").read(join(faulty_s3.bucket, "a"))
    with pytest.raises(StorageError, match=r"no usable credentials .ProfileNotFound"):
        Storage(faulty_s3.endpoint, profile="missing").read(join(faulty_s3.bucket, "a"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAHALF")
    with pytest.raises(StorageError, match=r"no usable credentials .PartialCredentialsError"):
        Storage(faulty_s3.endpoint, "us-east-1", timeout_s=25).read(join(faulty_s3.bucket, "a"))
