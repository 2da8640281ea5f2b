"""The histories of trainings as event files, which TensorBoard reads."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from chexray.errors import ConfigError
from chexray.figures.names import file_stems

SCALARS = ("loss", "val_loss", "val_auroc", "lr", "images_per_s", "input_images_per_s")
FILE = "events.out.tfevents.0.chexray"
"""TensorBoard looks for `tfevents`. The usual name holds the host and the second, which nobody needs."""


def event_files(histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, bytes]:
    """{"<training>/events.out.tfevents.0.chexray": content}: a folder, and so a run of TensorBoard, for each training.

    histories: {title of the training: its epochs in order}, SCALARS where an epoch has them; null and not finite ones
    are left out. The step is the epoch counted over all phases, from 1; the wall time is the seconds of training so
    far, so that equal histories give equal bytes and TensorBoard's "relative" axis shows the time training took.
    Raises ConfigError when tensorboardX is missing.
    """
    try:
        from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboardX.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]
    except ImportError as error:
        raise ConfigError(
            "utility.tensorboard: tensorboardX is not installed; `pip install tensorboardX`, or leave the option out"
        ) from error
    files = {}
    for title, stem in zip(histories, file_stems(list(histories)), strict=True):
        seconds = 0.0
        records = [_record(Event(wall_time=0.0, file_version="brain.Event:2").SerializeToString())]
        for step, epoch in enumerate(histories[title], start=1):
            seconds += float(epoch.get("seconds") or 0.0)
            known = [(name, epoch[name]) for name in SCALARS if epoch.get(name) is not None]
            values = [
                Summary.Value(tag=name, simple_value=float(value)) for name, value in known if math.isfinite(value)
            ]
            if values:
                event = Event(wall_time=seconds, step=step, summary=Summary(value=values))
                records.append(_record(event.SerializeToString()))
        files[f"{stem}/{FILE}"] = b"".join(records)
    return files


def _record(data: bytes) -> bytes:
    """The framing of a TFRecord: length, its checksum, the data, its checksum; all little endian.

    tensorboardX's own RecordWriter writes files only, and this run may write to S3.
    """
    from tensorboardX.record_writer import masked_crc32c

    length = struct.pack("<Q", len(data))
    return b"".join([length, struct.pack("<I", masked_crc32c(length)), data, struct.pack("<I", masked_crc32c(data))])
