"""The plan of a run: everything decided and checked before a cluster starts. `--dry-run` prints it.

Reading manifests and hashing weights is all the work done here, so a wrong path, a missing weight file, a typo or an
impossible subset costs seconds.
"""

from chexray.plan.building import inherit_labels, make_plan, make_storage, other_problems, read_manifests
from chexray.plan.plan import Plan

__all__ = ["Plan", "inherit_labels", "make_plan", "make_storage", "other_problems", "read_manifests"]
