"""A folder that some nodes do not see is refused before anything is lost in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from chexray.engine import shared
from chexray.engine.pools import Resources
from chexray.engine.shared import check_shared
from chexray.errors import ResourceError
from chexray.storage import Storage

JOINED = Resources(cpus=2, gpus=0, memory=8e9, nodes=1, joined=True)


@pytest.fixture(autouse=True)
def _few(monkeypatch) -> None:
    monkeypatch.setattr(shared, "FEWEST", 1)


def test_a_folder_that_every_node_sees_is_left_as_it_was(ray_cluster, tmp_path: Path) -> None:
    check_shared(str(tmp_path / "features"), Storage(), JOINED)
    assert list((tmp_path / "features").iterdir()) == []


def test_a_node_with_another_disk_is_named(ray_cluster, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(shared, "_sees", lambda path: False)
    with pytest.raises(ResourceError, match=rf"{tmp_path}.* not seen by 1 of 1 nodes.*s3://"):
        check_shared(str(tmp_path), Storage(), JOINED)


def test_s3_and_a_ray_of_our_own_are_not_asked(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(shared, "_sees", lambda path: False)
    check_shared("s3://bucket/features", Storage(), JOINED)
    check_shared(str(tmp_path), Storage(), Resources(cpus=2, gpus=0, memory=8e9, nodes=1))
