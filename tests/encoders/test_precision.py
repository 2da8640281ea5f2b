"""Which machines compute in bfloat16, and a network in it: what is converted and what is not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from chexray.encoders import capability
from chexray.encoders.capability import cpu_flags, of_cpu, of_gpu
from chexray.encoders.rad_dino import RadDino
from chexray.encoders.whole_bf16 import whole_bf16

TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}


@pytest.mark.parametrize(
    ("flags", "kind", "pays"),
    [
        ({"avx512f", "amx_tile", "amx_bf16", "avx512_bf16"}, "cpu amx_bf16", True),
        ({"avx512f", "avx512_bf16"}, "cpu avx512_bf16", True),
        ({"avx512f", "amx_tile"}, "cpu", False),
        (set(), "cpu", False),
    ],
)
def test_a_cpu_needs_bfloat16_products(flags, kind, pays):
    found = of_cpu(frozenset(flags))
    assert (found.kind, found.pays) == (kind, pays)
    assert pays or found.why_not == "this CPU has neither AMX nor AVX512-BF16"


def test_a_gpu_needs_capability_8():
    assert of_gpu("NVIDIA H200", (9, 0)).pays
    assert of_gpu("NVIDIA A100", (8, 0)).pays
    old = of_gpu("Tesla T4", (7, 5))
    assert not old.pays
    assert old.why_not == "Tesla T4 has compute capability 7.5, below 8.0"


def test_flags_are_read_from_cpuinfo(tmp_path, monkeypatch):
    file = tmp_path / "cpuinfo"
    monkeypatch.setattr(capability, "CPUINFO", file)
    monkeypatch.setattr(capability.platform, "machine", lambda: "x86_64")
    assert cpu_flags() == frozenset()
    file.write_text("processor\t: 0\nflags\t\t: fpu avx512_bf16\nbugs\t\t:\nprocessor\t: 1\nflags\t\t: other\n")
    assert cpu_flags() == {"fpu", "avx512_bf16"}
    monkeypatch.setattr(capability.platform, "machine", lambda: "aarch64")
    assert cpu_flags() == frozenset()


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))
        self.conv, self.batch = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
        self.pool, self.norm = nn.AdaptiveAvgPool2d(1), nn.LayerNorm(4)
        self.middle, self.head = nn.Linear(4, 4), nn.Linear(4, 2)
        self.seen = {}

    def forward(self, x):
        for name in ("conv", "batch"):
            x = getattr(self, name)(x)
            self.seen[name] = x.dtype
        x = x * self.scale[:, None, None]
        self.seen["scale"] = x.dtype
        x = self.pool(x).flatten(1)
        for name in ("norm", "middle", "head"):
            x = getattr(self, name)(x)
            self.seen[name] = x.dtype
        return x


def test_weights_and_activations_are_bfloat16_but_for_norms_pooling_and_the_head():
    network = whole_bf16(Small().eval().requires_grad_(False), ["head"])
    with torch.inference_mode():
        assert network(torch.rand(2, 1, 8, 8)).dtype == torch.float32
    low, full = torch.bfloat16, torch.float32
    assert network.seen == {
        "conv": low, "batch": low, "scale": low, "norm": full, "middle": low, "head": full,
    }  # fmt: skip
    assert {name: value.dtype for name, value in network.named_parameters()} == {
        "scale": low, "conv.weight": low, "conv.bias": low, "batch.weight": full, "batch.bias": full,
        "norm.weight": full, "norm.bias": full, "middle.weight": low, "middle.bias": low,
        "head.weight": full, "head.bias": full,
    }  # fmt: skip


def test_a_transformer_is_bfloat16_but_its_pooled_output_is_not_rounded_to_it():
    encoder = RadDino(weights="random:1", architecture=TINY, precision="bf16")
    encoder.resolve()
    encoder.load("cpu")
    assert encoder._module.get_parameter("embeddings.position_embeddings").dtype == torch.bfloat16
    assert encoder._module.get_parameter("layernorm.weight").dtype == torch.float32
    rng = np.random.default_rng(0)
    features = encoder.encode(rng.integers(0, 256, (3, 28, 28), np.uint8))["features"]
    assert not torch.equal(torch.from_numpy(features).bfloat16().float(), torch.from_numpy(features))


def test_tf32_is_set_for_each_encoder_and_apart_in_the_store():
    batch = np.zeros((1, 28, 28), np.uint8)
    made = {}
    for precision in ("fp32", "tf32"):
        made[precision] = RadDino(weights="random:1", architecture=TINY, precision=precision)
        made[precision].resolve()
        made[precision].load("cpu")
    try:
        for precision in ("tf32", "fp32", "tf32"):
            made[precision].encode(batch)
            flags = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
            assert flags == (precision == "tf32",) * 2
    finally:
        made["fp32"].encode(batch)
    prints = {
        RadDino(weights="random:1", architecture=TINY, precision=each).resolve().fingerprint for each in PRECISIONS
    }
    assert len(prints) == len(PRECISIONS)


PRECISIONS = ("auto", "fp32", "tf32", "bf16")


def test_auto_must_be_decided_and_a_decided_encoder_is_the_one_it_would_be():
    encoder = RadDino(weights="random:1", architecture=TINY, precision="auto")
    spec = encoder.resolve()
    assert spec.precision == "auto"
    assert encoder.unlike_released().count("precision") == 0
    with pytest.raises(RuntimeError, match="decide on a precision before load"):
        encoder.load("cpu")
    for precision in ("fp32", "bf16"):
        expected = RadDino(weights="random:1", architecture=TINY, precision=precision).resolve()
        assert encoder.at(precision).resolve() == expected
        assert encoder.at(precision).precision == precision
    assert encoder.precision == "auto"
