"""A look at a Ray cluster from outside: who answers, in which versions, with what, and which files its nodes see.

It happens in a process of its own with a deadline. Ray waits minutes for a port that is something else's, ends its
process when it gives up, and can be joined once only.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chexray.config import RayConfig
from chexray.engine.pools import Resources
from chexray.engine.versions import compared, version_mismatch
from chexray.errors import ResourceError

ANSWER_TIMEOUT_S = 12.0
"""For the first answer of something that listens."""
VISIT_TIMEOUT_S = 30.0
"""For a task on each node: a worker process may have to be started."""
TOTAL_TIMEOUT_S = 90.0

TOKEN = "Set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN to the token of the cluster."


class NotJoined(ResourceError):
    """A cluster that could not be joined. advised: whether the text names the next move."""

    def __init__(self, text: str, *, advised: bool = False):
        super().__init__(text)
        self.advised = advised


@dataclass(frozen=True)
class Node:
    """A live node. chexray: the version its workers import, "" for none. unseen: paths asked for that it lacks.

    answered: whether a task ran there in time; without one, chexray and unseen say nothing.
    """

    name: str
    resources: dict[str, float]
    answered: bool
    chexray: str
    unseen: tuple[str, ...]


@dataclass(frozen=True)
class Seen:
    """A cluster that was joined: its versions, its nodes, the CPUs that are free now. open: it asks for no token."""

    ray: str
    python: str
    nodes: tuple[Node, ...]
    free_cpus: float
    open: bool = False

    @property
    def resources(self) -> Resources:
        """What a run would count, in the way it counts."""
        return Resources.of((node.resources for node in self.nodes), joined=True)


def look(address: str, paths: list[str] | None = None, *, patience_s: float | None = None) -> Seen:
    """Joins the cluster at `address` (host:port or auto) and leaves it again.

    paths: files and folders that every node is asked for. patience_s: for the first answer of what listens there.
    Raises NotJoined.
    """
    from chexray.engine.joining import knock

    try:
        knock(address)
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise NotJoined(f"nothing listens at {address} ({reason}).") from None
    lifeline, held = os.pipe()
    request = json.dumps(
        {"address": address, "paths": paths or [], "patience_s": patience_s or ANSWER_TIMEOUT_S, "lifeline": lifeline}
    )
    command = [sys.executable, "-m", "chexray.engine.probing"]
    try:
        done = subprocess.run(
            command, input=request, capture_output=True, text=True, timeout=TOTAL_TIMEOUT_S, pass_fds=[lifeline]
        )
        said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    except subprocess.TimeoutExpired:
        raise NotJoined(f"{address} listens, but could not be joined within {TOTAL_TIMEOUT_S:g} s.") from None
    finally:
        os.close(lifeline)
        os.close(held)
    answer: dict[str, Any] = {}
    for part in said:
        answer |= part
    if "error" in answer:
        raise _explained(address, answer)
    if "nodes" not in answer:
        if os.environ.get("RAY_AUTH_MODE", "").lower() == "token" and not token_source(os.environ):
            raise NotJoined(
                f"{address} cannot be joined without a token. {TOKEN}", advised=True
            )  # Ray ends its process
        raise NotJoined(f"{address} listens, but Ray ended while joining it (exit code {done.returncode}).")
    nodes = tuple(Node(**{**node, "unseen": tuple(node["unseen"])}) for node in answer["nodes"])
    return Seen(answer["ray"], answer["python"], nodes, answer["free_cpus"], answer.get("open", False))


def _explained(address: str, answer: dict[str, Any]) -> NotJoined:
    kind, text = answer["kind"], answer["error"]
    if mismatch := version_mismatch(text):
        return NotJoined(mismatch, advised=True)
    own = (_own_ray(), platform.python_version())
    theirs = (answer.get("ray", own[0]), answer.get("python", own[1]))
    if theirs[0] != own[0]:  # an older or newer Ray may fail in any way before it compares
        return NotJoined(compared(*theirs, *own), advised=True)
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")[:160].rstrip(".")
    if kind == "AuthenticationError" or "token" in first.lower():
        return NotJoined(f"{address} requires a token ({kind}). {TOKEN}", advised=True)
    if answer.get("silent"):
        return NotJoined(f"{address} listens, but does not answer as Ray does (its port is 6379 by default).")
    return NotJoined(f"{address} cannot be joined ({kind}{': ' if first else ''}{first}).")


def _own_ray() -> str:
    import ray

    return ray.__version__


def token_source(environment: Mapping[str, str]) -> str:
    """Where Ray finds the token of a cluster, by the name of the variable or file; "" when nowhere."""
    if environment.get("RAY_AUTH_TOKEN", "").strip():
        return "RAY_AUTH_TOKEN"
    if path := environment.get("RAY_AUTH_TOKEN_PATH"):
        return "RAY_AUTH_TOKEN_PATH" if Path(path).is_file() else ""
    default = Path(environment.get("HOME") or Path.home()) / ".ray" / "auth_token"
    return "~/.ray/auth_token" if default.is_file() else ""


def gpus_of_this_machine() -> int:
    """GPUs that a local Ray would count."""
    from ray._private.accelerators import get_accelerator_manager_for_resource

    manager: Any = get_accelerator_manager_for_resource("GPU")
    present = manager.get_current_node_num_accelerators()
    visible = manager.get_current_process_visible_accelerator_ids()
    return present if visible is None else min(present, len(visible))


def offered(config: RayConfig) -> Resources:
    """What a Ray of our own would have on this machine; none is started."""
    from ray._private.utils import estimate_available_memory

    from chexray.engine.cpus import usable_cpus
    from chexray.engine.local_ray import object_store_bytes

    cpus = float(config.num_cpus or usable_cpus())
    memory = max(0, estimate_available_memory() - object_store_bytes(config))
    return Resources(cpus, float(gpus_of_this_machine()), float(memory), 1, node_cpus=(cpus,))


def main() -> None:
    """The other process: a request on standard input, answers as lines of JSON on standard output."""
    request = json.loads(sys.stdin.read())
    threading.Thread(target=_end_with, args=[request["lifeline"]], daemon=True).start()
    # Ray's native code writes to the error stream as it likes; nobody reads it.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        _visit_all(request["address"], request["paths"], request["patience_s"])
    except BaseException as error:
        _say(kind=type(error).__name__, error=str(error))
        sys.stdout.flush()
        os._exit(1)  # a client that failed to join may keep its threads


def _end_with(lifeline: int) -> None:
    """Ends this process once its parent has ended, however it did: nobody is left to ask for."""
    os.read(lifeline, 1)
    os._exit(1)


def _visit_all(address: str, paths: list[str], patience_s: float) -> None:
    import ray

    from chexray.engine.authentication import asks_for_token
    from chexray.engine.visits import on_every_node

    patience = threading.Timer(patience_s, _give_up)
    patience.daemon = True
    patience.start()
    if ":" in address:
        _say(**_versions(address))
        patience.cancel()
    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    patience.cancel()
    if ":" not in address:
        _say(**_versions(ray.get_runtime_context().gcs_address))
    nodes = []
    for node, told in on_every_node(_visit, paths, timeout_s=VISIT_TIMEOUT_S):
        found = {"answered": told is not None, **(told or {"chexray": "", "unseen": []})}
        nodes.append({"name": node["NodeManagerHostname"], "resources": node["Resources"], **found})
    is_open = asks_for_token(ray.get_runtime_context().gcs_address) is False
    _say(nodes=nodes, free_cpus=ray.available_resources().get("CPU", 0.0), open=is_open)


def _visit(paths: list[str]) -> dict[str, Any]:
    """Runs on a node, maybe one without chexray: sent by value, it uses the standard library alone."""
    import importlib.metadata
    import os

    try:
        version = importlib.metadata.version("chexray")
    except importlib.metadata.PackageNotFoundError:
        version = ""
    return {"chexray": version, "unseen": [path for path in paths if not os.path.exists(path)]}


def _versions(address: str) -> dict[str, str]:
    """Ray's and Python's version of the cluster, as its head has them on record."""
    from ray._common.usage.usage_lib import get_cluster_metadata
    from ray._raylet import GcsClient  # pyright: ignore[reportAttributeAccessIssue]

    found = get_cluster_metadata(GcsClient(address=address))
    return {"ray": found["ray_version"], "python": found["python_version"]}


def _give_up() -> None:
    _say(kind="TimeoutError", error="", silent=True)
    sys.stdout.flush()
    os._exit(1)


def _say(**values: object) -> None:
    print(json.dumps(values), flush=True)


if __name__ == "__main__":
    main()
