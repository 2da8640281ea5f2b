"""Random weights: one seed, one network, everywhere."""

from __future__ import annotations

import numpy as np
import pytest

from chexray.encoders.random_fill import digest, fill, uniform

SHAPES = {
    "a.weight": (8, 4),
    "b.conv.weight": (6, 3, 5, 5),
    "norm.weight": (9,),
    "norm.bias": (9,),
    "cls_token": (1, 1, 7),
}


def test_the_stream_is_frozen():
    """Golden: made by this code on 2026-11-22 from numpy's raw PCG64 stream, which NEP 19 freezes."""
    np.testing.assert_allclose(
        uniform(7, "a.weight", 3), [0.8168684924129985, 1.3017416465337934, 1.5112138698773043], rtol=1e-15
    )


def test_order_and_company_of_keys_do_not_matter():
    together = fill(SHAPES, 3)
    for name, shape in reversed(SHAPES.items()):
        np.testing.assert_array_equal(fill({name: shape}, 3)[name], together[name])


def test_seeds_and_keys_give_different_numbers():
    assert not np.allclose(fill(SHAPES, 3)["a.weight"], fill(SHAPES, 4)["a.weight"])
    one, other = fill({"x.weight": (4, 4), "y.weight": (4, 4)}, 3).values()
    assert not np.allclose(one, other)


def test_scales():
    values = fill({"w.weight": (400, 100), "c.weight": (64, 32, 3, 3), "n.weight": (4000,), "n.bias": (4000,)}, 0)
    assert values["w.weight"].std() == pytest.approx(0.1, rel=0.02)
    assert values["c.weight"].std() == pytest.approx((2 / 288) ** 0.5, rel=0.02)
    assert values["n.weight"].mean() == pytest.approx(1, abs=0.01)
    assert values["n.bias"].std() == pytest.approx(0.05, rel=0.05)
    assert all(value.dtype == np.float32 for value in values.values())


def test_digest_depends_on_seed_and_architecture():
    assert digest(1, {"width": 2, "depth": 3}) == digest(1, {"depth": 3, "width": 2})
    assert len({digest(1, {"width": 2}), digest(2, {"width": 2}), digest(1, {"width": 3})}) == 3
