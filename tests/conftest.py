"""Fixtures shared by all tests: where the parity data lie, and one quiet local Ray for the session."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import hypothesis
import pytest
from fixtures.pickled import pickled_column  # noqa: F401 (fixture)
from fixtures.s3 import faulty_s3, s3, s3_server  # noqa: F401 (fixtures)
from grouping import (  # noqa: F401 (hooks)
    pytest_collection_modifyitems,
    pytest_configure,
    pytest_runtest_call,
    pytest_xdist_make_scheduler,
)
from leftovers import pytest_sessionfinish, pytest_terminal_summary, pytest_testnodedown  # noqa: F401 (hooks)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with oracles and real radiographs beside the checkout, or a skip that says so."""
    folder = Path(os.environ.get("CHEXRAY_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not (folder / "oracles").is_dir():
        pytest.skip(f"no parity data at {folder} (set CHEXRAY_SHARED)")
    return folder


# How long an example takes says something of the machine, not of the law.
hypothesis.settings.register_profile(
    "any_machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any_machine")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def ray_cluster():
    """One quiet local Ray for all tests that need one; `evaluate` joins it because it is already connected."""
    from chexray.config import RayConfig
    from chexray.engine.cluster import cluster

    with cluster(RayConfig(num_cpus=2, object_store_gb=0.5)) as resources:
        yield resources


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    """Runs the `chexray` command in this process: (its words, the folder it is run in) to (exit code, output, errors).

    Seconds faster than a process of its own, for tests of what it says rather than of how it starts and ends.
    """
    from chexray.cli import main

    def run(*words: object, at: Path) -> tuple[object, str, str]:
        monkeypatch.chdir(at)
        monkeypatch.setattr(sys, "argv", ["chexray", *map(str, words)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        said = capfd.readouterr()
        return end.value.code, said.out, said.err

    return run


@pytest.fixture
def write_images(tmp_path: Path):
    """Writes n small deterministic greyscale PNGs to a folder and returns it."""
    import numpy as np
    from PIL import Image

    def write(name: str, n: int, *, seed: int = 0, size: int = 24, offset: float = 0.0) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True, exist_ok=True)
        ramp = np.linspace(0, 1, size)
        for i in range(n):
            rng = np.random.default_rng([seed, i])
            blob = rng.normal(size=(4, 4)).repeat(size // 4, 0).repeat(size // 4, 1)
            image = 110 + offset + 40 * ramp[:, None] + 12 * blob + 4 * rng.normal(size=(size, size))
            Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(folder / f"{i:04d}.png")
        return folder

    return write
