"""What Ray raises for a machine or a cluster is one line with the next move; no defect is. Texts as Ray 2.60's."""

from __future__ import annotations

import errno
import pickle
import re

import pytest
import ray.exceptions as rays
from ray.data.exceptions import ExecutionTimeoutError
from ray.train.v2.api import exceptions as trains

from chexray.engine import failures
from chexray.engine.failures import explained
from chexray.errors import ResourceError, StorageError

NODE = "(IP: 10.0.0.7, ID: 34fb4dca08baf10d8d7b155c13d73d0df192d0df2f20687297a43c84)"
MONITOR = f"""1 worker(s) were killed due to the node running low on memory. Memory on the node {NODE} was 22.61GB \
used / 23.54GB limit (0.960493)
OOM kill reason: Memory usage 24278000000B exceeded threshold of 24013000000B (95.0% of 25276514304B limit)
Object store memory usage: [- objects spillable: 0
(global lru) num evictions: 0
Ray killed 1 worker(s) based on the killing policy
Considered workers: [
Selected to kill: (Actor(800a9e033d05e9e277f14b7e01000000): job ID=01000000, lease ID=0000, task name=\
TrainController.__init__, required resources={{}}, pid=18786, actual memory used=0.73GB, worker ID=cf1dd1b5)
]
To see more information about memory usage on this node, use `ray logs raylet.out -ip 10.0.0.7`
Top 10 memory users: PID\tMEM(GB)\tCOMMAND
4242\t14.80\t/opt/env/bin/python3 -u /home/mary.smith/study/train.py --api-key=SECRET...
18785\t2.11\tray::MapWorker(MapBatches(Encode))
18712\t0.07\tray::DashboardAgent
Refer to the documentation on how to address the out of memory issue: https://docs.ray.io/en/latest/ray-obs...html.
"""
DIED = """The actor died unexpectedly before finishing this task.
\tclass_name: RayTrainWorker
\tactor_id: b73d901f2f132e0c026aa1ee01000000
\tpid: 22963
\tnamespace: 1220e4e2-073b-448c-af91-b60abd3ec286
\tip: 10.0.0.7
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker \
unexpectedly exits with a connection error code 2. End of file. Some common causes include: (1) the process was killed \
by the OOM killer due to high memory usage, (2) ray stop --force was called, or (3) the worker crashed unexpectedly"""
NODE_DIED = """The actor died unexpectedly before finishing this task.
\tclass_name: MapWorker
\tip: 10.0.0.7
The actor died because its node has died. Node Id: 787bbbdd
\tthe actor's node was terminated unexpectedly: health check failed due to missing too many heartbeats"""
INIT = """The actor died because of an error raised in its creation task, ray::Encode.__init__() (pid=1, ip=10.0.0.7)
  File "/x/encode.py", line 28, in __init__
    self.network = load()
{last}"""
CUDA = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.14 GiB of which 1.10 GiB is "
    "free. Process 77 has 30.00 GiB memory in use. Including non-PyTorch memory, this process has 38.50 GiB memory in "
    "use."
)
TORCH = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "400000000000 bytes. Error code 12 (Cannot allocate memory)"
)


class CudaOutOfMemory(RuntimeError):
    """As torch.OutOfMemoryError is."""


def in_task(cause: Exception) -> BaseException:
    """As ray.get raises what a task raised: with the class of the cause, and the traceback as its text."""
    trace = f"\x1b[36mray::work()\x1b[39m (pid=5, ip=10.0.0.7)\n  File x, line 3\n{type(cause).__name__}: {cause}"
    return rays.RayTaskError("work", trace, cause, "ray::work", 5, "10.0.0.7").as_instanceof_cause()


