"""Ray and Python of a cluster against our own: Ray joins no cluster of other versions, and says so in seven lines."""

from __future__ import annotations

import re

_MISMATCH = re.compile(
    r"Version mismatch: .*?started with:\s*Ray: (\S+)\s*Python: (\S+)\s*"
    r"This process on .*? started with:\s*Ray: (\S+)\s*Python: (\S+)",
    re.DOTALL,
)


def version_mismatch(error: BaseException | str) -> str | None:
    """One line with both versions and the fix when Ray refused a cluster for its versions; None for other errors."""
    found = _MISMATCH.search(str(error))
    return compared(found[1], found[2], found[3], found[4]) if found else None


def compared(cluster_ray: str, cluster_python: str, own_ray: str, own_python: str) -> str:
    """The line for two pairs of versions that Ray does not let work together."""
    line = (
        f"the cluster runs Ray {cluster_ray} on Python {cluster_python}, this process Ray {own_ray} on Python "
        f"{own_python}, and both must agree. Run chexray in the image of the cluster, or install "
    )
    if cluster_ray != own_ray:
        line += f"ray=={cluster_ray}"
        return f"{line} on Python {cluster_python}." if cluster_python != own_python else f"{line}."
    line += f"Python {cluster_python}"
    if cluster_python.split(".")[:2] == own_python.split(".")[:2]:
        return f"{line}; RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL=minor on every node lets the last number differ."
    return f"{line}."
