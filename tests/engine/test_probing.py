"""The process that looks at a cluster ends with the one that asked for it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import sys

LOOKS = """
import sys
from chexray.engine import probing
probing.look(sys.argv[1], patience_s=500)
"""


def test_a_look_ends_with_whoever_asked(tmp_path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        process = subprocess.Popen(
            [sys.executable, "-c", LOOKS, address], env={**os.environ, "PYTHONPATH": os.getcwd()}
        )
        knocked, _ = silent.accept()
        looking, _ = silent.accept()  # the look itself: Ray has connected, and waits
        process.kill()
        process.wait()
        knocked.close()
        end = select.poll()
        end.register(looking, select.POLLHUP | select.POLLRDHUP)
        assert end.poll(10_000), "the process that looks still holds its connection"
        looking.close()


def test_a_request_names_the_lifeline(monkeypatch) -> None:
    from chexray.engine import probing

    asked = {}

    def run(_, *, input: str, pass_fds: list[int], **__):
        asked.update(json.loads(input), passed=pass_fds)
        os.fstat(pass_fds[0])
        return subprocess.CompletedProcess([], 0, stdout='{"kind": "X", "error": "no"}\n', stderr="")

    monkeypatch.setattr(probing.subprocess, "run", run)
    monkeypatch.setattr("chexray.engine.joining.knock", lambda _: None)
    with contextlib.suppress(probing.NotJoined):
        probing.look("head:6379")
    assert asked["passed"] == [asked["lifeline"]]
