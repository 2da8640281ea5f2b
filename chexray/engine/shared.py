"""Whether the nodes of a cluster see one folder. A local path of each node's own loses what the others write."""

from __future__ import annotations

import uuid
from pathlib import Path

from chexray.engine.pools import Resources
from chexray.engine.visits import on_every_node
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

    if sum(node["Alive"] for node in ray.nodes()) < FEWEST:
        return
    # A name never asked for: network file systems remember for a while that a file was absent.
    probe = join(folder, f"shared-{uuid.uuid4().hex}")
    storage.write(probe, b"")
    try:
        answers = on_every_node(_sees, probe, timeout_s=TIMEOUT_S)
        blind = sorted({node["NodeManagerHostname"] for node, sees in answers if sees is False})
    finally:
        storage.delete(probe)
    if blind:
        named = f"{', '.join(blind[:3])}{' ...' if len(blind) > 3 else ''}"
        raise ResourceError(
            f"{folder} of this machine is not seen by {len(blind)} of {len(answers)} nodes ({named}). "
            "Set output to s3://, or to a volume that every node mounts."
        )


def _sees(path: str) -> bool:
    return Path(path).exists()
