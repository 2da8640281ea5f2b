"""A seeded slice of mutated images: each is (height, width) uint8 or a Reject, in silence and in bounded time."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from fixtures import hostile_images as hostile

from chexray.data.images import Reject, decode

EACH = 30
INTERESTING = [0, 1, 0x7F, 0x80, 0xFF]


def seeds() -> dict[str, bytes]:
    """Valid files of every format, and the hostile ones that are small."""
    dicoms = {name: data for name, (data, _) in hostile.dicoms().items() if len(data) < 20_000}
    files = {name: data for name, (data, _) in hostile.files().items() if len(data) < 20_000}
    return {**hostile.honest(), **dicoms, **files}


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """`data` with bytes changed, cut out, repeated, or its end cut off; headers are hit more often than pixels."""
    broken = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        reach = len(broken) if rng.random() < 0.4 else min(len(broken), 600)
        at = int(rng.integers(0, max(1, reach)))
        kind = rng.integers(6)
        if kind <= 2:
            size = int(rng.integers(1, 5))
            new = rng.choice(INTERESTING, size) if kind else rng.integers(0, 256, size)
            broken[at : at + size] = bytes(int(value) for value in new)
        elif kind == 3:
            del broken[at : at + int(rng.integers(1, 40))]
        elif kind == 4:
            broken[at:at] = broken[at : at + int(rng.integers(1, 400))] * int(rng.integers(1, 5))
        elif rng.random() < 0.3:
            del broken[at:]
    return bytes(broken)


SEEDS = seeds()


@pytest.mark.parametrize("name", SEEDS)
def test_a_mutated_image_is_an_image_or_a_reject(name, capfd, caplog):
    rng = np.random.default_rng(sum(name.encode()))
    data = SEEDS[name]
    inputs = [mutated(data, rng) for _ in range(EACH)]

    def judged(broken: bytes) -> float:
        start = time.process_time()
        found = decode(broken, max_pixels=1_000_000)
        if isinstance(found, Reject):
            assert found.detail.isprintable()
            assert len(found.detail) <= 500
        else:
            assert found.dtype == np.uint8
            assert found.ndim == 2
            assert found.size <= 1_000_000
        return time.process_time() - start

    with ThreadPoolExecutor(4) as pool:
        assert max(pool.map(judged, inputs)) < 20
    assert capfd.readouterr() == ("", "")
    assert caplog.text == ""
