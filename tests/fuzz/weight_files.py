"""Attacks on a folder of weights: other headers, acting keys in config.json, torch files that run code or expand."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import struct
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from fuzz.mutation import mutated
from fuzz.values import altered, payload, text, torch_file, value

ACTING_KEYS = {
    "attn_implementation": "evil/kernel", "_attn_implementation": "evil/kernel",
    "quantization_config": {"quant_method": "bitsandbytes"},
    "auto_map": {"AutoModel": "evil--x.Model"}, "kernel_config": {}, "torch_dtype": "int8", "dtype": "float8_e4m3fn",
    "architectures": ["os.system"],
    "num_hidden_layers": 10**9, "hidden_size": 2**20, "image_size": 10**6, "patch_size": 0, "num_attention_heads": 0,
    "hidden_act": "__import__", "model_type": "bert",
    "text_config": {"model_type": "llama"}, "backbone": "x", "use_timm_backbone": True, "is_decoder": True,
    "layer_norm_eps": float("nan"), "pruned_heads": {"0": [9]},
    "id2label": {str(i): "x" for i in range(5_000)}, "torchscript": True, "num_channels": 10**6, "mlp_ratio": 1e9,
    "depths": [10**8], "window_size": 10**6,
}  # fmt: skip


def tampered(folder: Path, rng: random.Random) -> tuple[Path, str]:
    """(the file of weights, name of the attack)."""
    model, config = folder / "model.safetensors", folder / "config.json"
    draw = rng.random()
    if draw < 0.14:
        path = rng.choice([model, model, config, folder / "preprocessor_config.json"])
        if path.is_file():
            path.write_bytes(mutated(path.read_bytes(), rng))
        return model, f"damaged {path.name}"
    if draw < 0.46:
        path = rng.choice([config, config, folder / "preprocessor_config.json"])
        if not path.is_file():
            path = config
        body = json.loads(path.read_text())
        if rng.random() < 0.45 and path == config:
            body |= dict(rng.sample(list(ACTING_KEYS.items()), rng.choice([1, 1, 2])))
            how = "acting keys in config.json"
        else:
            body, how = altered(body, rng, rng.choice([1, 1, 2])), f"altered {path.name}"
        written = json.dumps(body)
        if rng.random() < 0.06:
            written, how = (
                rng.choice(
                    [
                        "[" * 50_000, "{}", "[]", "", "NaN", '{"a": ' * 2_000, "9" * 10_000, '{"hidden_size": 1e999}',
                        "\ufeff" + written,
                    ]
                ),
                f"odd {path.name}",
            )  # fmt: skip
        path.write_text(written, errors="surrogatepass")
        return model, how
    if draw < 0.68:
        return model, another_header(model, rng)
    if draw < 0.72:
        os.truncate(model, rng.choice([0, 7, 8, 100, 10**10, 10**12]))
        return model, "safetensors of another length"
    return _hostile_torch_file(folder, rng)


def another_header(path: Path, rng: random.Random) -> str:
    """Another header before the same numbers."""
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    for _ in range(rng.choice([1, 1, 2])):
        name = rng.choice([key for key in header if key != "__metadata__"] or ["x"])
        entry = header.get(name, {})
        match rng.randrange(7):
            case 0:
                entry["dtype"] = rng.choice(["I8", "U8", "F16", "BF16", "F64", "F8_E4M3", "BOOL", "I64", "X", 3])
            case 1:
                entry["shape"] = rng.choice([[], [0], [-1], [2**62, 4], [2**31, 2**31], [1.5], "x", [10**30], [1] * 70])
            case 2:
                entry["data_offsets"] = rng.choice([[0, 0], [0, 2**63], [-4, 0], [4, 0], [0], "x", [0, len(data)]])
            case 3:
                header[text(rng)] = header.pop(name, {})
            case 4:
                header["__metadata__"] = rng.choice([value(rng), {"format": text(rng)}, {"a": "b" * 100_000}])
            case 5:
                header[name] = value(rng)
            case _:
                header[f"{name}.extra"] = dict(entry)
    body = json.dumps(header).encode()
    length = len(body) if rng.random() < 0.85 else rng.choice([0, 2**63, 2**32, 10**8, len(body) + 1])
    path.write_bytes(struct.pack("<Q", length) + body + data[8 + size :])
    return "safetensors header"


def _hostile_torch_file(folder: Path, rng: random.Random) -> tuple[Path, str]:
    """A file for torch.load: with code, with other things than weights, or larger than it looks."""
    import torch
    from safetensors.torch import load_file

    path = folder / f"model{rng.choice(['.pth', '.pt', '.bin', '.ckpt'])}"
    state: dict[str, Any] = load_file(folder / "model.safetensors") if rng.random() < 0.5 else {"a": torch.ones(4)}
    way = rng.choice(
        [
            "code", "code", "code in zip", "code in zip", "bomb", "objects", "objects", "tensors", "tensors",
            "damaged", "plain",
        ]
    )  # fmt: skip
    (folder / "model.safetensors").unlink()
    if way == "code":
        path.write_bytes(rng.choice([b"", b"", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."]) + payload(rng))
    elif way == "code in zip":
        path.write_bytes(torch_file(payload(rng), rng, name=rng.choice(["archive", "model", "../x", ""])))
    elif way == "bomb":
        path.write_bytes(_deflated())
    elif way == "objects":
        held = rng.choice(
            [
                [1, 2], {"state_dict": state, "epoch": 3}, torch.nn.Linear(2, 2), {"a": "x"}, {1: torch.ones(1)},
                {"model": {"model": state}}, np.float64(3), {"a": np.ones(3)}, None, nested_state(state),
            ]
        )  # fmt: skip
        torch.save(held, path)
    elif way == "tensors":
        name = rng.choice(list(state))
        shape = tuple(state[name].shape)
        odd = [
            torch.zeros(1).expand(2**20, 2**12), torch.full(shape, float("nan")), torch.full(shape, float("inf")),
            torch.zeros(shape, dtype=torch.int8), torch.zeros(shape).to_sparse(),
            torch.zeros(shape, dtype=torch.complex64), torch.zeros(shape, device="meta"), torch.zeros(shape).double(),
            torch.quantize_per_tensor(torch.zeros(shape or (1,)), 0.1, 0, torch.qint8),
            torch.zeros(shape).bool(), torch.nn.Parameter(torch.zeros(shape)), torch.zeros((*shape, 2)),
            torch.zeros(()),
        ]  # fmt: skip
        torch.save(
            state | {rng.choice([name, text(rng)]): rng.choice(odd)},
            path,
            pickle_protocol=rng.choice([2, pickle.HIGHEST_PROTOCOL]),
        )
    else:
        torch.save(state, path, _use_new_zipfile_serialization=rng.random() < 0.6)
        if way == "damaged":
            path.write_bytes(mutated(path.read_bytes(), rng))
    return path, f"torch file, {way}"


def nested_state(state: dict[str, Any]) -> dict[str, Any]:
    for _ in range(200):
        state = {"state_dict": state}
    return state


@cache
def _deflated() -> bytes:
    """A torch file of 2 MB whose numbers take 2.4 GB."""
    import torch

    sink = io.BytesIO()
    torch.save({"a": torch.zeros(4)}, sink)
    with zipfile.ZipFile(sink) as archive:
        names = {entry: archive.read(entry) for entry in archive.namelist()}
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for entry, data in names.items():
            with archive.open(entry, "w", force_zip64=True) as file:
                if not entry.endswith("/data/0"):
                    file.write(data)
                    continue
                for _ in range(2_400):
                    file.write(bytes(1 << 20))
    return packed.getvalue()


def altered_state(state: Any, rng: random.Random) -> Any:
    """A checkpoint in which one value deep inside is another."""
    import torch

    holder, key = state, None
    while isinstance(holder, dict | list) and holder:
        key = rng.choice(list(holder) if isinstance(holder, dict) else list(range(len(holder))))
        if not isinstance(holder[key], dict | list) or not holder[key] or rng.random() < 0.3:
            break
        holder = holder[key]
    odd = [
        None, 3, -1, 10**18, float("nan"), "x\x1b[2J", [], {}, torch.ones(2), torch.full((3, 3), float("inf")),
        torch.zeros(2, dtype=torch.int8), True,
    ]  # fmt: skip
    if isinstance(holder, dict) and rng.random() < 0.2:
        del holder[key]
    else:
        holder[key] = rng.choice(odd)
    return state
