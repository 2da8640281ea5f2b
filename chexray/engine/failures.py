"""What a machine or a cluster did to a run, in one line: out of memory, a lost node, a full disk, a head that is gone.

Ray's exceptions are known here by the names of their classes and by their text: so what a worker raised and what came
back pickled read alike, and asking costs no import of Ray. The texts are those of Ray 2.60.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import PurePath

from chexray.errors import ChexrayError, ResourceError
from chexray.text import first_line, shown

RESUMES = "The same command resumes; what is committed stays."

LOWER = {
    "plan": "Use --limit, or a machine with more memory.",
    "encode": "Lower encode.batch_size, encode.actors or encode.io_threads.",
    "utility": "Lower utility.batch_size, utility.image_size or utility.workers.",
    "": "Lower ray.num_cpus (fewer tasks at a time), or take a machine with more memory.",
}
"""{stage: what to lower where memory is short}; "" stands for the stages that are not named."""

_LACKS_MEMORY = re.compile(r"out of memory|allocate memory|unable to allocate|bad_alloc|ALLOC_FAILED", re.IGNORECASE)
_IN_MESSAGE = (RuntimeError, OSError, SystemError)
"""Exceptions that say by their text alone that memory was short; those of any other class are defects."""

_SYSTEM = {
    errno.ENOSPC: "a disk is full. Free space there",
    errno.EDQUOT: "a disk quota is used up. Free space there",
    errno.EIO: "a disk or network file system failed. See the system's log (dmesg)",
    errno.EROFS: "a file system became read-only. See the system's log (dmesg)",
    errno.EMFILE: "too many files are open. Raise the limit (ulimit -n)",
    errno.ENFILE: "too many files are open on the machine. Raise the limit (fs.file-max)",
    errno.EAGAIN: "no further process or thread can be started. Raise the limit (ulimit -u, pids.max)",
}

_LOST = "a worker process was lost{place}, most often for lack of memory (dmesg there says so). {lower}"
_HEAD = "the cluster's head, or Ray on this machine, no longer answers ({line}). See that it runs, or start it again."
_NODE = "a node of the cluster was lost{place} (preempted, restarted or unreachable)."
_DATA = "data in Ray's memory was lost with the process or node that held it{place}."
_ROOM = "no node of the cluster can hold the work any more ({line}). See that its nodes are up (`ray status`)."
_CLUSTER = {
    "OutOfDiskError": "the disk of Ray's temporary folder is full{place}. Free space there.",
    "ObjectStoreFullError": "Ray's object store is full{place}. Raise ray.object_store_gb, or lower ray.num_cpus.",
    "NodeDiedError": _NODE,
    "PreemptionError": _NODE,
    "LocalRayletDiedError": _HEAD,
    "RpcError": _HEAD,
    "RaySystemError": _HEAD,
    "ActorUnavailableError": "a worker process did not answer{place} ({line}).",
    "RayActorError": _LOST,
    "WorkerCrashedError": _LOST,
    "WorkerHealthCheckFailedError": _LOST,
    "ObjectLostError": _DATA,
    "RuntimeEnvSetupError": "the runtime environment of the job could not be set up{place} ({line}). Correct it.",
    "GetTimeoutError": "the cluster did not answer in time ({line}).",
    "WorkerHealthCheckTimeoutError": "training workers did not answer in time ({line}).",
    "ExecutionTimeoutError": "the cluster made no progress ({line}). See that its nodes are up (`ray status`).",
    "TaskUnschedulableError": _ROOM,
    "ActorUnschedulableError": _ROOM,
    "TaskPlacementGroupRemoved": _ROOM,
    "ActorPlacementGroupRemoved": _ROOM,
    "WorkerGroupStartupTimeoutError": _ROOM,
    "WorkerGroupStartupFailedError": _ROOM,
    "InsufficientClusterResourcesError": _ROOM,
    "AuthenticationError": "the cluster refused the token ({line}). Correct RAY_AUTH_TOKEN.",
    "TaskCancelledError": "the work was cancelled from outside ({line}).",
}
"""{class of Ray, Ray Data or Ray Train: what it means}, the particular before the general."""


def explained(error: BaseException, stage: str = "", *, look: Callable[[], str] | None = None) -> ChexrayError | None:
    """The expected error behind `error`, one line that says what happened, where, and what to do; None for a defect.

    stage: a key of LOWER. look: what this machine's memory is like, where the error does not say; tests pass another.
    """
    chain = list(causes(error))
    known = next(
        (each for each in chain if isinstance(each, ChexrayError) and "RayTaskError" not in _names(each)), None
    )
    if known is not None:
        return known
    happened = _happened(chain, LOWER.get(stage, LOWER[""]), look or memory_here)
    return ResourceError(f"{happened}{'' if happened.endswith('.') else '.'} {RESUMES}") if happened else None


def likely_cause(error: BaseException, *, look: Callable[[], str] | None = None) -> str:
    """What most likely ended a worker, as far as Ray says: of memory, how much was free and who used it. No advice."""
    look, chain = look or memory_here, list(causes(error))
    happened = _happened(chain, "", look).strip().rstrip(".")
    if happened.startswith(_LOST.partition("{")[0]) and (memory := look()):
        return f"{happened}; {memory}"
    return happened or f"{type(error).__name__}: {first_line(error, 160)}".rstrip(".")


def _happened(chain: list[BaseException], lower: str, look: Callable[[], str]) -> str:
    """What a machine or a cluster did, and what to lower where memory may have been short; "" where it did nothing."""
    if short := [each for each in chain if _lacks_memory(each)]:
        said = "\n".join(dict.fromkeys(filter(None, map(_told, [chain[0], *short]))))
        return f"out of memory{_memory(said, look)}. {lower}"
    for each in chain:
        said = _told(each)
        if meaning := _meaning(each, said):
            return meaning.format(place=_place(said), line=first_line(said, 160).rstrip("."), lower=lower)
    return ""


def is_of_others(error: BaseException) -> bool:
    """Whether memory ran out while a process that is not Ray's used the most: no image or task is to blame."""
    short = [_told(each) for each in causes(error) if _lacks_memory(each)]
    users = _users("\n".join(short))
    return bool(users) and not users[0].startswith("ray::")


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error and all that its wrappers hold: Ray's causes, failures of training workers, members of a group."""
    seen: list[BaseException] = []
    queue: list[object] = [error]
    while queue:
        current = queue.pop(0)
        if not isinstance(current, BaseException) or any(current is other for other in seen):
            continue
        seen.append(current)
        yield current
        inner = ("cause", "__cause__", "controller_failure", "health_check_failure", "_base_exc")
        queue += [getattr(current, name, None) for name in inner]
        workers = getattr(current, "worker_failures", None)
        queue += list(workers.values()) if isinstance(workers, dict) else []
        queue += list(current.exceptions) if isinstance(current, BaseExceptionGroup) else []


