"""Where the numbers of a run come from: what is written to run.json."""

from __future__ import annotations

import importlib.metadata
import itertools
import platform
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from chexray import __version__
from chexray.config.secrets import STORAGE_SECRETS
from chexray.data.manifest import Manifest
from chexray.plan import Plan
from chexray.run.directory import now

if TYPE_CHECKING:
    from chexray.engine.pools import Pool, Resources

Story = dict[str, Any]
"""What run.json holds."""


def provenance(plan: Plan, rejects: pa.Table, times: dict[str, float], resources: Resources, pool: Pool) -> Story:
    """Config without secrets, sets, encoders, versions, the cluster, and seconds of each stage.

    times: {stage: its end}, in order. resources, pool: dataclasses of the engine.
    """
    return {
        "run_id": plan.run_id,
        "chexray_version": __version__,
        "created_at": now(),
        "config": plan.config.model_dump(mode="json", exclude={"storage": STORAGE_SECRETS}),
        "protocol": {"name": plan.protocol.name, "notes": plan.protocol.notes},
        "sets": [_describe_set(manifest, rejects) for manifest in plan.sets],
        "encoders": {
            label: {**spec.described(), "fingerprint": spec.fingerprint} for label, (_, spec) in plan.encoders.items()
        },
        "precision": {label: asdict(known) for label, known in plan.precision.items()},
        "plugins": plan.plugins,
        "features": plan.store_uri,
        "seconds": seconds(times),
        "resources": asdict(resources),
        "pool": asdict(pool),
        "versions": _versions(),
    }


def _describe_set(manifest: Manifest, rejects: pa.Table) -> dict[str, object]:
    n_rejected = sum(name == manifest.name for name in rejects["set"].to_pylist())
    return {
        "name": manifest.name, "origin": manifest.origin, "fingerprint": manifest.fingerprint,
        "n_rows": manifest.n_rows, "n_evaluated": len(manifest) + len(manifest.rejects) - n_rejected,
        "n_rejected": n_rejected, "excluded": manifest.excluded,
        "depth": None if manifest.depth is None else asdict(manifest.depth),
        "sample": None if manifest.looks is None else asdict(manifest.looks),
    }  # fmt: skip


def seconds(times: dict[str, float]) -> dict[str, float]:
    """{stage: how long it took} of {stage: its end}, in order."""
    names = list(times)
    spans = {after: times[after] - times[before] for before, after in itertools.pairwise(names)}
    return {name: round(value, 3) for name, value in spans.items()}


def _versions() -> dict[str, str]:
    packages = ("ray", "torch", "transformers", "timm", "numpy", "scipy", "pillow", "pyarrow", "pydicom")
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "absent"
    return found
