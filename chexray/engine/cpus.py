"""How many CPUs this process may use: what its affinity and its control groups leave of the machine's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath


def usable_cpus(root: str = "/") -> int:
    """CPUs of a local Ray where `ray.num_cpus` says nothing: those that the process may run on (taskset, Slurm, a
    container's cpuset), or the CPU quota rounded down where that is less; at least 1. A quota of half a CPU is one.

    Ray itself counts the CPUs of the machine, takes no notice of affinity, and rounds half a CPU down to none.
    Variables of a batch system are not read: they say what was asked for, and the affinity says what was given.
    root: where /proc and /sys are found.
    """
    try:
        cpus = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # not Linux
        cpus = os.cpu_count() or 1
    return max(1, int(min([cpus, *_quotas(Path(root))])))


def _quotas(root: Path) -> Iterator[float]:
    """The quota in CPUs of each control group around this process that has one, in both versions of the interface."""
    groups = root / "sys/fs/cgroup"
    for version, path in _memberships(root):
        places = [groups] if version == 2 else [groups / "cpu", groups / "cpu,cpuacct"]
        for place in places:
            # Within a container the files of its own group lie at the top, whatever its path outside is.
            for group in (path, *path.parents):
                folder = place / str(group).lstrip("/")
                with suppress(OSError, ValueError, ZeroDivisionError):
                    if version == 2:
                        quota, period = (folder / "cpu.max").read_text().split()
                    else:
                        quota = (folder / "cpu.cfs_quota_us").read_text()
                        period = (folder / "cpu.cfs_period_us").read_text()
                    # "max" is no number and -1 no quota.
                    if float(quota) > 0:
                        yield float(quota) / float(period)


def _memberships(root: Path) -> list[tuple[int, PurePosixPath]]:
    """(version, path) of the control groups that limit this process's CPUs; their tops where the file is missing."""
    found = []
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, _, rest = line.partition(":")
            controllers, _, path = rest.partition(":")
            if not controllers or "cpu" in controllers.split(","):
                # A group outside the container's view is shown as /../other.
                found.append((1 if controllers else 2, PurePosixPath("/") if ".." in path else PurePosixPath(path)))
    top = PurePosixPath("/")
    return [*found, *((version, top) for version in (1, 2) if version not in dict(found))]