def _names(error: BaseException) -> list[str]:
    return [kind.__name__ for kind in type(error).__mro__]


def _told(error: BaseException) -> str:
    """What an error says. Of a task's error that is a traceback, whose last line counts, and the node it ran on."""
    text = str(error)
    if "RayTaskError" not in _names(error):
        return text
    node = re.search(r"\bip=([\w.:]*\w)", text)
    return f"{_last_line(text)}\nip: {node[1] if node else ''}"


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.strip().splitlines()) if line.strip()), "")


def _lacks_memory(error: BaseException) -> bool:
    names = _names(error)
    if isinstance(error, MemoryError) or "OutOfMemoryError" in names or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    if getattr(error, "actor_init_failed", False):  # its only trace is the text of what its constructor raised
        last = _last_line(str(error))
        return bool(re.match(r"[\w.]*MemoryError\b", last) or _LACKS_MEMORY.search(last))
    by_text = isinstance(error, _IN_MESSAGE) or "RayTaskError" in names
    return by_text and bool(_LACKS_MEMORY.search(_told(error).partition("\nip: ")[0]))


def _meaning(error: BaseException, said: str) -> str:
    """The sentence for one error of the chain; "" when it says nothing of a machine or a cluster."""
    if isinstance(error, OSError) and error.errno in _SYSTEM:
        return _SYSTEM[error.errno] + "{place} ({line})"
    if isinstance(error, RuntimeError) and "can't start new thread" in said:
        return _SYSTEM[errno.EAGAIN] + "{place}"
    if isinstance(error, RuntimeError | ConnectionError) and re.search(r"\b(GCS|gcs_server)\b", said):
        return _HEAD
    names = _names(error)
    if getattr(error, "actor_init_failed", False):
        return ""  # what its constructor raised is a defect, or was found above
    if "RayActorError" in names and re.search(r"\bnode (has )?(died|was)\b|\bpreempted\b", said):
        return _NODE
    return next((_CLUSTER[name] for name in _CLUSTER if name in names), "")


