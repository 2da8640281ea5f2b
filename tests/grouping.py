"""Which tests start Ray, and which share a process of pytest-xdist. Both follow from the fixtures that a test uses.

`make check` leaves out what starts Ray (`ray`), starts a cluster of several nodes (`cluster`), simulates a rate
(`calibration`) or takes seconds for another reason (`slow`). A test that starts a Ray of its own is marked by hand.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Generator
from functools import cache
from pathlib import Path

import pytest

SUITES = Path(__file__).parent / "suites"
SHARED_RUNS = {"lesson": "utility", "calm": "privacy"}
"""{fixture: the group of the files that name it}: one process makes the finished run, and all of its tests read it."""
LONGEST_FIRST = ("utility", "privacy")
"""The groups that take longest. A group is started in this order, so that none of them is left alone at the end."""


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("numprocesses", None):
        # Threads of one process wait for those of another by spinning: on 2 cores 2 threads took 40 s, 1 thread 10.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    config.addinivalue_line("markers", "ray: starts Ray, or joins the one of the session (derived from the fixture)")
    config.addinivalue_line("markers", "cluster: starts a Ray cluster of several nodes")
    config.addinivalue_line("markers", "calibration: repeats an experiment many times to find a rate")
    config.addinivalue_line("markers", "slow: takes more than 2 s of a core without Ray")


@pytest.hookimpl(tryfirst=True)  # before pytest selects by `-m`
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "ray_cluster" in fixtures_of(item):
            item.add_marker("ray")
    if "PYTEST_XDIST_WORKER" in os.environ:
        order = {group: i for i, group in enumerate(LONGEST_FIRST)}
        items.sort(key=lambda item: order.get(group_of(item.path), len(order) + (not starts_ray(item))))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """That of `--dist loadfile`, for which the files of a shared run are one. (`--dist loadgroup` of pytest-xdist 3.8
    makes no groups under pytest 9.2.)"""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class ByGroup(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(config.rootpath / nodeid.partition("::")[0])

    return ByGroup(config, log)


@cache
def group_of(file: Path) -> str:
    """Tests of one group run in one process: those of a file, and of all files that name the same finished run."""
    words = set(re.findall(r"\w+", file.read_text())) if file.is_relative_to(SUITES) else set()
    return next((group for fixture, group in SHARED_RUNS.items() if fixture in words), str(file))


def fixtures_of(item: pytest.Item) -> list[str]:
    """Every fixture that the test uses, those of its fixtures among them."""
    return list(getattr(item, "fixturenames", ()))


def starts_ray(item: pytest.Item) -> bool:
    return any(item.get_closest_marker(name) for name in ("ray", "cluster"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """A test that leaves Ray running without the mark `ray` would run in `make check`."""
    was_running = _runs_ray()
    result = yield
    if _runs_ray() and not was_running and not starts_ray(item):
        pytest.fail("the test starts Ray: give it the mark `ray`")
    return result


def _runs_ray() -> bool:
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()
