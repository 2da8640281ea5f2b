"""The driver notices that the head of its cluster is gone, and takes no pause of it for its end."""

from __future__ import annotations

import socket
import threading

import pytest

from chexray.engine import watching
from chexray.engine.watching import head_watched
from chexray.errors import ResourceError


class Head:
    """Answers as `answers` says, one letter a knock, `x` for none; `over` once all were asked for."""

    def __init__(self, answers: str):
        self.left, self.over = list(answers), threading.Event()

    def knock(self) -> None:
        answer = self.left.pop(0) if self.left else "."
        if not self.left:
            self.over.set()
        if answer == "x":
            raise ConnectionRefusedError("Connection refused")


@pytest.mark.parametrize(("answers", "is_lost"), [("....", False), ("x.xx.xx.x..", False), (".xxx", True)])
def test_three_refusals_in_a_row_are_the_end(answers: str, is_lost: bool) -> None:
    head, lost, told = Head(answers), [], threading.Event()

    def hear(error: ResourceError) -> None:
        lost.append(error)
        told.set()

    with head_watched(hear, knock=head.knock, every=0.0):
        assert (told if is_lost else head.over).wait(20)
    assert len(lost) == is_lost
    for error in lost:
        assert "the head of the Ray cluster is gone (Connection refused)" in str(error)
        assert "the same command resumes" in str(error)
        assert error.exit_code == 2


def test_a_cluster_that_is_left_is_watched_no_more() -> None:
    head, lost = Head("xx"), []
    with head_watched(lost.append, knock=head.knock, every=0.0):
        head.over.wait(20)
    assert not lost


def test_the_end_is_known_within_15_s() -> None:
    """Besides, the run has 5 s to unwind and 4 s for its last word: less than 30 s in all."""
    assert watching.HEAD_MISSES * (watching.HEAD_EVERY_S + watching.HEAD_TIMEOUT_S) <= 15


def test_the_head_that_is_watched_is_that_of_the_cluster(ray_cluster, monkeypatch) -> None:
    import ray

    host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
    asked, real, over = [], socket.create_connection, threading.Event()

    def create(address, **more):
        asked.append(address)
        over.set()
        return real(address, **more)

    monkeypatch.setattr(socket, "create_connection", create)
    lost = []
    with head_watched(lost.append, every=0.0):
        assert over.wait(20)
    assert asked[0] == (host, int(port))
    assert not lost
