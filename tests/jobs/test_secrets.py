"""Secrets stay out of command lines, of what is sent to a cluster, of what a run writes, and of every message."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from chexray.config import load_config, parse_config
from chexray.config.secrets import looks_secret, url_problem
from chexray.errors import ConfigError
from chexray.jobs.bundle import open_secrets
from chexray.jobs.portable_config import travelling
from chexray.jobs.submitting import find_address

BASE: dict[str, Any] = {"real": "s3://b/r", "synthetic": "s3://b/s", "encoders": "pixels", "output": "s3://b/out"}
HIDDEN = "hunter2hunter2"
AWS = "AKIA" + "IOSFODNN7EXAMPLE"

OVERRIDES = [
    "storage.secret=" + HIDDEN,
    "storage.key=" + HIDDEN,
    "storage.token=" + HIDDEN,
    " storage . secret = " + HIDDEN,
    "STORAGE.Secret=" + HIDDEN,
    "storage.secret_key=" + HIDDEN,
    "storage.aws_secret_access_key=" + HIDDEN,
    "storage.secretKey=" + HIDDEN,
    "storage.password=" + HIDDEN,
    "storage={secret: " + HIDDEN + "}",
    'storage={"secret": "' + HIDDEN + '"}',
    'storage={"s\\x65cret": "' + HIDDEN + '"}',
    "storage={region: eu, token : " + HIDDEN + "}",
    "storage={secret: " + HIDDEN,
    "storage=secret: " + HIDDEN,
    "storage={a: {key: " + HIDDEN + "}}",
    "storage.secret:" + HIDDEN,
    "storage.secret: " + HIDDEN,
    "real.password=" + HIDDEN,
    "real={path: x, access_token: " + HIDDEN + "}",
    "real.note=" + AWS,
    "real.note=-----BEGIN RSA PRIVATE KEY-----" + HIDDEN,
    "real.path=s3://me:" + HIDDEN + "@bucket/x",
    "real.path=s3://me:a/" + HIDDEN + "@bucket/x",
    "real.path=s3:/me:" + HIDDEN + "@bucket/x",
    "real.path=s3:me:" + HIDDEN + "@bucket/x",
    "encoders=[{name: rad_dino, weights: 'https://h/w?X-Amz-Signature=" + HIDDEN + "'}]",
    "output=https://h/x?sig=" + HIDDEN,
    "output=https://h/x?a=1&x-goog-signature=" + HIDDEN,
    "output=https://h/x?AWSAccessKeyId=" + HIDDEN,
]


@pytest.mark.parametrize("override", OVERRIDES)
def test_a_secret_on_the_command_line_is_refused_and_not_repeated(override: str) -> None:
    data = {**BASE, "real": {"path": "x"}}
    with pytest.raises(ConfigError) as found:
        parse_config(data, [override])
    line = str(found.value)
    assert HIDDEN not in line
    assert AWS not in line
    assert len(line.splitlines()) == 1
    if override.strip().lower().startswith("storage"):
        assert "AWS_SECRET_ACCESS_KEY" in line
        assert "config file" in line


@pytest.mark.parametrize(
    "setting", ["profile=work", "region=eu-west-1", "endpoint_url=http://key-server:9000", "anon=true"]
)
def test_other_settings_of_the_storage_are_fine(setting: str) -> None:
    key, _, value = setting.partition("=")
    assert str(getattr(parse_config(BASE, [f"storage.{setting}"]).storage, key)).lower() == value


COMMANDS = [
    ["run", "--real", "x", "--synthetic", "y", "--set", "storage.secret=" + HIDDEN],
    ["run", "--real", f"s3://me:{HIDDEN}@b/x", "--synthetic", "y"],
    ["run", "--real", "x", "--synthetic", f"https://h/y?X-Amz-Signature={HIDDEN}"],
    ["run", "--real", "x", "--synthetic", "y", "--reid-weights", f"https://h/y?token={HIDDEN}"],
    ["run", "--real", "x", "--synthetic", "y", "--output", f"s3://me:{HIDDEN}@b/x"],
    ["run", f"s3://me:{HIDDEN}@b/run.yaml"],
    ["validate", "run.yaml", "--set", "storage.token=" + HIDDEN],
    ["submit", "run.yaml", "--address", "http://head:8265", "--set", "storage.key=" + HIDDEN],
    ["submit", "run.yaml", "--address", f"http://me:{HIDDEN}@head:8265"],
    ["submit", "run.yaml", "--address", f"http:me:{HIDDEN}@head:8265"],
    ["submit", "run.yaml", "--address", f"http://head:8265?token={HIDDEN}"],
    ["kuberay", "run.yaml", "--overlay", "s3", "--set", "storage={secret: " + HIDDEN + "}"],
    ["status", "out", "--set", "storage.secret=" + HIDDEN],
    ["status", "out", "--set", "secret=" + HIDDEN],
    ["status", f"s3://me:{HIDDEN}@b/out"],
    ["filter", f"s3://me:{HIDDEN}@b/out"],
    ["filter", "out", "--set", "storage.secret=" + HIDDEN],
    ["compare", f"s3://me:{HIDDEN}@b/out", "other"],
    ["train", "--real", "x", "--synthetic", "y", "--training", "z", "--weights", f"https://h/y?sig={HIDDEN}"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command[:2]).replace(HIDDEN, "..."))
def test_no_command_repeats_a_secret(command: list[str], tmp_path: Path, monkeypatch, capsys) -> None:
    from chexray.cli import main

    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(BASE))
    monkeypatch.setattr(sys, "argv", ["chexray", *command])
    with pytest.raises(SystemExit) as end:
        main()
    said = capsys.readouterr()
    assert end.value.code == 2
    assert HIDDEN not in said.out + said.err
    assert len(said.err.strip().splitlines()) == 1
    assert not list(tmp_path.glob("out*"))


def test_a_config_file_may_hold_storage_secrets_and_nothing_shows_or_sends_them(tmp_path: Path) -> None:
    secrets = {"key": AWS, "secret": HIDDEN, "token": HIDDEN}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({**BASE, "storage": {**secrets, "region": "eu"}}))
    config = load_config(tmp_path / "run.yaml")
    assert config.storage.secret is not None
    sent = travelling(config)
    shown = [config.to_yaml(), repr(config), str(config.storage), config.model_dump_json(), sent.text, repr(sent)]
    shown += [*sent.notes, json.dumps(config.model_dump(mode="json"))]
    assert all(HIDDEN not in text and AWS not in text for text in shown)


@pytest.mark.parametrize(
    "change",
    [
        {"real": {"path": "s3://b/x", "token": HIDDEN}},
        {"encoders": [{"name": "pixels", "api_key": HIDDEN}]},
        {"encoders": [{"name": "pixels", "id": "hf_" + "a1" * 17}]},
        {"synthetic": {f"s3://me:{HIDDEN}@b/x": {"path": "y"}}},
        {"name": AWS},
        {"storage": {"secret": [HIDDEN]}},
        {"storage": {"secrets": HIDDEN}},
        {"storage": HIDDEN},
        {"storage": {"endpoint_url": f"http://me:{HIDDEN}@minio"}},
        {"ray": {"address": f"ray://me:{HIDDEN}@head:10001"}},
        {"storge": {"secret": HIDDEN}},
        {"storage": {"retries": HIDDEN}},
    ],
)
def test_a_config_that_would_be_repeated_with_a_secret_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as found:
        parse_config({**BASE, **change})
    assert HIDDEN not in str(found.value)
    assert AWS not in str(found.value)


NAMES = [
    "DB_PASS", "FOO_PWD", "MY_PAT", "KEY_PASSPHRASE", "X_CREDENTIALS", "APIKEY", "OPENAI_API_KEY", "apiKey",
    "PRIVATE_KEY", "BASIC_AUTH", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "dbpass", "Password",
    "hfToken", "MYSQL_PW", "JWT",
]  # fmt: skip
VALUES = [
    "postgres://me:pw@host/db", "redis://:pw@host", AWS, "ASIA" + "A" * 16, "hf_" + "x" * 34, "ghp_" + "x" * 36,
    "github_pat_" + "x" * 40, "eyJhbGciOiJI.eyJzdWIiOiIx.SflKxwRJ", "-----BEGIN OPENSSH PRIVATE KEY-----\nx",
    "Server=h;Password=pw;", "DefaultEndpointsProtocol=https;AccountKey=x", "https://h/x?sig=x", "Bearer " + "x" * 20,
    "xoxb-" + "1" * 20, "glpat-" + "x" * 20,
]  # fmt: skip


def test_secrets_of_a_runtime_environment_are_named_and_not_shown() -> None:
    for name in NAMES:
        assert open_secrets({"env_vars": {name: "x"}}) == [
            f"--runtime-env: {name} can be read by everyone who may list the cluster's jobs"
        ], name
    for value in VALUES:
        (note,) = open_secrets({"env_vars": {"SETTING": value}, "pip": ["numpy"]})
        assert note.startswith("--runtime-env: SETTING can"), value
        assert value not in note
    assert open_secrets({"pip": {"packages": ["git+https://me:pw@host/x.git"]}})
    assert open_secrets({"container": {"run_options": ["-e", "A=" + AWS]}})


def test_what_is_no_secret_is_not_called_one() -> None:
    plain = {
        "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin", "OMP_NUM_THREADS": 2, "PYTHONPATH": "/a:/b", "URL": "http://h:80/x?a=1",
        "AT": "me@example.org", "BUCKET": "s3://b/k@v.png", "ARN": "s3://arn:aws:s3:eu:1:accesspoint/x/a@b",
    }  # fmt: skip
    assert open_secrets({"env_vars": plain, "pip": ["numpy==1.0"]}) == []
    for path in (
        "/data/sk-learn-experiments-run/x.csv",
        "s3://b/token=1/x.csv",
        "hf_vision",
        "/a/b@c.csv",
        "file:///x",
    ):
        assert not url_problem(path), path
        assert not looks_secret(path), path


@pytest.mark.parametrize(
    "text", [f"http://me:{HIDDEN}@h", f"ftp://{HIDDEN}@h", f"http:{HIDDEN}@h", f"http://h/?t={HIDDEN}"]
)
def test_an_address_with_a_login_is_not_repeated(text: str) -> None:
    with pytest.raises(ConfigError) as found:
        find_address(text, {})
    assert HIDDEN not in str(found.value)


@pytest.mark.slow
def test_long_texts_are_searched_at_once() -> None:
    for unit in ("a", "a:", "s3://a:b", "eyJ", "-eyJ.", "@", "a:/", "hf_", "-----BEGIN ", "?a=", "secret", "bearer "):
        looks_secret(unit * (1_000_000 // len(unit)))
