"""One Storage in many threads, and in processes forked while those threads were in the middle of a request."""

from __future__ import annotations

import subprocess
import sys

import pytest
from fixtures.stub_s3 import StubS3

FORKING = """
import os, sys, threading
from chexray.storage import Storage

storage = Storage(sys.argv[1], "us-east-1", key="AKIATESTING", secret="hidden")
stop = threading.Event()

def read():
    while not stop.is_set():
        assert storage.read("s3://bucket/a") == b"hello"

threads = [threading.Thread(target=read) for _ in range(8)]
for thread in threads:
    thread.start()
assert storage.read("s3://bucket/a") == b"hello"
for _ in range(3):
    child = os.fork()
    if child == 0:
        sound = storage.read("s3://bucket/a") == b"hello" and len(storage.list("s3://bucket/images")) == 1500
        os._exit(0 if sound else 1)
    assert os.waitpid(child, 0)[1] == 0
stop.set()
for thread in threads:
    thread.join()
print("sound")
"""


@pytest.mark.slow
def test_a_fork_in_the_middle_of_requests_has_connections_of_its_own():
    with StubS3(1500) as stub:
        stub.answers["/bucket/a"] = ("binary/octet-stream", b"hello")
        command = [sys.executable, "-W", "ignore", "-c", FORKING, stub.url]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (ended.stdout, ended.stderr, ended.returncode) == ("sound\n", "", 0)
