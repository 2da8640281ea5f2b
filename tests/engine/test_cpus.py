"""A local Ray has the CPUs that this process may use: by affinity, and by the quota of each control group around it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from chexray.config import RayConfig
from chexray.engine import cpus, probing
from chexray.engine.cpus import usable_cpus

V1, V2 = "sys/fs/cgroup/cpu,cpuacct", "sys/fs/cgroup"


def machine(root: Path, files: dict[str, str], groups: str = "") -> str:
    """A folder that looks like / does to a process in these control groups."""
    if groups:
        files = {"proc/self/cgroup": groups, **files}
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return str(root)


def v1(group: str, quota: int, period: int = 100000) -> dict[str, str]:
    return {f"{V1}{group}/cpu.cfs_quota_us": f"{quota}\n", f"{V1}{group}/cpu.cfs_period_us": f"{period}\n"}


def v2(group: str, text: str) -> dict[str, str]:
    return {f"{V2}{group}/cpu.max": f"{text}\n"}


@pytest.mark.parametrize(
    ("files", "groups", "expected"),
    [
        ({}, "", 8),
        (v1("", 50000), "4:cpu,cpuacct:/docker/1f\n", 1),  # a container's view: its own files lie at the top
        (v1("", 150000), "", 1),
        (v1("", 400000), "", 4),
        (v1("", -1), "", 8),
        (v1("", 1000, 1000000), "", 1),
        (v1("", 100000, 0), "", 8),
        (v1("/slurm/job", 250000), "4:cpu,cpuacct:/slurm/job/step\n", 2),
        (v2("", "50000 100000"), "0::/\n", 1),
        (v2("", "max 100000"), "0::/\n", 8),
        (v2("", "350000 100000"), "0::/kubepods/pod1\n", 3),
        (v2("/a", "200000 100000") | v2("/a/b", "max 100000"), "0::/a/b/c\n", 2),
        (v2("/a", "600000 100000") | v2("/a/b", "300000 100000"), "0::/a/b\n", 3),
        (v2("/other", "100000 100000"), "0::/mine\n", 8),
        (v2("", "50000 100000"), "0::/../outside\n", 1),
        (v2("", "nonsense"), "0::/\n", 8),
        (v2("", "9900000 100000"), "0::/\n", 8),
    ],
)
def test_the_smallest_quota_rounded_down_but_never_none(tmp_path, monkeypatch, files, groups, expected) -> None:
    monkeypatch.setattr(cpus.os, "sched_getaffinity", lambda _: set(range(8)))
    assert usable_cpus(machine(tmp_path, files, groups)) == expected


@pytest.fixture
def one_cpu():
    """This thread may run on one CPU only, as under `taskset -c N`."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


def test_affinity_counts_and_the_setting_wins(one_cpu) -> None:
    assert usable_cpus() == 1
    assert probing.offered(RayConfig()).cpus == 1
    assert probing.offered(RayConfig(num_cpus=3)).cpus == 3
