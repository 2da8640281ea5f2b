"""Whether a run lost too many images to go on, or cut off the values of too many."""

from __future__ import annotations

import pyarrow as pa

from chexray.engine.features import StoreIndex
from chexray.errors import RunFailed
from chexray.plan import Plan
from chexray.suites.common import clipped_of


def check_rejects(plan: Plan, rejects: pa.Table) -> None:
    """Raises RunFailed when a set lost more than `max_reject_fraction`, or all, of its images."""
    limit = plan.config.encode.max_reject_fraction
    for manifest in plan.sets:
        mine = [row for row in rejects.to_pylist() if row["set"] == manifest.name]
        n = len(manifest) + len(manifest.rejects)
        if not mine or (len(mine) <= limit * n and len(mine) < n):
            continue
        first = mine[0]
        again = sum(row["transient"] for row in mine)
        hint = f"{again} of them may succeed when you run the same command again. " if again else ""
        raise RunFailed(
            f"{manifest.name}: {len(mine)} of {n} images were rejected, over encode.max_reject_fraction={limit:g}. "
            f"First: {first['uri']}: {first['code']}: {first['detail']}. {hint}"
            f"All are listed in {plan.run_uri}/rejects.parquet; repair them, or raise the limit."
        )


def clipped_notes(plan: Plan, done: dict[str, StoreIndex]) -> list[str]:
    """Notes on images that are brighter than the depth of their set. Raises RunFailed where that depth was found in a
    sample and is too small for more than `max_reject_fraction` of the set."""
    notes, counts = [], clipped_of(plan, done)
    for manifest in plan.sets:
        count, depth = counts.get(manifest.name, 0), manifest.depth
        if not count:
            continue
        bits = f"the {abs(depth.bits)} bits of its set" if depth and depth.bits else "the bits that their files declare"
        told = f"{manifest.name}: {count} of {len(manifest)} images hold values beyond {bits}, which were cut off"
        limit = plan.config.encode.max_reject_fraction
        if depth and depth.bits and not depth.given and count > limit * len(manifest):
            raise RunFailed(
                f"{told}, over encode.max_reject_fraction={limit:g}. The sample in which the depth was found held no "
                "such image. Give the set `bits`, such as 16."
            )
        move = f"its `bits: {depth.bits}` is too small" if depth and depth.given else "give the set `bits`"
        notes.append(f"{told}. If that is not padding or a marker, {move}")
    return notes
