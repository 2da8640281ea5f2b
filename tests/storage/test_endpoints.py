"""How a custom S3 service is reached: URL, region, certificate, each from its places, and what is said of typos."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

import pytest
from fixtures.s3 import S3, SECRET
from fixtures.stub_s3 import StubS3, key

from chexray.errors import StorageError
from chexray.storage import Storage, join

KEYS = {"key": "AKIATESTING", "secret": SECRET}
VARIABLES = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE")


@pytest.fixture(autouse=True)
def bare(monkeypatch, tmp_path: Path):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))


def one_line(error: pytest.ExceptionInfo) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("url", ["minio.example:9000", "localhost:9000", "https//minio", "s3://bucket", "https://"])
def test_an_endpoint_without_its_scheme_is_refused_at_once(url: str):
    with pytest.raises(StorageError, match=r"Write it as https://host:port, or http://") as found:
        Storage(url)
    assert f"endpoint_url is {url!r}" in one_line(found)


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_a_typo_in_the_environment_names_the_variable(monkeypatch, variable: str):
    monkeypatch.setenv(variable, "minio:9000")
    with pytest.raises(StorageError, match=f"^{variable} is 'minio:9000'"):
        Storage(timeout_s=31, **KEYS).read("s3://bucket/a")


@pytest.mark.parametrize("url", ["http://me:hunter2@host:9000", "me:hunter2@host:9000"])
def test_a_password_in_an_endpoint_is_refused_and_not_repeated(monkeypatch, url: str):
    with pytest.raises(StorageError, match="endpoint_url holds a user or password") as found:
        Storage(url)
    assert "hunter2" not in one_line(found)
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    with pytest.raises(StorageError, match="AWS_ENDPOINT_URL holds") as found:
        Storage(timeout_s=32, **KEYS).read("s3://bucket/a")
    assert "hunter2" not in one_line(found)


def test_a_slash_at_the_end_changes_nothing(faulty_s3: S3):
    assert Storage("http://host:1//", **KEYS) == Storage("http://host:1", **KEYS)
    storage = Storage(f"{faulty_s3.endpoint}/", "us-east-1", **KEYS)
    storage.write(join(faulty_s3.bucket, "a"), b"x")
    assert storage.read(join(faulty_s3.bucket, "a")) == b"x"


def test_the_bucket_is_in_the_path_wherever_the_endpoint_comes_from(faulty_s3: S3, monkeypatch, tmp_path: Path):
    """A name such as bucket.minio resolves nowhere."""
    path = faulty_s3.bucket.removeprefix("s3:/") + "/a"
    config = tmp_path / "config"

    def reads(storage: Storage) -> None:
        faulty_s3.proxy.seen.clear()
        assert storage.read(join(faulty_s3.bucket, "a")) == b"x"
        assert [seen for _, seen, _ in faulty_s3.proxy.seen] == [path]

    faulty_s3.storage.write(join(faulty_s3.bucket, "a"), b"x")
    reads(Storage(faulty_s3.endpoint, "us-east-1", **KEYS))
    for number, variable in enumerate(("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")):
        with monkeypatch.context() as patch:
            patch.setenv(variable, faulty_s3.endpoint)
            reads(Storage(region="us-east-1", timeout_s=41 + number, **KEYS))
    config.write_text(f"[profile lab]\nendpoint_url = {faulty_s3.endpoint}\nregion = us-east-1\n")
    reads(Storage(profile="lab", timeout_s=43, **KEYS))
    config.write_text(f"[profile lab]\nservices = here\n[services here]\ns3 =\n  endpoint_url = {faulty_s3.endpoint}\n")
    reads(Storage(profile="lab", timeout_s=44, **KEYS))
    config.write_text("[profile lab]\nendpoint_url = minio:9000\n")
    with pytest.raises(StorageError, match=r"^endpoint_url of the AWS config file is 'minio:9000'"):
        Storage(profile="lab", timeout_s=45, **KEYS).read(join(faulty_s3.bucket, "a"))


def test_the_region_is_the_setting_or_either_variable(faulty_s3: S3, monkeypatch):
    faulty_s3.storage.write(join(faulty_s3.bucket, "a"), b"x")
    cases = [("eu-west-1", {}), (None, {"AWS_REGION": "eu-west-2"}), (None, {"AWS_DEFAULT_REGION": "eu-west-3"})]
    for number, (region, variables) in enumerate(cases):
        faulty_s3.proxy.signed.clear()
        with monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            Storage(faulty_s3.endpoint, region, timeout_s=51 + number, **KEYS).read(join(faulty_s3.bucket, "a"))
        assert {part.split("/")[2] for part in faulty_s3.proxy.signed} == {f"eu-west-{number + 1}"}


def test_settings_that_botocore_refuses():
    with pytest.raises(StorageError, match=r"refused before sending .InvalidRegionError.. Check URI, region"):
        Storage("http://127.0.0.1:9", "no region", **KEYS).read("s3://bucket/a")
    with pytest.raises(StorageError, match=r"refused before sending .ParamValidationError"):
        Storage("http://127.0.0.1:9", "us-east-1", **KEYS).read("s3://not a bucket/a")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> str:
    """A private authority's certificate for 127.0.0.1 with its key, in one file."""
    x509 = pytest.importorskip("cryptography.x509", reason="the TLS test makes its own certificate")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a private authority")])
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder(name, name, private.public_key(), x509.random_serial_number())
        .not_valid_before(datetime.datetime(2020, 1, 1))
        .not_valid_after(datetime.datetime(2120, 1, 1))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(private, hashes.SHA256())
    )
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    path.write_bytes(pem + made.public_bytes(serialization.Encoding.PEM))
    return str(path)


def test_a_private_certificate_is_refused_or_known_by_aws_ca_bundle(certificate: str, monkeypatch):
    with StubS3(10, tls=certificate) as stub:
        waits: list[float] = []
        with pytest.raises(StorageError, match=r"TLS failed. Check .* certificate, or AWS_CA_BUNDLE") as found:
            Storage(stub.url, "us-east-1", timeout_s=61, sleep=waits.append, **KEYS).list("s3://bucket")
        assert (one_line(found), waits) == (str(found.value), [])
        monkeypatch.setenv("AWS_CA_BUNDLE", certificate)
        listed = Storage(stub.url, "us-east-1", timeout_s=62, **KEYS).list("s3://bucket")
        assert [entry.uri for entry in listed] == [f"s3://bucket/{key(number)}" for number in range(10)]
