"""Where a run writes: wrong endpoints, denied and missing buckets, credentials and clocks, told without a secret."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fixtures.faults import Rule
from fixtures.s3 import S3, SECRET

from chexray import parse_config
from chexray.doctor import storage as looking
from chexray.doctor.case import Case
from chexray.doctor.checks import pending, perform


def case(output: str, s3: S3 | None = None, **storage) -> Case:
    if s3:
        storage = {
            "endpoint_url": s3.endpoint,
            "region": "us-east-1",
            "key": "AKIATESTING",
            "secret": SECRET,
            **storage,
        }
    data = {"real": "real.csv", "synthetic": "synthetic.csv", "encoders": ["pixels"], "output": output}
    return Case(parse_config({**data, "storage": {"timeout_s": 5, **storage}}), environment={})


def lines(visited: Case) -> dict[str, str]:
    return {each.name: perform(each).line for each in looking.pending(visited)}


@pytest.fixture
def no_credentials(monkeypatch, tmp_path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ROLE_ARN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


def test_a_bucket_that_works_is_left_as_it_was(s3) -> None:
    found = lines(case(f"{s3.bucket}/out", s3))
    assert [line[:4] for line in found.values()] == ["ok  "] * 3
    assert "region us-east-1 (storage.region)" in found["s3 endpoint"]
    assert found["s3 credentials"].endswith("storage.key and storage.secret of the config")
    assert s3.storage.list(s3.bucket) == []
    assert SECRET not in str(found)
    assert "AKIATESTING" not in str(found)


def test_a_wrong_endpoint_is_found_and_asked_once(s3) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        wrong = f"http://127.0.0.1:{free.getsockname()[1]}"
    visited = case(f"{s3.bucket}/out", s3, endpoint_url=wrong)
    found = lines(visited)
    assert found["s3 endpoint"].startswith("FAIL")
    assert f"{wrong} (storage.endpoint_url) does not answer" in found["s3 endpoint"]
    assert "Set storage.endpoint_url to where the buckets are" in found["s3 endpoint"]
    assert (
        found["output"] == f"note  output               not checked, because the S3 endpoint {wrong} does not answer."
    )


def test_a_proxy_that_catches_the_endpoint_is_named(s3, monkeypatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free.getsockname()[1]}")
    monkeypatch.setenv("no_proxy", "elsewhere")
    found = lines(case(f"{s3.bucket}/out", s3))
    assert "does not answer" in found["s3 endpoint"]
    assert "applies to 127.0.0.1. To reach it directly, add 127.0.0.1 to no_proxy." in str(found)


def test_an_expired_token_is_no_matter_of_permissions(faulty_s3) -> None:
    faulty_s3.proxy.rules = [Rule("expired", times=999, method="PUT")]
    found = lines(case(f"{faulty_s3.bucket}/out", faulty_s3))
    assert "denied (ExpiredToken). The session token has expired" in found["output"]
    assert "s3:ListBucket" not in found["output"]


def test_a_denied_bucket_is_found(faulty_s3) -> None:
    faulty_s3.proxy.rules = [Rule("403", times=999)]
    found = lines(case(f"{faulty_s3.bucket}/out", faulty_s3))
    assert found["s3 endpoint"].startswith("ok ")
    assert found["output"].startswith("FAIL")
    assert "denied" in found["output"]
    assert "If the bucket requires an encryption header, set storage.sse to AES256 or aws:kms." in found["output"]
    allow = f"s3:PutObject, s3:GetObject and s3:DeleteObject below {faulty_s3.bucket}/out"
    assert allow in found["output"]
    assert "\n" not in found["output"]
    assert SECRET not in str(found)


def test_a_file_that_can_be_written_but_not_deleted_is_found(faulty_s3) -> None:
    faulty_s3.proxy.rules = [Rule("403", times=999, method="DELETE")]
    found = lines(case(f"{faulty_s3.bucket}/out", faulty_s3))["output"]
    assert found.startswith("FAIL")
    assert "was written but cannot be deleted" in found


def test_a_missing_bucket_is_found(s3) -> None:
    found = lines(case("s3://nobody-made-this/out", s3))["output"]
    assert found.startswith("FAIL")
    assert "bucket 'nobody-made-this' does not exist" in found
    assert "Set output, storage.endpoint_url" in found


def test_a_busy_service_is_tried_twice(faulty_s3) -> None:
    faulty_s3.proxy.rules = [Rule("503", times=999, method="PUT")]
    visited = case(f"{faulty_s3.bucket}/out", faulty_s3, retries=9)
    assert visited.storage.retries == 1
    object.__setattr__(visited.storage, "sleep", lambda _: None)
    assert lines(visited)["output"].startswith("FAIL")
    assert sum(method == "PUT" for method, _, _ in faulty_s3.proxy.seen) == 2


@pytest.mark.parametrize(("off", "state"), [(5, "ok"), (300, "note"), (-300, "note"), (1000, "FAIL"), (-1000, "FAIL")])
def test_a_clock_that_is_off_is_found(s3, off, state) -> None:
    found = looking.endpoint(case(s3.bucket, s3), now=lambda: datetime.now(UTC) + timedelta(seconds=off))
    assert found.state == state
    assert ("clock" in found.detail) == (state != "ok")


def test_no_credentials_are_found_once(s3, no_credentials) -> None:
    found = lines(case(f"{s3.bucket}/out", s3, key=None, secret=None))
    assert found["s3 credentials"].startswith("FAIL")
    assert "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in found["s3 credentials"]
    assert found["output"].startswith("note")


@pytest.mark.parametrize(
    ("environment", "state", "words"),
    [
        ({"AWS_ACCESS_KEY_ID": "AKIA1", "AWS_SECRET_ACCESS_KEY": SECRET}, "ok", "the environment (AWS_ACCESS_KEY_ID"),
        ({"AWS_ACCESS_KEY_ID": "AKIA1"}, "FAIL", "AWS_SECRET_ACCESS_KEY is missing"),
        ({"AWS_PROFILE": "lab"}, "ok", "the profile (AWS_PROFILE; shared-credentials-file)"),
        ({"AWS_PROFILE": "typo"}, "FAIL", "AWS_PROFILE names a profile"),
        ({"AWS_ROLE_ARN": "arn:r", "AWS_WEB_IDENTITY_TOKEN_FILE": "{here}"}, "ok", "web identity (AWS_ROLE_ARN"),
        (
            {"AWS_ROLE_ARN": "arn:r", "AWS_WEB_IDENTITY_TOKEN_FILE": "/gone"},
            "FAIL",
            "AWS_WEB_IDENTITY_TOKEN_FILE names",
        ),
    ],
)
def test_the_source_of_credentials_is_named_and_no_value_shown(
    s3, no_credentials, monkeypatch, tmp_path, environment, state, words
) -> None:
    (tmp_path / "credentials").write_text(f"[lab]\naws_access_key_id = AKIA1\naws_secret_access_key = {SECRET}\n")
    environment = {name: value.format(here=__file__) for name, value in environment.items()}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    visited = case(s3.bucket, s3, key=None, secret=None)
    visited.environment = environment
    found = looking.credentials(visited)
    assert found.state == state
    assert words in found.detail
    assert SECRET not in found.line
    assert "AKIA1" not in found.line


def test_a_local_folder_is_written_and_left_as_it_was(tmp_path) -> None:
    found = lines(case(str(tmp_path / "new" / "out")))
    assert list(found) == ["output"]
    assert found["output"].startswith(("ok ", "note"))
    assert " free of " in found["output"]
    assert list(tmp_path.iterdir()) == []


def test_a_local_folder_that_cannot_be_written_is_found(tmp_path) -> None:
    (tmp_path / "file").write_text("in the way")
    found = lines(case(str(tmp_path / "file" / "out")))["output"]
    assert found.startswith("FAIL")
    assert found.endswith("Set output to a folder that you may write to.")


def test_s3_is_not_asked_where_nothing_is_on_it(tmp_path: Path) -> None:
    assert not {"s3 endpoint", "s3 credentials"} & {each.name for each in pending(case(str(tmp_path)))}


@pytest.mark.parametrize("place", ["https://127.0.0.1:9/out", "hf://datasets/owner/name/out"])
def test_a_place_that_is_only_read_from_is_found_and_s3_is_not_asked(place: str) -> None:
    found = lines(case(place))
    assert list(found) == ["output"]
    assert found["output"].startswith("FAIL")
    assert "only read from" in found["output"]
    assert found["output"].endswith("Set output to a place that you may write to.")
