"""What Ray Train would leave in a cluster: an actor that nobody ends, and what a lost group had booked."""

from __future__ import annotations

from typing import Any


def without_cleaner(callbacks: list[Any]) -> list[Any]:
    """Ray Train's callbacks without its cleaner of placement groups.

    That is an actor which belongs to no driver. It asks the dashboard whether the controller lives, waits for ever
    where none answers, and cannot end itself where one does (exit_actor in a thread, Ray 2.60): each run that is killed
    while it trains would leave one. The groups go with the driver, and `free_groups` removes them before.
    """
    return [each for each in callbacks if type(each).__name__ != "PlacementGroupCleanerCallback"]


def free_groups() -> None:
    """Removes the placement groups of this driver: after the loss of a controller, a new group needs what they book."""
    import ray
    from ray._raylet import PlacementGroupID  # pyright: ignore[reportAttributeAccessIssue]
    from ray.util import placement_group_table, remove_placement_group
    from ray.util.placement_group import PlacementGroup

    job = ray.get_runtime_context().get_job_id()
    for name, group in placement_group_table().items():
        # The number of a group ends with that of its job.
        if group["state"] != "REMOVED" and name.endswith(job):
            remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(name))))
