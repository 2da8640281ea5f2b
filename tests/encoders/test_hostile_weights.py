"""Files of weights made to harm: each ends in one line, runs nothing, and takes no more memory than its bytes allow."""

from __future__ import annotations

import collections
import contextlib
import copyreg
import io
import json
import pickle
import random
import re
import resource
import struct
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from chexray.encoders.checkpoints import check_keys, safe_load, safetensors_shapes
from chexray.encoders.fields import read_json
from chexray.encoders.inception_v3 import RELEASED_FILE, InceptionV3
from chexray.encoders.pickled import inspect
from chexray.encoders.siamese_reid import SiameseReid
from chexray.encoders.timm_vision import TimmVision
from chexray.encoders.weights import resolve
from chexray.errors import WeightsError

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.zeros(2)}
HOW = {"wanted": "model.safetensors", "where": "its home"}


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def refusal(call: Callable[[], Any], *, seconds: float = 20, megabytes: float = 300) -> str:
    """The line a call ends in, within these bounds of time and of additional memory."""
    start, before = time.process_time(), peak_mb()
    with pytest.raises(WeightsError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) <= 1500
    assert message.isprintable()
    assert time.process_time() - start < seconds
    assert peak_mb() - before < megabytes
    return message


# Pickles


class Calls:
    """Pickles to a call."""

    def __init__(self, function: Any, *arguments: Any):
        self.what = function, arguments

    def __reduce__(self):
        return self.what


def as_torch_file(path: Path, value: Any, **options: Any) -> Path:
    torch.save(value, path, **options)
    return path


