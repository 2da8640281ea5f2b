"""The cluster a run would join, or the Ray it would start: versions, size, and whether what the config wants fits."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from chexray.doctor.case import Case, Check, PendingCheck, fail, note, ok, size
from chexray.doctor.storage import probe_file
from chexray.doctor.versions import installed
from chexray.errors import ResourceError, StorageError
from chexray.plan.plan import LOCAL_PORTS
from chexray.spelling import plural
from chexray.storage import absolute, is_remote
from chexray.suite_names import UTILITY

if TYPE_CHECKING:
    from chexray.engine.pools import Resources
    from chexray.engine.probing import Seen

JOIN_S = 110.0
ADVICE = "Correct {setting}, start the cluster (`ray start --head`), or unset it to run on this machine."


def pending(case: Case) -> list[PendingCheck]:
    return [PendingCheck("cluster", lambda: cluster(case), JOIN_S, "See `ray status` on the head: is it overloaded?")]


def pool_pending(case: Case) -> list[PendingCheck]:
    found = [PendingCheck("encoding pool", lambda: encoding_pool(case))]
    if UTILITY in case.run.suite:
        found.append(PendingCheck("training pool", lambda: training_pool(case)))
    return found


def cluster(case: Case) -> Check:
    """Who answers at the address of the run; without one, what this machine offers."""
    address, setting = case.ray_address
    if not address:
        return local(case)
    if address.startswith(("http://", "https://")):
        return jobs_api(address, setting)
    from chexray.config.addresses import check_joinable
    from chexray.engine.probing import NotJoined, look

    check_joinable(address, setting)

    with _left_behind(case) as (probes, paths):
        try:
            seen = look(address, [*probes, *paths])
        except NotJoined as error:
            return fail(str(error), "" if error.advised else ADVICE.format(setting=setting))
    case.resources = seen.resources
    return judged(seen, probes)


def local(case: Case) -> Check:
    """What a Ray of our own would have. The GPUs have their own line."""
    from chexray.config import RayConfig
    from chexray.engine.probing import offered

    case.resources = offered(case.config.ray if case.config else RayConfig())
    found = case.resources
    return ok(
        f"no RAY_ADDRESS: a run starts a Ray of its own on this machine, with {found.cpus:g} CPU"
        f"{f', {found.gpus:g} GPU' if found.gpus else ''} and {size(found.memory)} memory; {LOCAL_PORTS}"
    )


def jobs_api(address: str, setting: str) -> Check:
    """An address that takes jobs: only its version can be seen, and a run cannot join it."""
    from chexray.engine.job_api import Jobs

    try:
        jobs = Jobs(address)
    except ResourceError as error:
        text = str(error).replace("--address", setting)
        advised = setting in text or "set RAY" in text
        return fail(text, "" if advised else f"Set {setting} to the dashboard, http://head:8265, or unset it.")
    if jobs.version != jobs.client_version:
        return fail(
            f"{address} runs Ray {jobs.version or 'of unknown version'}, this process Ray {jobs.client_version}.",
            f"Use chexray in the image of the cluster, or pip install ray=={jobs.version or '<its version>'}.",
        )
    return note(
        f"{address} takes jobs (Ray {jobs.version}, as here), but cannot be joined.",
        f"Use `chexray submit CONFIG --address {address}`, or in the cluster {setting}=auto.",
    )


def judged(seen: Seen, probes: dict[str, str]) -> Check:
    """The line of a cluster that was joined. probes: {file that was written here for the nodes to find: its folder}"""
    working = seen.resources
    idle = len(seen.nodes) - working.nodes
    gpus = f", {working.gpus:g} GPU" if working.gpus else ", no GPU"
    found = (
        f"Ray {seen.ray}, Python {seen.python}, {plural(working.nodes, 'node')} with CPUs"
        f"{f' and {idle} without' if idle else ''}, {working.cpus:g} CPU ({seen.free_cpus:g} free){gpus}, "
        f"{size(working.memory)} memory"
    )
    silent = [node.name for node in seen.nodes if not node.answered]
    if silent:
        return fail(f"{found}; {_some(silent)} ran no task in time.", "See `ray status` and the logs of that node.")
    for node in seen.nodes:
        for path in node.unseen:
            nodes = [each.name for each in seen.nodes if path in each.unseen]
            return fail(
                f"{found}; {probes.get(path, path)} of this machine is not seen by {_some(nodes)} of "
                f"{len(seen.nodes)}.",
                "Mount it on every node (NFS), or use s3://.",
            )
    strange = [node for node in seen.nodes if node.chexray != installed()]
    if strange:
        here, there = installed() or "none", strange[0].chexray or "none"
        return fail(
            f"{found}; chexray {here} is installed here, {there} on {_some([node.name for node in strange])}.",
            "Use one image for all nodes, or pip install the same version.",
        )
    if seen.open:
        return note(
            f"{found}; it requires no token: anyone who reaches its ports can run code in it.",
            "Start it with RAY_AUTH_MODE=token and RAY_AUTH_TOKEN.",
        )
    return ok(found)


def encoding_pool(case: Case) -> Check:
    """Whether the encoders find the CPUs and GPUs they want."""
    from chexray.engine.pools import plan_pool

    if case.resources is None:
        return note("not sized, since no cluster answers.")
    resources, grows = _grown(case)
    pool = plan_pool(case.run.encode, resources, n_images=case.n_images or 10**6)
    return ok(pool.describe() + grows)


def training_pool(case: Case) -> Check:
    """Whether the training workers find theirs."""
    from chexray.engine.pools import plan_train_pool

    if case.resources is None:
        return note("not sized, since no cluster answers.")
    resources, grows = _grown(case)
    return ok(plan_train_pool(case.run.utility, resources).describe() + grows)


def _grown(case: Case) -> tuple[Resources, str]:
    """The resources a run counts on: those of a cluster that grows when asked, as far as the config says."""
    found, wanted = case.resources, case.run.ray
    assert found is not None
    if not found.joined or not (wanted.cpus or wanted.gpus):
        return found, ""
    cpus, gpus = max(found.cpus, wanted.cpus or 0), max(found.gpus, wanted.gpus or 0)
    grows = (cpus, gpus) != (found.cpus, found.gpus)
    return replace(found, cpus=cpus, gpus=gpus, grows=grows), f"; the cluster may grow to {cpus:g} CPU and {gpus:g} GPU"


@contextmanager
def _left_behind(case: Case) -> Iterator[tuple[dict[str, str], list[str]]]:
    """({file written for the nodes to find: its folder}, local paths that the run reads)."""
    if case.config is None:
        yield {}, []
        return
    folders = _local(case.outputs.values())
    paths = _local(str(item.options.get("path") or "") for _, item in case.sets)
    with ExitStack() as stack:
        probes: dict[str, str] = {}
        for folder in folders:
            with suppress(StorageError):  # a folder that cannot be written has a line of its own
                probes[stack.enter_context(probe_file(case.storage, folder))] = folder
        yield probes, [path for path in paths if os.path.exists(path)]


def _local(uris: Iterable[str]) -> list[str]:
    """Those on this machine, absolute; a scheme that chexray does not speak has a line of its own."""
    found = []
    for uri in uris:
        with suppress(StorageError):
            if uri and not is_remote(uri):
                found.append(absolute(uri))
    return found


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
