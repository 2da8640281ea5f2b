"""Fixtures for encoder tests: formula images and weights of the parity oracles, small radiograph-like greys."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def private_cache(tmp_path, monkeypatch):
    """No test reads or fills the cache of whoever runs it."""
    monkeypatch.setenv("CHEXRAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.fixture(scope="session")
def oracles(shared) -> Path:
    return shared / "oracles" / "encoders"


@pytest.fixture(scope="session")
def formula(oracles) -> ModuleType:
    """The oracle's own definition of weights and images."""
    spec = importlib.util.spec_from_file_location("oracle_fill", oracles / "fill.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def oracle_state(oracles, formula):
    """A state dict in the official key names, filled by the oracle's formula."""
    import torch

    def state(name: str, conv_gain: float):
        manifest = json.loads((oracles / f"{name}_manifest.json").read_text())
        return {
            key: torch.from_numpy(formula.fill_array(key, item["shape"], conv_gain))
            if item["dtype"] == "float32"
            else torch.zeros(item["shape"], dtype=torch.long)
            for key, item in manifest.items()
        }

    return state


@pytest.fixture(scope="session")
def greys() -> list[np.ndarray]:
    """Five structured images of odd sizes, portrait, landscape, square, tiny and black."""
    images = []
    for index, (height, width) in enumerate([(131, 97), (90, 173), (112, 112), (7, 5)]):
        y, x = np.mgrid[:height, :width]
        wave = 120 + 60 * np.sin(x / (5 + 3 * index)) * np.cos(y / (9 - index)) + 0.4 * y + 11 * (index - 1)
        images.append(np.clip(wave, 0, 255).astype(np.uint8))
    return [*images, np.zeros((64, 48), np.uint8)]
