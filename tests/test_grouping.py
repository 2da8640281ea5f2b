"""Marks and groups follow from what a test uses, so that `make check` starts no Ray and a shared run is made once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from grouping import SUITES, group_of, pytest_collection_modifyitems, starts_ray


class Item:
    """A test of a file, with the fixtures that it uses."""

    def __init__(self, file: str, *fixtures: str):
        self.path, self.fixturenames, self.marks = Path(file), fixtures, dict[str, Any]()

    def add_marker(self, mark: str) -> None:
        self.marks[mark] = mark

    def get_closest_marker(self, name: str) -> object:
        return self.marks.get(name)


def test_a_test_that_uses_the_ray_of_the_session_is_marked() -> None:
    items: list[Any] = [Item(__file__, "tmp_path", "ray_cluster"), Item(__file__, "tmp_path")]
    using, pure = items
    pytest_collection_modifyitems(items)
    assert starts_ray(using)
    assert not starts_ray(pure)


def test_all_tests_of_this_session_that_use_it_are_marked(request: pytest.FixtureRequest) -> None:
    using = [item for item in request.session.items if "ray_cluster" in getattr(item, "fixturenames", ())]
    assert all(starts_ray(item) for item in using)
    assert not starts_ray(request.node)


def test_a_file_and_the_files_that_read_one_run_share_a_process() -> None:
    assert group_of(Path(__file__)) == __file__
    assert {group_of(SUITES / f"test_utility_{name}.py") for name in ("run", "again", "crashes")} == {"utility"}
    assert {group_of(SUITES / f"test_privacy_{name}.py") for name in ("files", "with_fidelity")} == {"privacy"}