def raised_from(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


def look() -> str:
    return "3.1 of 23.5 GB is free on this machine now; most is used by firefox (9.0 GB)"


SHORT = {
    "Ray's monitor killed a task or an actor": (rays.OutOfMemoryError(MONITOR), "on node 10.0.0.7: 0.9 of 23.5 GB was"),
    "a controller of a training": (trains.ControllerError(rays.OutOfMemoryError(MONITOR)), "0.9 of 23.5 GB was free"),
    "a worker of a training": (
        trains.WorkerGroupError("...", {0: RuntimeError("gloo"), 1: rays.OutOfMemoryError(MONITOR)}),
        "python3 train.py (14.8 GB), ray::MapWorker(MapBatches(Encode)) (2.1 GB)",
    ),
    "Ray Data wraps it": (raised_from(RuntimeError("failed"), rays.OutOfMemoryError(MONITOR)), "on node 10.0.0.7"),
    "numpy in a task": (in_task(MemoryError("Unable to allocate 728. TiB for an array")), "7, asking for 728. TiB"),
    "torch in a task": (in_task(RuntimeError(TORCH)), "on node 10.0.0.7, asking for 400.0 GB: 3.1 of 23.5 GB is free"),
    "a GPU": (in_task(CudaOutOfMemory(CUDA)), "1.10 GiB of 79.14 GiB of GPU 0 was free, this process used 38.50 GiB"),
    "the driver": (MemoryError(), "out of memory: 3.1 of 23.5 GB is free on this machine now; most is used by firefox"),
    "the driver, in C++": (RuntimeError("std::bad_alloc"), "out of memory: 3.1 of 23.5 GB"),
    "fork": (OSError(errno.ENOMEM, "Cannot allocate memory"), "out of memory: 3.1 of 23.5 GB"),
    "a constructor": (rays.RayActorError("a", INIT.format(last="MemoryError: no"), True), "on node 10.0.0.7: 3.1 of"),
    "a group": (ExceptionGroup("several", [ValueError("x"), MemoryError()]), "out of memory: 3.1 of 23.5 GB"),
}  # fmt: skip


@pytest.mark.parametrize("what", SHORT)
def test_out_of_memory_says_where_how_much_who_and_what_to_lower(what: str) -> None:
    error, words = SHORT[what]
    for stage, setting in (("encode", "encode.batch_size"), ("utility", "utility.batch_size"), ("", "ray.num_cpus")):
        told = explained(error, stage, look=look)
        assert isinstance(told, ResourceError)
        for part in ("out of memory", words, setting, "The same command resumes"):
            assert part in str(told)
        assert len(str(told).splitlines()) == 1
        assert not {"SECRET", "mary.smith", "\x1b", "Traceback"} & set(str(told).split())
        assert "SECRET" not in str(told)
        assert "mary" not in str(told)


def test_a_neighbour_is_told_from_our_own_work() -> None:
    ours = "\n".join(line for line in MONITOR.splitlines() if "train.py" not in line)
    assert failures.is_of_others(rays.OutOfMemoryError(MONITOR))
    assert not failures.is_of_others(rays.OutOfMemoryError(ours))
    assert not failures.is_of_others(MemoryError())


CLUSTER = {
    "a worker process": (rays.WorkerCrashedError(), "a worker process was lost, most often for lack of memory"),
    "an actor": (rays.RayActorError("a", DIED), "a worker process was lost on node 10.0.0.7, most often for lack of"),
    "a training worker": (trains.WorkerGroupError("x", {1: rays.RayActorError("a", DIED)}), "was lost on node 10"),
    "an actor's node": (rays.RayActorError("a", NODE_DIED), "a node of the cluster was lost on node 10.0.0.7"),
    "a preempted node": (rays.RayActorError("a", "The actor's node was preempted. ip: 10.0.0.7"), "a node of the"),
    "a node": (rays.NodeDiedError("Task failed because the node it was running on is dead. IP: 10.0.0.7"), "a node"),
    "an object": (rays.ObjectLostError("ab" * 14, None, ""), "data in Ray's memory was lost"),
    "an owner": (rays.OwnerDiedError("ab" * 14, None, ""), "data in Ray's memory was lost"),
    "the raylet": (rays.LocalRayletDiedError(), "no longer answers"),
    "a system error": (rays.RaySystemError("Broken pipe"), "no longer answers (System error: Broken pipe)"),
    "the head": (rays.RpcError("failed to connect to all addresses"), "the cluster's head, or Ray on this machine"),
    "the head, plainly": (RuntimeError("Failed to connect to GCS."), "the cluster's head"),
    "disk": (rays.OutOfDiskError("Local disk is full"), "the disk of Ray's temporary folder is full"),
    "store": (rays.ObjectStoreFullError("Failed to put object"), "Raise ray.object_store_gb"),
    "environment": (rays.RuntimeEnvSetupError("pip install failed"), "could not be set up (Failed to set up"),
    "an actor that hides": (rays.ActorUnavailableError("timed out", b"0" * 16), "did not answer"),
    "a placement": (rays.TaskPlacementGroupRemoved(), "no node of the cluster can hold the work any more"),
    "no place": (rays.ActorUnschedulableError("infeasible"), "infeasible"),
    "a cancelled task": (rays.TaskCancelledError(), "cancelled from outside"),
    "no progress": (ExecutionTimeoutError("no progress for 1800 s"), "no progress for 1800 s"),
    "a late answer": (rays.GetTimeoutError("Get timed out"), "did not answer in time"),
    "disk in a task": (in_task(OSError(errno.ENOSPC, "No space left on device", "/x")), "a disk is full"),
    "files": (OSError(errno.EMFILE, "Too many open files"), "ulimit -n"),
    "threads": (RuntimeError("can't start new thread"), "ulimit -u"),
    "a token": (rays.AuthenticationError("invalid token"), "RAY_AUTH_TOKEN"),
}  # fmt: skip


@pytest.mark.parametrize("what", CLUSTER)
def test_what_a_cluster_does_is_no_defect(what: str) -> None:
    error, words = CLUSTER[what]
    for each in (error, pickle.loads(pickle.dumps(error)) if what in ("the raylet", "a node") else error):
        told = explained(each, "encode", look=look)
        assert isinstance(told, ResourceError)
        assert words in str(told)
        assert "The same command resumes" in str(told)
        assert len(str(told).splitlines()) == 1


DEFECTS = {
    "a bug in the driver": ValueError("shapes do not match"),
    "a bug in a task": in_task(KeyError("column")),
    "a bug of a training worker": trains.WorkerGroupError("x", {0: AttributeError("no attribute 'x'")}),
    "a bug in a constructor": rays.RayActorError("a", INIT.format(last="TypeError: load() takes 1 argument"), True),
    "a file that is not there": FileNotFoundError(errno.ENOENT, "No such file", "/x"),
    "a bug that speaks of memory": ValueError("unable to allocate a row to a set"),
    "an error of the library": OSError("defect"),
}


@pytest.mark.parametrize("what", DEFECTS)
def test_a_defect_stays_one(what: str) -> None:
    assert explained(DEFECTS[what], "encode", look=look) is None


def test_an_error_of_ours_comes_back_as_itself() -> None:
    ours = StorageError("bucket: no such key")
    assert explained(ours) is ours
    assert explained(in_task(ours)) is ours
    assert explained(trains.WorkerGroupError("x", {0: RuntimeError("gloo"), 1: ours})) is ours


def test_this_machine_says_who_uses_its_memory() -> None:
    assert "GB is free on this machine now; most is used by " in failures.memory_here()


def test_every_name_is_one_of_ray() -> None:
    """A name that a later Ray has dropped would no longer be recognised."""
    from ray.train.v2._internal import exceptions as inner

    homes = (rays, trains, inner)
    unknown = [name for name in failures._CLUSTER if not any(hasattr(home, name) for home in homes)]
    assert unknown == ["ExecutionTimeoutError"]  # of Ray Data, used above


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (rays.OutOfMemoryError(MONITOR), "out of memory on node 10.0.0.7: 0.9 of 23.5 GB was free; most was used by"),
        (rays.RayActorError("a", DIED), f"a worker process was lost on node 10.0.0.7, most often .*; {look()}"),
        (rays.WorkerCrashedError(), f"a worker process was lost, most often for lack of memory .*; {look()}"),
        (rays.RayActorError("a", NODE_DIED), "a node of the cluster was lost on node 10.0.0.7 .*"),
        (ValueError("of ours"), "ValueError: of ours"),
    ],
)
def test_the_likely_cause_is_said_without_advice(error: BaseException, words: str) -> None:
    found = failures.likely_cause(error, look=look)
    assert re.match(words.replace("(9.0 GB)", r"\(9.0 GB\)"), found), found
    assert "The same command resumes" not in found
    assert "Lower" not in found
