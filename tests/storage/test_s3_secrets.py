"""No key, secret, token or signature is shown: not in messages, chains, logs or reprs, and not by the command line.

The proxy's answers repeat the request's signature and session token, as some gateways do.
"""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
import traceback
from dataclasses import replace
from pathlib import Path

import pytest
from fixtures.faults import ANSWERS, Rule
from fixtures.s3 import S3

from chexray.errors import StorageError
from chexray.storage import join

KEY, SECRET, TOKEN = "AKIAHIDDENKEY", "a-hidden-secret", "a-hidden-session-token"
SHOWN = "Signature="
"""What only a repeated Authorization field would hold."""


def hides(text: str) -> None:
    for hidden in (KEY, SECRET, TOKEN, SHOWN):
        assert hidden not in text, hidden


@pytest.fixture
def hidden(faulty_s3: S3) -> S3:
    return replace(faulty_s3, storage=replace(faulty_s3.storage, key=KEY, secret=SECRET, token=TOKEN))


def test_no_failure_shows_anything(hidden: S3, caplog):
    caplog.set_level(logging.DEBUG, logger="chexray")
    uri, storage = join(hidden.bucket, "a.parquet"), hidden.storage
    verbs = {
        "read": lambda: storage.read(uri),
        "list": lambda: storage.list(uri),
        "stat": lambda: storage.stat([uri]),
        "write": lambda: storage.write(uri, b"x"),
        "parquet": lambda: storage.read_parquet(uri),
        "writable": lambda: storage.check_writable(hidden.bucket),
    }
    storage.write(uri, b"no Parquet")
    for fault in [*ANSWERS, "reset", "truncate"]:
        hidden.proxy.rules = [Rule(fault, times=999)]
        for verb, action in verbs.items():
            try:
                action()
            except StorageError as error:
                hides("".join(traceback.format_exception(error)))
                hides(f"{error!r} {pickle.dumps(error)!r}")
            else:
                assert (fault, verb) in {("404", "stat"), ("truncate", "stat"), ("truncate", "write")}
    hides(f"{caplog.text} {storage!r} {storage}")


def environment(hidden: S3, folder: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    places = {"AWS_CONFIG_FILE": f"{folder}/config", "AWS_SHARED_CREDENTIALS_FILE": f"{folder}/credentials"}
    return {**kept, **places, "AWS_ENDPOINT_URL": hidden.endpoint, "AWS_REGION": "us-east-1", **more}


def run(hidden: S3, folder: Path, variables: dict[str, str]) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "chexray.cli", "run", "--real", f"{hidden.bucket}/real"]
    command += ["--synthetic", f"{hidden.bucket}/synthetic", "--encoders", "pixels", "--output", f"{hidden.bucket}/out"]
    return subprocess.run(command, env=variables, cwd=folder, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
@pytest.mark.parametrize("refused", ["key", "web identity"])
def test_the_command_line_says_a_line_a_set_and_shows_nothing(hidden: S3, tmp_path: Path, refused: str):
    if refused == "key":
        given = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_SESSION_TOKEN": TOKEN}
        words = "denied (AccessDenied)"
    else:
        (tmp_path / "token").write_text(TOKEN)
        given = {"AWS_WEB_IDENTITY_TOKEN_FILE": f"{tmp_path}/token", "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/r"}
        words = "no usable credentials (AssumeRoleWithWebIdentity: AccessDenied)"
    hidden.proxy.rules = [Rule("403", times=999)]
    ended = run(hidden, tmp_path, environment(hidden, tmp_path, **given))
    head, *lines = [line for line in ended.stderr.splitlines() if not line.startswith("plan: ")]
    assert head == "chexray: 2 problems in the config:"
    starts = [line.strip().partition(": cannot")[0] for line in lines]
    assert starts == [f"{hidden.bucket}/real", f"{hidden.bucket}/synthetic"]
    assert all(words in line for line in lines)
    assert ended.returncode == 2
    hides(ended.stderr + ended.stdout)