def _place(said: str) -> str:
    """` on 10.0.0.3` where the text names the node."""
    found = re.search(r"\bip(?: address)?[:=]\s*([\w.:]*[\w])", said, re.IGNORECASE)
    return f" on node {found[1]}" if found else ""


def _memory(said: str, look: Callable[[], str]) -> str:
    """Where memory ran out, how much was free of how much, and who used most; `look` where the error says none."""
    parts = [_place(said)]
    if asked := re.search(r"(?:tried to allocate|Unable to allocate) ([\d.]+ ?\w+)", said):
        parts.append(f", asking for {_bytes(asked[1])}")
    figures = ""
    if node := re.search(r"was ([\d.]+)GB used / ([\d.]+)GB limit", said):
        used, limit = float(node[1]), float(node[2])
        figures = f"{max(0.0, limit - used):.1f} of {limit:.1f} GB was free"
    elif card := re.search(r"(GPU \d+) has a total capacity of ([\d.]+ \w+) of which ([\d.]+ \w+) is free", said):
        figures = f"{card[3]} of {card[2]} of {card[1]} was free"
        if mine := re.search(r"this process has ([\d.]+ \w+) memory in use", said):
            figures += f", this process used {mine[1]}"
    if users := _users(said):
        figures += f"; most was used by {', '.join(users[:2])}"
    if not figures:
        figures = look()
    return "".join(parts) + (f": {figures}" if figures else "")


def _users(said: str) -> list[str]:
    """`name (GB)` of the largest processes, as Ray's memory monitor lists them."""
    _, found, table = said.partition("COMMAND\n")
    rows = [line.split("\t") for line in table.splitlines()] if found else []
    named = [(_program(row[2]), row[1]) for row in rows if len(row) == 3 and re.fullmatch(r"[\d.]+", row[1])]
    return [f"{name} ({float(used):.1f} GB)" for name, used in named]


def _program(command: str) -> str:
    """A process by its program and script, without paths and arguments, which may hold names or secrets."""
    if command.startswith("ray::"):
        return shown(command.split(" ")[0], 60)
    words = command.split()
    script = next((word for word in words[1:] if not word.startswith("-")), "")
    is_script = script.endswith(".py") or "python" in words[0] if words else False
    names = [PurePath(word).name for word in ([words[0], script] if is_script else words[:1]) if word]
    return shown(" ".join(names) or "?", 60)


def _bytes(amount: str) -> str:
    """`400000000000 b...` as GB; other amounts as they are."""
    number, _, unit = amount.partition(" ")
    return f"{int(number) / 1e9:,.1f} GB" if unit.startswith("byte") and number.isdigit() else amount


def memory_here() -> str:
    """How much memory is free on this machine now, and who uses most of it; "" where that cannot be known."""
    with suppress(Exception):
        import psutil  # pyright: ignore[reportMissingModuleSource]  # as Ray brings it

        memory = psutil.virtual_memory()
        every = [(each.info["memory_info"], each.info["name"]) for each in psutil.process_iter(["memory_info", "name"])]
        most, name = max((info.rss, name) for info, name in every if info)
        free = f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB is free on this machine now"
        return f"{free}; most is used by {shown(name, 60)} ({most / 1e9:.1f} GB)"
    return ""
