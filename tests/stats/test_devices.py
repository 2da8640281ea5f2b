"""The same numbers wherever tiles are multiplied: the way to an accelerator, walked on a CPU under another name."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from chexray.engine.pools import Resources, gpu_share
from chexray.engine.reduce import _call_on_gpu
from chexray.engine.tasks import _guarded_on_gpu
from chexray.stats import tiles
from chexray.stats.kernels import Cubic, Gaussian, kernel_sums
from chexray.stats.manifolds import manifolds
from chexray.stats.nearest import nearest
from chexray.stats.neighbours import kth_neighbour
from chexray.stats.tiles import on_device, present_device, product

DEVICES = ["cpu:0", "cuda"]


@pytest.fixture(params=DEVICES)
def device(request, monkeypatch):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    monkeypatch.setattr(tiles, "MOVED_FROM_FLOP", 0.0)
    return request.param


@pytest.fixture(scope="module")
def sets():
    rng = np.random.default_rng(0)
    x, y = (rng.normal(shift, 1, (n, 24)).astype(np.float32) for shift, n in ((3.0, 150), (3.1, 130)))
    y[:5] = x[:5]  # copies: distance 0 exactly, wherever the products are
    return x, y


def test_the_device_is_that_of_the_innermost_block(device):
    assert present_device() == "cpu"
    with on_device(device):
        assert present_device() == device
        with on_device("cpu"):
            assert present_device() == "cpu"
        assert present_device() == device
    assert present_device() == "cpu"


def test_products_go_there_and_come_back(device, monkeypatch):
    moved = []
    to = torch.Tensor.to
    monkeypatch.setattr(
        torch.Tensor, "to", lambda self, *args, **more: (moved.append(args), to(self, *args, **more))[1]
    )
    x, y, out = torch.rand(6, 4), torch.rand(5, 4), torch.empty(6, 5)
    with on_device(device):
        assert product(x, y, out) is out
    assert moved == [(device,), (device,)]
    torch.testing.assert_close(out, x @ y.T)
    monkeypatch.setattr(tiles, "MOVED_FROM_FLOP", 1e9)
    with on_device(device):
        product(x, y, out)
    assert len(moved) == 2


@pytest.mark.parametrize("kernel", [Cubic(), Gaussian(2.0)])
def test_kernel_sums_are_the_same(device, sets, kernel):
    here = kernel_sums(*sets, kernel)
    with on_device(device):
        there = kernel_sums(*sets, kernel)
    for name in ("xx", "yy", "xy", "yx"):
        np.testing.assert_allclose(getattr(there, name), getattr(here, name), rtol=1e-5)


def test_neighbours_and_manifolds_are_the_same(device, sets):
    x, y = sets

    def found():
        radii = kth_neighbour(x, 3), kth_neighbour(y, 3)
        return (*radii, manifolds(x, y, *radii), nearest(x, y))

    here = found()
    with on_device(device):
        there = found()
    # Exact: what a product leaves in doubt is decided in float64.
    for a, b in zip(here[:2], there[:2], strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(here[2].in_real.count, there[2].in_real.count)
    np.testing.assert_array_equal(here[2].in_synthetic.count, there[2].in_synthetic.count)
    np.testing.assert_array_equal(here[2].distance, there[2].distance)
    np.testing.assert_array_equal(here[3].squared, there[3].squared)
    np.testing.assert_array_equal(here[3].row, there[3].row)
    assert (here[3].squared[:5] == 0).all()


def test_a_task_whose_torch_sees_no_gpu_multiplies_on_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert _guarded_on_gpu(present_device) == "cpu"
    assert _call_on_gpu(lambda item: (item, present_device()), 3) == (3, "cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert _guarded_on_gpu(present_device) == "cuda"
    assert present_device() == "cpu"


def cluster(gpus, nodes, grows=False):
    return Resources(16.0 * nodes, gpus, 0.0, nodes, grows=grows)


@pytest.mark.parametrize(
    ("resources", "share"),
    [
        (cluster(0, 1), 0.0),
        (cluster(1, 1), 1 / 8),
        (cluster(2, 4), 0.0),  # two nodes would stand idle
        (cluster(16, 4), 1 / 4),
        (cluster(4, 1, grows=True), 0.0),  # they may be handed back by now
    ],
)
def test_a_gpu_is_shared_by_few_tasks_and_used_where_every_node_has_one(resources, share):
    assert gpu_share(resources, int(resources.cpus)) == share
