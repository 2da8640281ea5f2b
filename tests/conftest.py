"""Fixtures shared by all tests: where the parity data lie, and one quiet local Ray for the session."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with oracles and real radiographs beside the checkout, or a skip that says so."""
    folder = Path(os.environ.get("CHEXRAY_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not (folder / "oracles").is_dir():
        pytest.skip(f"no parity data at {folder} (set CHEXRAY_SHARED)")
    return folder
