"""States and final weights as bytes: torch files read without running code, safetensors with metadata in order."""

from __future__ import annotations

import io
import json
from typing import Any

from chexray.encoders.checkpoints import load_pickled
from chexray.encoders.fields import parse_json


def to_bytes(state: dict[str, Any]) -> bytes:
    """Nested dicts and lists of tensors and plain values as a torch file."""
    import torch

    sink = io.BytesIO()
    torch.save(state, sink)
    return sink.getvalue()


def from_bytes(data: bytes) -> dict[str, Any]:
    """The inverse, on the CPU, by torch's restricted unpickler: no code runs. Raises ValueError for anything else."""
    try:
        state = load_pickled(data)
    except ValueError as error:
        raise ValueError(f"it is damaged, or holds more than tensors ({error})") from error
    if not isinstance(state, dict):
        raise ValueError(f"it holds a {type(state).__name__}, not a checkpoint")
    return dict(dict.items(state))


def with_metadata(data: bytes, about: dict[str, str]) -> bytes:
    """A safetensors file with this metadata, in the order of its keys: the library writes them in a random one, and the
    same training would not be the same bits twice."""
    start, header = _header(data)
    header = {"__metadata__": dict(sorted(about.items())), **header}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin on 8 bytes
    return len(text).to_bytes(8, "little") + text + data[start:]


def metadata_of(data: bytes) -> dict[str, str]:
    """The metadata of a safetensors file, or of its head; {} without any. Raises ValueError when it is damaged."""
    about = _header(data)[1].get("__metadata__") or {}
    if not isinstance(about, dict) or not all(isinstance(text, str) for text in about.values()):
        raise ValueError("its metadata are not texts")
    return about


def _header(data: bytes) -> tuple[int, dict[str, Any]]:
    """Where the tensors of a safetensors file begin, and what the file says about them."""
    start = 8 + int.from_bytes(data[:8], "little")
    if start > len(data):
        raise ValueError("its header is longer than the file")
    header = parse_json(data[8:start])
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    return start, header
