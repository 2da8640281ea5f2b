"""Fixtures of the suites' tests: one small world for all, and one calm run of it to compare others with."""

from __future__ import annotations

import pytest
from fixtures.classroom import Classroom, make_classroom
from fixtures.patients import World, make_world

from chexray import evaluate
from chexray.run.evaluation import Run


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def calm(ray_cluster, world: World) -> Run:
    """The plain privacy run of the world: pixels, held-out patients, pairs by prompt."""
    return evaluate(world.config(world.folder / "calm"))


@pytest.fixture(scope="session")
def classroom(tmp_path_factory: pytest.TempPathFactory) -> Classroom:
    return make_classroom(tmp_path_factory.mktemp("classroom"))


@pytest.fixture(scope="session")
def lesson(ray_cluster, classroom: Classroom) -> Run:
    """The plain utility run of the classroom, by one worker: every kind of setting, and all that can be asked for."""
    return evaluate(
        classroom.config(classroom.folder / "lesson", fractions=[0.25, 0.5], figures=True, tensorboard=True)
    )