def payloads(marker: Path) -> dict[str, tuple[Any, str]]:
    """name -> (an object whose pickle acts, how the message names it)."""
    import os
    import subprocess

    return {
        "exec": (Calls(exec, f"open({str(marker)!r}, 'w')"), "builtin"),
        "eval": (Calls(eval, f"open({str(marker)!r}, 'w')"), "builtin"),
        "system": (Calls(os.system, f"touch {marker}"), "system"),
        "popen": (Calls(subprocess.check_call, ["touch", str(marker)]), "check_call"),
        "touch": (Calls(Path.touch, marker), "getattr|pathlib"),
        "getattr": (Calls(getattr, marker, "touch"), "getattr"),
        "add_extension": (Calls(copyreg.add_extension, "os", "system", 1), "add_extension"),
        "module": (torch.nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
    }


@pytest.mark.parametrize("name", payloads(Path("x")))
@pytest.mark.parametrize("form", ["zip", "legacy", "raw", "raw 0", "raw 4", "raw 5"])
def test_a_pickle_that_would_act_is_called_so_and_does_not(tmp_path, name, form):
    marker = tmp_path / "ran"
    payload, named = payloads(marker)[name]
    path, value = tmp_path / "w.pth", {"extra": payload}
    if form.startswith("raw"):
        path.write_bytes(pickle.dumps(value, protocol=int(form[3:] or 2)))
    else:
        torch.save(value, path, _use_new_zipfile_serialization=form == "zip")
    message = refusal(lambda: safe_load(path))
    assert not marker.exists()
    if form != "raw 0":  # begins with nothing that marks a pickle
        assert re.search(rf"is refused: it holds .*(?:{named}).*could run code", message)


def with_program(path: Path, program: bytes, **members: bytes) -> Path:
    """A torch archive around this data.pkl."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in {"data.pkl": program, "byteorder": b"little", "version": b"3\n", **members}.items():
            archive.writestr(f"w/{name}", data)
    return path


def test_names_in_a_pickle_are_shown_as_escapes_and_cut(tmp_path):
    path = with_program(tmp_path / "w.pth", b"\x80\x02cbuiltins\x1b[2J" + b"x" * 5_000 + b"\nexec\n)R.")
    message = refusal(lambda: safe_load(path))
    assert r"\x1b[2J" in message
    assert "could run code" in message
    assert len(message) < 700


def test_a_codec_cannot_double_a_text_again_and_again(tmp_path):
    """torch lets _codecs.encode through: 40 times "hex" make 2**40 bytes of one."""
    step, hexed = b"c_codecs\nencode\n", b"X\x03\x00\x00\x00hex\x86R"
    program = b"\x80\x02" + step * 27 + b"X\x08\x00\x00\x00aaaaaaaa"
    program += b"X\x06\x00\x00\x00latin1\x86R" + hexed * 26 + b"."
    path = with_program(tmp_path / "w.pth", program)
    assert "_codecs.encode" in refusal(lambda: safe_load(path))


class HidesItsMethods:
    """Pickles to an OrderedDict whose `items` and others are numbers: BUILD fills the __dict__ of an instance."""

    def __reduce__(self):
        hidden = dict.fromkeys(("items", "keys", "values", "get", "__iter__"), 5)
        return collections.OrderedDict, (), hidden, None, iter(STATE.items())


def test_a_method_hidden_by_a_pickle_is_not_called(tmp_path):
    for value in (HidesItsMethods(), {"state_dict": HidesItsMethods()}):
        assert set(safe_load(as_torch_file(tmp_path / "w.pth", value))) == set(STATE)


def test_torchscript_is_refused_without_a_warning(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(tmp_path / "net.pt"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "a TorchScript program" in refusal(lambda: safe_load(tmp_path / "net.pt"))


def repacked(path: Path, compression: int) -> Path:
    target = path.with_name(f"packed-{path.name}")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w", compression) as archive:
        for name in source.namelist():
            archive.writestr(name, source.read(name))
    return target


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_packed_members_are_refused_before_they_are_unpacked(tmp_path, compression):
    """A .pth of 2.9 MB took 2.8 GB."""
    path = repacked(as_torch_file(tmp_path / "w.pth", {"a": torch.zeros(20_000_000)}), compression)
    (tmp_path / "w.pth").unlink()
    assert path.stat().st_size < 1_000_000
    assert "is compressed (80,000,000 bytes unpacked)" in refusal(lambda: safe_load(path), megabytes=40)


def test_a_zip_directory_that_lies_is_refused(tmp_path):
    path = as_torch_file(tmp_path / "w.pth", STATE)
    data = path.read_bytes()
    central = data.index(b"PK\x01\x02")
    for offset, value in ((20, 2**31), (24, 2**31), (42, 2**31), (10, 8)):  # sizes, place and compression of the first
        lying = bytearray(data)
        struct.pack_into("<H" if value < 2**16 else "<I", lying, central + offset, value)
        path.write_bytes(lying)
        assert re.search("refused|not a readable", refusal(lambda: safe_load(path)))
    with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(2):
            archive.writestr("w/data.pkl", pickle.dumps({}, 2))
    assert "two members of one name" in refusal(lambda: safe_load(path))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}, 2))
        archive.writestr("b/data.pkl", pickle.dumps({}, 2))
    assert "not a readable" in refusal(lambda: safe_load(path))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_storage_that_claims_more_numbers_than_are_there_is_refused(tmp_path, zipped):
    path = as_torch_file(tmp_path / "w.pth", {"a": torch.zeros(300)}, _use_new_zipfile_serialization=zipped)
    claim = b"M\x2c\x01"  # BININT2 300
    data = path.read_bytes()
    if zipped:
        with zipfile.ZipFile(path) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, part in parts.items():
                archive.writestr(name, part.replace(claim, b"J" + struct.pack("<i", 2**31 - 1)))
    else:
        path.write_bytes(data.replace(claim, b"J" + struct.pack("<i", 2**31 - 1)))
    assert "are there" in refusal(lambda: safe_load(path), megabytes=40)


def test_a_tensor_larger_than_its_numbers_is_refused(tmp_path):
    path = as_torch_file(tmp_path / "w.pth", {"a": torch.zeros(1).expand(10**9)})
    assert "needs more numbers than it holds" in refusal(lambda: safe_load(path))
    shared = torch.zeros(250_000)
    path = as_torch_file(tmp_path / "many.pth", {str(k): shared for k in range(1000)})
    assert "more than 4 times as many" in refusal(lambda: safe_load(path))


@pytest.mark.filterwarnings("ignore")
def test_what_is_no_plain_tensor_of_floats_is_refused(tmp_path):
    dense = torch.eye(3)
    kinds: dict[str, Any] = {
        "int8": {"a": dense.to(torch.int8)},
        "bool": {"a": dense.bool()},
        "complex": {"a": dense.to(torch.complex64)},
        "float8": {"a": dense.to(torch.float8_e4m3fn)},
        "int64": {"a": dense.long()},
        "sparse": {"a": dense.to_sparse()},
        "csr": {"a": dense.to_sparse_csr()},
        "meta": {"a": torch.empty(3, device="meta")},
        "quantised": {"a": torch.quantize_per_tensor(dense, 0.1, 0, torch.qint8)},
        "nan": {"a": torch.tensor([0.0, float("nan")])},
        "inf": {"a": torch.tensor([0.0, float("inf")])},
        "float64 beyond float32": {"a": torch.tensor([1e300], dtype=torch.float64)},
        "number": {"a": 3},
        "list": {"a": [1, 2]},
        "integer keys": {0: dense, 1: dense},
        "nested": {"a": {"b": dense}},
        "tuple keys": {("a", 1): dense},
    }
    for kind, state in kinds.items():
        path = as_torch_file(tmp_path / f"{kind}.pth", state)
        assert re.search(
            r"not a table of tensors|refused|finite|is of type|plain", refusal(lambda p=path: safe_load(p))
        )
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        path = as_torch_file(tmp_path / "fine.pth", {"a": dense.to(dtype), "bn.num_batches_tracked": torch.tensor(3)})
        assert safe_load(path)["a"].dtype == dtype


@pytest.mark.slow
def test_cycles_and_depth_end(tmp_path):
    cycle: dict[str, Any] = {}
    cycle["state_dict"] = cycle
    assert "not a table of tensors" in refusal(lambda: safe_load(as_torch_file(tmp_path / "cycle.pth", cycle)))
    deep = with_program(tmp_path / "deep.pth", b"\x80\x02" + b"(" * 100_000 + b"l" * 100_000 + b".")
    refusal(lambda: safe_load(deep))
    tuples = with_program(tmp_path / "tuples.pth", b"\x80\x02)" + b"\x85" * 200_000 + b".")
    refusal(lambda: safe_load(tuples))
    long = with_program(tmp_path / "long.pth", b"\x80\x02]" + b"K\x01" * 1_500_000 + b".")
    assert "steps" in refusal(lambda: safe_load(long))


# safetensors


def safetensors_file(path: Path, header: Any, body: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + body)
    return path


def entry(start: int, stop: int, shape: Any = None, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": [(stop - start) // 4] if shape is None else shape, "data_offsets": [start, stop]}


HEADERS: dict[str, Any] = {
    "overlap": {"a": entry(0, 8), "b": entry(0, 8)},
    "gap": {"a": entry(0, 4), "b": entry(8, 8)},
    "short": {"a": entry(0, 4)},
    "beyond": {"a": entry(0, 800)},
    "shape": {"a": entry(0, 8, [2**40, 2**40])},
    "negative": {"a": entry(0, 8, [-2, -1])},
    "float": {"a": entry(0, 8, [2.0])},
    "true": {"a": entry(0, 4, [True]), "b": entry(4, 8)},
    "dimensions": {"a": entry(0, 8, [1] * 5000 + [2])},
    "int8": {"a": entry(0, 8, [8], "I8")},
    "int64": {"a": entry(0, 8, [1], "I64")},
    "bool": {"a": entry(0, 8, [8], "BOOL")},
    "float8": {"a": entry(0, 8, [8], "F8_E4M3")},
    "dtype": {"a": entry(0, 8, [2], ["F32"])},
    "list": [1, 2],
    "string": {"a": "F32"},
    "metadata": {"__metadata__": {"mean": 3}, "a": entry(0, 8)},
    "not json": b"{]",
    "latin": b'{"\xff": 1}',
    "deep": b'{"a":' * 3000 + b"1" + b"}" * 3000,
    "very deep": b"[" * 1_000_000,
    "integer": b'{"a": ' + b"9" * 6000 + b"}",
    "name": {"\x1b[2J\u202e" + "x" * 1_000_000: entry(0, 8, [8], "I8")},
}


@pytest.mark.parametrize("kind", HEADERS)
def test_a_header_that_lies_is_refused(tmp_path, kind):
    path = safetensors_file(tmp_path / "model.safetensors", HEADERS[kind], b"\0" * 8)
    for call in (safe_load, safetensors_shapes):
        refusal(lambda call=call: call(path))


def test_a_header_longer_than_the_file_is_not_read(tmp_path):
    path = safetensors_file(tmp_path / "model.safetensors", {}, length=2**62)
    assert "longer than the file" in refusal(lambda: safetensors_shapes(path), megabytes=40)


def test_names_of_tensors_are_counted_cut_and_escaped(tmp_path):
    names = {f"\x1b[31m{k}" + "y" * 300: entry(4 * k, 4 * k + 4) for k in range(20_000)}
    path = safetensors_file(tmp_path / "model.safetensors", names, b"\0" * 80_000)
    message = refusal(lambda: TimmVision(model="resnet10t", weights=str(path)).resolve())
    assert "20,000 unexpected" in message
    assert r"\x1b[31m" in message
    with pytest.raises(WeightsError) as caught:
        check_keys({"\n\x1b" * 10**6: torch.zeros(1)}, {"a": (1,)})
    assert len(str(caught.value)) < 700


def test_a_sparse_file_is_refused_before_it_is_hashed(tmp_path):
    for name in ("model.safetensors", "w.pth"):
        with open(tmp_path / name, "wb") as stream:
            stream.truncate(40 * 10**9)
        assert "above 20,000,000,000 are not read" in refusal(
            lambda n=name: resolve(str(tmp_path / n), **HOW), seconds=2
        )


def test_what_is_no_regular_file_is_refused(tmp_path):
    import os

    os.mkfifo(tmp_path / "w.pth")
    for reference in (str(tmp_path / "w.pth"), "/dev/zero"):
        assert "not a regular file" in refusal(lambda r=reference: resolve(r, **HOW), seconds=2)
    os.mkfifo(tmp_path / "config.json")
    assert "not a regular file" in refusal(lambda: read_json(tmp_path / "config.json", needed_by="it"), seconds=2)


def test_a_released_file_is_the_one_of_its_whole_hash(tmp_path, monkeypatch):
    """8 hex digits of a file name can be met by a file that was made to."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    prefix = re.findall("[0-9a-f]{8}", RELEASED_FILE)[-1]
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / RELEASED_FILE).write_bytes(b"forged")
    monkeypatch.setattr("chexray.encoders.weights.hash_file", lambda _: prefix + "0" * 56)
    with pytest.raises(WeightsError, match="not on this machine"):
        InceptionV3().resolve()


