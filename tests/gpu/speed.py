"""Images a second: the bare network on prepared tensors, `encode` from host memory, and with decoding before it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from gpu.inputs import build, jpegs, networks

if TYPE_CHECKING:
    from gpu.check import Check

SHARE_OF_LIMIT = 0.9
"""Of the bare network's rate, what `encode` should reach."""


def run(check: Check) -> None:
    precisions = ("fp32", "tf32", "bf16") if check.device == "cuda" else ("fp32", "bf16")
    chosen = [name for name in networks(check) if not name.startswith("siamese")]
    for name in chosen:
        for precision in precisions:
            if check.is_late("speed", f"{name} {precision}"):
                return
            try:
                _rates(check, name, precision)
            except Exception as error:  # a row, and the others follow
                check.add("speed", f"{name} {precision}", skipped=f"{type(error).__name__}: {str(error)[:150]}")
    if not check.is_late("speed", "decoding"):
        try:
            _decoding(check, chosen[0])
        except Exception as error:
            check.add("speed", "decoding", skipped=f"{type(error).__name__}: {str(error)[:150]}")


def _rates(check: Check, name: str, precision: str) -> None:
    import torch

    encoder = build(networks(check)[name], precision, check.device)
    spec = encoder.resolve()
    sizes = check.choose(full=(16, 64, 256), quick=(16, 64), tiny=(4,)) if check.device == "cuda" else (4,)
    seconds = check.choose(full=1.5, quick=0.5, tiny=0.05)
    for batch in sizes:
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (batch, *spec.input_shape)).astype(spec.input_dtype)
        there = torch.from_numpy(images).to(check.device)

        def bare(there: Any = there) -> None:
            with torch.inference_mode():
                encoder._outputs(encoder._module, there)

        encoder.encode(images)  # sets the arithmetic of the process
        try:
            limit = batch * per_second(bare, check.device, seconds)
            found = batch * per_second(lambda images=images: encoder.encode(images), check.device, seconds)
        except torch.OutOfMemoryError:
            check.add("speed", f"{name} {precision}, batches of {batch}", skipped="out of memory")
            return
        check.add(
            "speed", f"{name} {precision}, batches of {batch}", network_images_per_s=limit, encode_images_per_s=found,
            share=found / limit, met=bool(found >= SHARE_OF_LIMIT * limit),
        )  # fmt: skip


def _decoding(check: Check, name: str) -> None:
    """Decoding and preparing in threads of this process, alone and ahead of the network."""
    from chexray.data.decoding import decode

    precision = "bf16" if check.device == "cuda" else "fp32"
    encoder = build(networks(check)[name], precision, check.device)
    batch, n_batches = check.choose(full=(64, 6), quick=(16, 4), tiny=(2, 2))
    files = jpegs(batch, check.choose(full=2048, quick=1024, tiny=64))
    threads = len(os.sched_getaffinity(0))

    def prepared() -> np.ndarray:
        images = [image for image in pool.map(decode, files) if isinstance(image, np.ndarray)]
        return np.stack(list(pool.map(encoder.prepare, images)))

    with ThreadPoolExecutor(threads) as pool, ThreadPoolExecutor(1) as loader:
        encoder.encode(prepared())
        start = time.perf_counter()
        for _ in range(n_batches):
            prepared()
        alone = n_batches * batch / (time.perf_counter() - start)
        start, ahead = time.perf_counter(), loader.submit(prepared)
        for _ in range(n_batches):
            images, ahead = ahead.result(), loader.submit(prepared)
            encoder.encode(images)
        both = n_batches * batch / (time.perf_counter() - start)
        ahead.result()
    check.add(
        "speed", f"{name} {precision} behind decoding, {threads} threads", decode_images_per_s=alone,
        decode_and_encode_images_per_s=both,
    )  # fmt: skip


def per_second(work: Callable[[], object], device: str, seconds: float) -> float:
    """Calls a second, after two that warm up."""
    import torch

    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    for _ in range(2):
        work()
    wait()
    start, calls = time.perf_counter(), 0
    while time.perf_counter() - start < seconds or not calls:
        work()
        wait()
        calls += 1
    return calls / (time.perf_counter() - start)
