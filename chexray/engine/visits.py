"""A task on every node of a cluster."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any


def on_every_node(
    visit: Callable[..., Any], *arguments: object, timeout_s: float
) -> list[tuple[dict[str, Any], Any | None]]:
    """(a live node as Ray describes it, what `visit(*arguments)` returned there), None where it did not in time."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=0)(visit)

    def send(node: dict[str, Any]) -> ray.ObjectRef:
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        return task.options(scheduling_strategy=there).remote(*arguments)

    visits = {send(node): node for node in ray.nodes() if node["Alive"]}
    ready, _ = ray.wait(list(visits), num_returns=len(visits), timeout=timeout_s)
    answers: dict[Any, Any] = {}
    for sent in ready:
        with suppress(Exception):  # a node that was lost meanwhile says nothing
            answers[sent] = ray.get(sent)
    return [(node, answers.get(sent)) for sent, node in visits.items()]
