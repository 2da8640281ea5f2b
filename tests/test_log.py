"""What a run says is kept where nobody can be told."""

from __future__ import annotations

import io
import sys

import pytest

from chexray.log import heard_by, say


class Full(io.StringIO):
    def write(self, _: str) -> int:
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("stream", [None, Full()])
def test_a_closed_or_full_error_stream_stops_no_run(monkeypatch, capsys, stream) -> None:
    heard: list[str] = []
    monkeypatch.setattr(sys, "stderr", stream)
    with heard_by(heard.append):
        say("encode: 8/8 images")
    assert heard == ["encode: 8/8 images"]
    assert capsys.readouterr().out == ""  # results alone
