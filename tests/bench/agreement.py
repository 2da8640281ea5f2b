"""Every value of chexray beside the correct computation by other libraries, and beside what averaged shards say.

"Correct" is computed here, unsharded, by torchmetrics, torch-fidelity and prdc from features that the upstream-shaped
path made in its own process, with its own batches and its own image processing. So the comparison covers decoding,
preprocessing, networks and maths together, and the tolerances allow for float32 features of different batches.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import Any

import numpy as np

from .tables import table

TOLERANCE = {"fid": 1e-5, "kid_subsets": 1e-5, "inception_score": 1e-6}
"""Relative: what float32 features of other batches leave."""

INEXACT_FID = 5e-4
"""Relative, against torchmetrics' own FID: for n < d its eigenvalues are noise of 1e-16, and their roots of 1e-8."""

SHARE_IMAGES = 1.5
"""Shares of images (precision ...) may differ by this many images, where float32 features decide a near tie."""


@dataclass(frozen=True)
class Line:
    name: str
    ours: float | None
    correct: float
    sharded: float | None
    agrees: bool


def exact_fid(real: np.ndarray, synthetic: np.ndarray) -> float:
    """The Fréchet distance by singular values in float64, the reference where n < d."""
    x, y = (side.astype(np.float64) for side in (real, synthetic))
    shift = x.mean(0) - y.mean(0)
    x, y = ((side - side.mean(0)) / np.sqrt(len(side) - 1) for side in (x, y))
    root = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    return float(shift @ shift + (x**2).sum() + (y**2).sum() - 2 * root)


def correct_values(features: dict[str, np.ndarray], columns: int | None = None) -> dict[str, float]:
    """{"encoder metric": value} over all images, by other libraries. columns: of wider features torchmetrics' own FID,
    the eigenvalues of a matrix of so many columns, is left out."""
    import torch
    from prdc import compute_prdc
    from torch_fidelity.metric_isc import isc_features_to_metric
    from torchmetrics.image.fid import _compute_fid
    from torchmetrics.image.kid import poly_mmd

    values: dict[str, float] = {}
    for encoder in ("rad_dino", "inception_v3"):
        real, synthetic = (features[f"{encoder} {side}"] for side in ("real", "synthetic"))
        x, y = (torch.from_numpy(side.astype(np.float64)) for side in (real, synthetic))
        if columns is None or x.shape[1] <= columns:
            fid = _compute_fid(x.mean(0), torch.cov(x.T), y.mean(0), torch.cov(y.T))
            values[f"{encoder} fid (torchmetrics)"] = float(fid)
        values[f"{encoder} fid"] = exact_fid(real, synthetic)
        values[f"{encoder} kid_subsets"] = float(poly_mmd(x, y))
        with contextlib.redirect_stdout(io.StringIO()):  # it prints the sizes of what it is given
            found = compute_prdc(real.astype(np.float64), synthetic.astype(np.float64), nearest_k=5)
        values |= {f"{encoder} {name}": float(value) for name, value in found.items()}
    logits = torch.from_numpy(features["inception_v3 synthetic"])
    found = isc_features_to_metric(logits, splits=10, shuffle=True, rng_seed=2020)
    values["inception_v3 inception_score"] = float(found["inception_score_mean"])
    return values


def check(
    ours: dict[str, Any],
    sharded: dict[str, float],
    findings: dict[str, dict[str, float]],
    features: dict[str, np.ndarray],
    columns: int | None = None,
) -> list[Line]:
    """One line a value of chexray; the torchmetrics FID, up to so many `columns`, is shown beside the exact one.

    sharded, findings, features: what the upstream-shaped path found.
    """
    correct = correct_values(features, columns)
    mine = {f"{row['encoder']} {row['metric']}": row["value"] for row in ours["rows"] if row["subset"] == "all"}
    n = len(features["rad_dino real"])
    lines = []
    for name in sorted(mine):
        metric = name.split()[1]
        averaged = sharded.get(name.replace("kid_subsets", "kid"))
        value = mine[name]
        agrees = value is not None and _near(metric, value, correct[name], n)
        lines.append(Line(name, value, correct[name], averaged, agrees))
        other = correct.get(f"{name} (torchmetrics)")
        if other is not None:
            near = value is not None and abs(value - other) <= INEXACT_FID * other
            lines.append(Line(f"{name} (torchmetrics)", value, other, averaged, near))
    return [*lines, *_findings(ours, findings)]


def _findings(ours: dict[str, Any], findings: dict[str, dict[str, float]]) -> list[Line]:
    """Upstream does not shard its conditional runs, so those values of a finding are the correct ones.

    But for its Inception score, which shuffles by the global generator.
    """
    lines = []
    for row in ours["rows"]:
        finding = row["subset"].removeprefix("finding:")
        name = f"{row['encoder']} {row['metric'].replace('kid_subsets', 'kid')}"
        theirs = findings.get(finding, {}).get(name)
        if theirs is None or row["metric"] == "inception_score":
            continue
        value, near = row["value"], False
        if value is not None and row["metric"] == "fid":
            near = abs(value - theirs) <= INEXACT_FID * theirs
        elif value is not None:
            near = _near(row["metric"], value, theirs, row["n_real"], float32=2e-6)
        lines.append(Line(f"{name}, {finding}", value, theirs, None, near))
    return lines


def _near(metric: str, value: float, correct: float, n: int, *, float32: float = 0.0) -> bool:
    """float32: an absolute tolerance beside the relative one, for a reference that is itself computed in float32."""
    if metric in TOLERANCE:
        return abs(value - correct) <= max(TOLERANCE[metric] * abs(correct), float32)
    return abs(value - correct) <= SHARE_IMAGES / n


def agreement_table(lines: list[Line]) -> str:
    """The overall values one by one, and those of findings in one sentence below (with any that differ)."""
    rows = []
    of_findings = [line for line in lines if ", " in line.name]
    shown = [line for line in lines if line not in of_findings or not line.agrees]
    for line in shown:
        gap = "" if line.ours is None or not line.correct else f"{abs(line.ours / line.correct - 1):.1e}"
        sharded = "" if line.sharded is None else f"{line.sharded:.6g}"
        off = "" if line.sharded is None or not line.correct else f"{100 * (line.sharded / line.correct - 1):+.0f} %"
        ours = "null" if line.ours is None else f"{line.ours:.8g}"
        agrees = "agrees" if line.agrees else "DIFFERS"
        rows.append([line.name, ours, f"{line.correct:.8g}", gap, agrees, sharded, off])
    header = ["value, all images", "chexray", "correct", "relative gap", "", "shards averaged", "off by"]
    text = table(header, rows)
    if of_findings:
        n_agree = sum(line.agrees for line in of_findings)
        text += f"\n\n{n_agree} of {len(of_findings)} values of single findings agree with upstream's unsharded runs"
    return text
