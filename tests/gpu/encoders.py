"""Features of one network on CPU and GPU in every precision, and what their differences do to FID and KID."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from gpu.inputs import build, networks, phantoms

if TYPE_CHECKING:
    from gpu.check import Check

LIMITS = {"fp32": 1e-4, "tf32": 1e-2, "bf16": float("inf")}
"""Largest relative error that is no defect. That of bf16 depends on the network: `auto` decides, and is shown."""
BATCH = 16


def run(check: Check) -> None:
    n, side = check.choose(full=32, quick=32, tiny=8), check.choose(full=512, quick=256, tiny=32)
    for name, options in networks(check).items():
        if check.is_late("encoders", name):
            return
        try:
            _compare(check, name, options, n, side)
        except Exception as error:  # a library that is not there, or a defect: a row, and the others follow
            why = f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"
            missing = isinstance(error, ImportError) or "not installed" in str(error)
            check.add("encoders", name, **({"skipped": why} if missing else {"right": False, "error": why}))


def _compare(check: Check, name: str, options: dict[str, Any], n: int, side: int) -> None:
    from chexray.stats.precision import objections, relative_error

    images = [*phantoms("real", n, side), *phantoms("good", n, side)]
    reference = build(options, "fp32", "cpu")
    batch = np.stack([reference.prepare(image) for image in images])
    exact = _features(reference, batch)
    base, errors_of = _numbers(exact, n)
    runs = [("cpu", "bf16")] if check.device == "cpu" else [("cuda", each) for each in LIMITS]
    for device, precision in runs:
        if check.is_late("encoders", f"{name}, {device} {precision}"):
            return
        found = _features(build(options, precision, device), batch)
        error = relative_error(exact, found)
        numbers, _ = _numbers(found, n)
        shifts = {key: numbers[key] - base[key] for key in base}
        refused = objections({"features": error}, shifts, errors_of)
        check.add(
            "encoders", f"{name}, {device} {precision}", error=error,
            **{f"{key}_shift": value for key, value in shifts.items()},
            **{f"{key}_std_error": value for key, value in errors_of.items()},
            auto="allowed" if not refused else "refused", right=bool(error <= LIMITS[precision]),
        )  # fmt: skip


def _features(encoder: Any, batch: np.ndarray) -> np.ndarray:
    return np.concatenate(
        [encoder.encode(batch[start : start + BATCH])["features"] for start in range(0, len(batch), BATCH)]
    )


def _numbers(features: np.ndarray, n: int) -> tuple[dict[str, float], dict[str, float]]:
    """({"fid", "kid": value}, {their standard errors}); without FID where there is no SciPy."""
    from chexray.metrics.base import Rows
    from chexray.registry import find

    ids = np.array([f"{index:04d}" for index in range(len(features))])
    sides = Rows(ids[:n], features[:n]), Rows(ids[n:], features[n:])
    values, errors = {}, {}
    for metric in ("fid", "kid"):
        try:
            (score,) = find("metrics", metric)().score(*sides, floor=False)
        except ImportError:
            continue
        if score.value is not None and score.std_error:
            values[metric], errors[metric] = score.value, score.std_error
    return values, errors
