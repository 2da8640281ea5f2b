"""The plan of a run: everything decided and checked before a cluster starts. `--dry-run` prints it.

Reading manifests and hashing weights is all the work done here, so a wrong path, a missing weight file, a typo or an
impossible subset costs seconds.
"""

from chexray.plan.making import make_plan, other_problems
from chexray.plan.plan import Plan
from chexray.plan.sets import inherit_labels, make_storage, read_manifests

__all__ = ["Plan", "inherit_labels", "make_plan", "make_storage", "other_problems", "read_manifests"]
