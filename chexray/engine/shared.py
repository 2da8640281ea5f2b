"""Whether the nodes of a cluster see one folder. A local path of each node's own loses what the others write."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

from chexray.engine.pools import Resources
from chexray.errors import ResourceError
from chexray.storage import Storage, is_remote, join

TIMEOUT_S = 60.0
FEWEST = 2
"""A single node sees what it writes."""


def check_shared(folder: str, storage: Storage, resources: Resources) -> None:
    """Raises ResourceError when a node of a joined cluster does not see a file that is written to `folder` here.

    A node that answers late, because it is busy, is taken to see it.
    """
    if not resources.joined or is_remote(folder):
        return
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [node for node in ray.nodes() if node["Alive"]]
    if len(nodes) < FEWEST:
        return
    # A name never asked for: network file systems remember for a while that a file was absent.
    probe = join(folder, f"shared-{uuid.uuid4().hex}")
    storage.write(probe, b"")
    try:
        task = ray.remote(num_cpus=0, max_retries=0)(_sees)
        asked: dict[Any, str] = {}
        for node in nodes:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            asked[task.options(scheduling_strategy=there).remote(probe)] = node["NodeManagerHostname"]
        answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=TIMEOUT_S)
        blind = sorted({asked[answer] for answer in answered if not _got(answer)})
    finally:
        storage.delete(probe)
    if blind:
        named = f"{', '.join(blind[:3])}{' ...' if len(blind) > 3 else ''}"
        raise ResourceError(
            f"{folder} of this machine is not seen by {len(blind)} of {len(asked)} nodes ({named}). "
            "Set output to s3://, or to a volume that every node mounts."
        )


def _sees(path: str) -> bool:
    return Path(path).exists()


def _got(answer: Any) -> bool:
    """The answer of a node; one that was lost meanwhile says nothing."""
    import ray
    from ray.exceptions import RayError

    try:
        return ray.get(answer)
    except RayError:
        return True