@pytest.mark.parametrize("encoder", [InceptionV3, SiameseReid])
def test_encoders_of_one_network_refuse_in_one_line(tmp_path, encoder):
    network = {"fc_end.weight": torch.zeros(1, 128), "fc_end.bias": torch.zeros(1)}
    for index, state in enumerate(({1: torch.zeros(1)}, {"fc.weight": [1]}, [STATE], network, {})):
        path = as_torch_file(tmp_path / f"{index}.pth", state)
        refusal(lambda p=path: encoder(weights=str(p)).resolve())


@pytest.mark.slow
def test_mutated_checkpoints_end_in_one_line_or_are_tensors(tmp_path):
    """Bytes changed, cut out, doubled: seeded, each read as the driver reads it."""
    rng = random.Random(11)
    torch.save({"state_dict": STATE, "epoch": 3}, tmp_path / "zip.pth")
    torch.save(STATE, tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
    save_file(STATE, tmp_path / "model.safetensors", metadata={"mean": "[1,2,3]"})
    seeds = [tmp_path / name for name in ("zip.pth", "legacy.pt", "model.safetensors")]
    for number in range(900):
        source = seeds[number % 3]
        target = tmp_path / f"mutated{source.suffix}"
        target.write_bytes(mutated(source.read_bytes(), rng))
        with contextlib.suppress(WeightsError):  # one line by its class
            assert all(isinstance(value, torch.Tensor) for value in safe_load(target).values())


def mutated(data: bytes, rng: random.Random) -> bytes:
    """The bytes with 1 to 4 small changes."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(max(1, len(changed)))
        match rng.randrange(5):
            case 0:
                changed[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                del changed[at : at + rng.randint(1, 64)]
            case 2:
                changed[at:at] = changed[at : at + rng.randint(1, 64)]
            case 3:
                changed[at : at + 4] = rng.choice([b"\xff" * 4, b"\0" * 4, b"\xff\xff\xff\x7f"])
            case 4:
                changed[at:at] = rng.choice([b"cos\nsystem\n", b"R", b"(", b"t", b"\x85", b"Q", b"}", b"b", b"."])
    return bytes(changed)


def test_ordinary_checkpoints_are_still_walked_through(tmp_path):
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    adam = torch.optim.AdamW(network.parameters())
    network(torch.zeros(1, 3, 8, 8)).sum().backward()
    adam.step()
    whole = {
        "model_state_dict": network.state_dict(),
        "optimizer": adam.state_dict(),
        "counts": collections.Counter("abc"),
        "seen": {1, 2},
        "size": torch.Size([1]),
        "device": torch.device("cpu"),
        "metrics": {"auc": np.float64(0.5)},
        "parameters": list(network.parameters()),
    }
    for zipped in (True, False):
        sink = io.BytesIO()
        torch.save(whole, sink, _use_new_zipfile_serialization=zipped)
        inspect(sink.getvalue(), numpy_scalars=True)
        (tmp_path / "w.pth").write_bytes(sink.getvalue())
        assert set(safe_load(tmp_path / "w.pth", numpy_scalars=True)) == set(network.state_dict())
