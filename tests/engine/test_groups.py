"""Ray Train leaves no actor of its own behind, and a new group gets what a lost one had booked."""

from __future__ import annotations

from chexray.engine.groups import free_groups, without_cleaner


def test_the_cleaner_that_outlives_its_driver_is_left_out() -> None:
    from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    assert callable(DataParallelTrainer._create_default_callbacks)
    assert without_cleaner(["first", PlacementGroupCleanerCallback(), "last"]) == ["first", "last"]


def test_what_a_lost_group_of_this_driver_booked_is_free_again(ray_cluster) -> None:
    import ray
    from ray.util import placement_group, placement_group_table

    group = placement_group([{"CPU": 1.0}])
    ray.get(group.ready())
    assert placement_group_table(group)["state"] == "CREATED"
    free_groups()
    assert placement_group_table(group)["state"] == "REMOVED"
    free_groups()
