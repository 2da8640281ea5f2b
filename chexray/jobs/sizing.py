"""How far the pods of a RayJob and its config's `ray.gpus` and `ray.cpus` agree to grow."""

from __future__ import annotations

import math
from typing import Any

from chexray.config import RunConfig
from chexray.errors import ConfigError

GPU = "nvidia.com/gpu"

Document = dict[str, Any]
"""A Kubernetes object, or a part of one, as YAML holds it."""


def fit(
    config: RunConfig, job: Document, own: Document, gpus: int | None, overlay: str
) -> tuple[RunConfig, list[Document], list[str]]:
    """(config, patches of the RayJob, lines for the user): both agree on how far the cluster may grow.

    What the config leaves open comes from the overlay's own config, GPUs only where the run may use one; a GPU brings
    the CPUs of its pod along. One pod alone grows nowhere, and so is asked for nothing.
    """
    cluster = job["spec"]["rayClusterSpec"]
    groups = [(index, group, _limits(group)) for index, group in enumerate(cluster.get("workerGroupSpecs", []))]
    with_gpu = next((each for each in groups if each[2][GPU]), None)
    without = next((each for each in groups if not each[2][GPU] and each[2]["cpu"]), None)
    is_elastic = bool(cluster.get("enableInTreeAutoscaling"))
    no_gpu = ConfigError(f"overlay {overlay} has no workers with GPUs. Use another, or leave --gpus and ray.gpus out.")
    if not groups:
        return _alone(config, gpus, overlay, no_gpu)
    wanted, notes = gpus or config.ray.gpus, []
    if not wanted and own.get("gpus"):
        if config.devices == {"cpu"}:
            notes.append(
                f"no GPU is asked for: every device is cpu, and the config names no ray.gpus (overlay {overlay})"
            )
        else:
            wanted = own["gpus"]
    patches: list[Document] = []
    gpu_cpus = own_gpu_cpus = 0.0
    if with_gpu:
        index, group, per_pod = with_gpu
        pods = math.ceil((wanted or 0) / per_pod[GPU])
        gpu_cpus = pods * per_pod["cpu"]
        own_gpu_cpus = math.ceil((own.get("gpus") or 0) / per_pod[GPU]) * per_pod["cpu"]
        if wanted or not is_elastic:
            patches += _resized(index, group, pods, is_elastic)
    elif wanted:
        raise no_gpu

    cpus = config.ray.cpus
    if without and not is_elastic and not cpus:
        cpus = int(gpu_cpus + without[1]["replicas"] * without[2]["cpu"])
    elif not cpus and own.get("cpus"):
        cpus = max(1, int(own["cpus"] + gpu_cpus - own_gpu_cpus))
    if without and cpus:
        index, group, per_pod = without
        pods = max(1, math.ceil((cpus - gpu_cpus) / per_pod["cpu"]))
        if pods > group["maxReplicas"] or (not is_elastic and pods != group["replicas"]):
            patches += _resized(index, group, pods, is_elastic)
    ray = config.ray.model_copy(update={"gpus": wanted, "cpus": cpus})
    return config.model_copy(update={"ray": ray}), patches, notes


def _alone(
    config: RunConfig, gpus: int | None, overlay: str, no_gpu: ConfigError
) -> tuple[RunConfig, list[Document], list[str]]:
    """As `fit`, for a pod without workers: a request of it would be waited for in vain."""
    if gpus or (config.ray.gpus and "cuda" in config.devices):
        raise no_gpu
    left_out = [key for key in ("cpus", "gpus") if getattr(config.ray, key)]
    ray = config.ray.model_copy(update={"gpus": None, "cpus": None})
    settings = " and ".join(f"ray.{key}" for key in left_out)
    notes = [f"{settings} left out: overlay {overlay} is one pod, which does not grow"] if left_out else []
    return config.model_copy(update={"ray": ray}), [], notes


def _resized(index: int, group: Document, pods: int, is_elastic: bool) -> list[Document]:
    at = f"/spec/rayClusterSpec/workerGroupSpecs/{index}"
    if not is_elastic:  # nothing starts pods later
        return [replace(f"{at}/{key}", pods) for key in ("replicas", "minReplicas", "maxReplicas")]
    capped = [key for key in ("replicas", "minReplicas") if group.get(key, 0) > pods]
    return [replace(f"{at}/{key}", pods) for key in (*capped, "maxReplicas")]


def _limits(group: Document) -> dict[str, float]:
    """CPUs and GPUs of one pod of a group, as Ray reads them: by the limits, else the requests."""
    total = {"cpu": 0.0, GPU: 0.0}
    for container in group["template"]["spec"]["containers"]:
        resources = container.get("resources", {})
        for key in total:
            total[key] += _quantity(resources.get("limits", {}).get(key, resources.get("requests", {}).get(key, 0)))
    return total


def _quantity(text: object) -> float:
    text = str(text)
    return float(text[:-1]) / 1000 if text.endswith("m") else float(text)


def replace(path: str, value: object) -> Document:
    """One JSON6902 operation; `add` replaces what is there."""
    return {"op": "add", "path": path, "value": value}
