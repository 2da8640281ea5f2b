"""The precision of each network as far as it is known before a cluster starts, and why.

An encoder's own `precision` goes before `encode.precision`. `auto` is fp32 where bfloat16 does not pay or a protocol
fixes fp32; where it may pay, workers decide (`chexray.run.precision`) and the plan says "auto".
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from chexray.config import EncoderConfig, RunConfig
from chexray.config.addresses import ray_address
from chexray.encoders.capability import Machine, has_gpu, machine
from chexray.encoders.options import AUTO
from chexray.protocols import Protocol


@dataclass(frozen=True)
class Decision:
    """What `auto` became: a precision, or still "auto". why: in words. figures: of the check, empty without one."""

    chosen: str
    why: str = ""
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def words(self) -> str:
        """`fp32 (auto: this CPU has neither AMX nor AVX512-BF16)`."""
        return f"{self.chosen} (auto: {self.why})" if self.chosen != AUTO else f"auto ({self.why})"


ON_WORKERS = "bf16 where workers compute it faster and a check of 64 images passes, else fp32"


def foreseen(item: EncoderConfig, config: RunConfig, preset: Protocol) -> Decision | None:
    """What is known of an encoder whose precision is `auto`; None where the config names one."""
    if (item.precision or config.encode.precision) != AUTO:
        return None
    if preset.precision is not None:
        return Decision(preset.precision, f"protocol {preset.name}, whose values were computed so")
    here = _here(config)
    return Decision(AUTO, ON_WORKERS) if here is None or here.pays else Decision("fp32", here.why_not)


def asked(item: EncoderConfig, config: RunConfig) -> str:
    """The precision that the config names for an encoder, "auto" among them."""
    return item.precision or config.encode.precision


def _here(config: RunConfig) -> Machine | None:
    """The machine that encodes, where it is this one and no GPU may do it instead."""
    address, _ = ray_address(config.ray.address, os.environ)
    device = config.encode.device
    if address or device == "cuda" or (device == AUTO and has_gpu()):
        return None
    return machine("cpu")
