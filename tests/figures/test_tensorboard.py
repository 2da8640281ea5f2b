"""Event files: read back record by record, checksums included."""

from __future__ import annotations

import struct
import sys

import pytest

from chexray.errors import ConfigError
from chexray.figures.tensorboard import FILE, event_files

HISTORY = [
    {"phase": 0, "epoch": 0, "lr": 1e-3, "loss": 0.7, "val_loss": 0.6, "val_auroc": None, "seconds": 2.5},
    {"phase": 1, "epoch": 0, "lr": 1e-4, "loss": 0.5, "val_loss": float("nan"), "val_auroc": 0.8, "seconds": 1.5},
]


def events(content: bytes) -> list:
    """The records of an event file; asserts every checksum."""
    from tensorboardX.crc32c import crc32c
    from tensorboardX.proto.event_pb2 import Event

    def masked(data: bytes) -> int:
        crc = crc32c(data)
        return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF

    found = []
    while content:
        length, check = struct.unpack("<QI", content[:12])
        data, end = content[12 : 12 + length], content[12 + length : 16 + length]
        assert (check, struct.unpack("<I", end)[0]) == (masked(content[:8]), masked(data))
        found.append(Event.FromString(data))
        content = content[16 + length :]
    return found


def test_scalars_read_back_by_epoch_over_all_phases() -> None:
    files = event_files({"synthetic (phantom-good), seed 0": HISTORY, "real": []})
    assert len(files) == 2
    assert all(name.endswith(f"/{FILE}") for name in files)
    head, *epochs = events(files[next(name for name in files if name.startswith("synthetic"))])
    assert head.file_version == "brain.Event:2"
    assert [(event.step, event.wall_time) for event in epochs] == [(1, 2.5), (2, 4.0)]
    values = [{value.tag: value.simple_value for value in event.summary.value} for event in epochs]
    assert values[0] == pytest.approx({"loss": 0.7, "val_loss": 0.6, "lr": 1e-3})
    assert values[1] == pytest.approx({"loss": 0.5, "val_auroc": 0.8, "lr": 1e-4})
    assert len(events(files[f"real/{FILE}"])) == 1


def test_frames_are_those_of_tensorboardx(tmp_path) -> None:
    """The bytes that tensorboardX's own writer gives for the same record."""
    from tensorboardX.record_writer import RecordWriter

    content = event_files({"real": HISTORY})[f"real/{FILE}"]
    writer = RecordWriter(str(tmp_path / "events"))
    for event in events(content):
        writer.write(event.SerializeToString())
    writer.close()
    assert (tmp_path / "events").read_bytes() == content


def test_equal_histories_give_equal_bytes_and_names_are_safe() -> None:
    titles = {"../../x": HISTORY, "A": HISTORY, "a": HISTORY}
    files = event_files(titles)
    assert files == event_files(titles)
    assert len(files) == 3
    assert not any(".." in name or name.startswith("/") for name in files)


def test_without_tensorboardx_it_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX.proto.event_pb2", None)
    with pytest.raises(ConfigError, match="pip install tensorboardX"):
        event_files({"real": HISTORY})
