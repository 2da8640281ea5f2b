"""Which machines compute networks faster in bfloat16: what `precision: auto` asks before anything is tried.

A CPU needs instructions that multiply bfloat16 (AMX, or AVX512-BF16): without them the same code runs slower than in
fp32. A GPU needs compute capability 8.0.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

CPU_FLAGS = ("amx_bf16", "avx512_bf16")
GPU_CAPABILITY = (8, 0)
CPUINFO = Path("/proc/cpuinfo")
GPU_DRIVER = Path("/dev/nvidiactl")


@dataclass(frozen=True)
class Machine:
    """A kind of device: "cpu amx_bf16", "NVIDIA H200". pays: whether bfloat16 is faster on it; why_not: else why."""

    kind: str
    pays: bool
    why_not: str = ""


def machine(device: str) -> Machine:
    """What this process can run on `device`, "cpu" or "cuda". Imports torch for a GPU only."""
    if device == "cpu":
        return of_cpu(cpu_flags())
    import torch

    if not torch.cuda.is_available():
        return Machine("cuda", False, "no GPU is visible")
    return of_gpu(torch.cuda.get_device_name(), torch.cuda.get_device_capability())


def of_cpu(flags: frozenset[str]) -> Machine:
    """A CPU with these flags of /proc/cpuinfo."""
    found = [flag for flag in CPU_FLAGS if flag in flags]
    if found:
        return Machine(f"cpu {found[0]}", True)
    return Machine("cpu", False, "this CPU has neither AMX nor AVX512-BF16")


def of_gpu(name: str, capability: tuple[int, int]) -> Machine:
    """A GPU of this name and compute capability."""
    if capability >= GPU_CAPABILITY:
        return Machine(name, True)
    return Machine(name, False, f"{name} has compute capability {capability[0]}.{capability[1]}, below 8.0")


def cpu_flags() -> frozenset[str]:
    """Flags of the first CPU in /proc/cpuinfo; none where there is no such file."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return frozenset()
    try:
        with CPUINFO.open() as lines:
            for line in lines:
                if line.startswith("flags"):
                    return frozenset(line.partition(":")[2].split())
    except OSError:
        pass
    return frozenset()


def has_gpu() -> bool:
    """Whether this machine has the driver of an NVIDIA GPU, without importing torch."""
    return GPU_DRIVER.exists()
