"""A pool that could not start is refused before it hangs."""

from __future__ import annotations

import pytest

from chexray.config import EncodeConfig
from chexray.engine.pools import Resources, plan_pool
from chexray.errors import ResourceError

LAPTOP = Resources(cpus=2, gpus=0, memory=16e9, nodes=1)
NODE = Resources(cpus=64, gpus=8, memory=500e9, nodes=2, joined=True)


def test_a_cpu_pool_never_books_every_cpu() -> None:
    for cpus in (1, 2, 3, 8, 64):
        pool = plan_pool(EncodeConfig(), Resources(cpus, 0, 1e12, 1), n_images=10**6)
        assert pool.actors * pool.cpus_per_actor < cpus
        assert pool.actors * pool.torch_threads <= cpus


def test_few_images_start_few_actors_with_more_threads() -> None:
    pool = plan_pool(EncodeConfig(), LAPTOP, n_images=10)
    assert (pool.actors, pool.torch_threads) == (1, 2)


def test_a_gpu_gets_one_actor_and_separate_decoding() -> None:
    pool = plan_pool(EncodeConfig(), NODE, n_images=75_649)
    assert (pool.device, pool.layout, pool.actors, pool.gpus_per_actor) == ("cuda", "split", 8, 1.0)


@pytest.mark.parametrize(
    ("config", "resources", "words"),
    [
        ({"device": "cuda"}, LAPTOP, "no GPU"),
        ({"actors": 3}, LAPTOP, "at most 2"),
        ({"actors": 9}, NODE, "one GPU each"),
        ({}, Resources(0, 0, 1e9, 1, joined=True), "at least 1 CPU"),
    ],
)
def test_what_cannot_start_is_refused_with_what_is_missing(config, resources, words) -> None:
    with pytest.raises(ResourceError, match=words):
        plan_pool(EncodeConfig(**config), resources, n_images=1000)
