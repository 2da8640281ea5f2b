"""The part of `make bench` that can be wrong rather than slow: chexray's values against other libraries'."""

from __future__ import annotations

from pathlib import Path

import pytest

if not Path("/proc/self/stat").exists():
    pytest.skip("the bench accounts for CPU time through /proc", allow_module_level=True)


@pytest.mark.ray
def test_every_value_of_a_run_agrees_with_the_unsharded_computation_by_other_libraries() -> None:
    from bench import upstream_bench

    report = upstream_bench.run("tiny", timing=False)
    assert report.agrees, report.text
    assert "rad_dino fid" in report.text
    assert "inception_v3 inception_score" in report.text


def test_the_reference_fid_is_torchmetrics_own_where_that_is_exact() -> None:
    import numpy as np
    import torch
    from bench.agreement import exact_fid
    from torchmetrics.image.fid import _compute_fid

    rng = np.random.default_rng(0)
    real, synthetic = rng.normal(size=(200, 8)), rng.normal(0.3, 1.2, size=(150, 8))
    x, y = torch.from_numpy(real), torch.from_numpy(synthetic)
    theirs = float(_compute_fid(x.mean(0), torch.cov(x.T), y.mean(0), torch.cov(y.T)))
    assert exact_fid(real, synthetic) == pytest.approx(theirs, rel=1e-9)


def test_the_end_to_end_row_says_how_far_a_precision_moves_values_in_their_errors() -> None:
    from types import SimpleNamespace

    from bench.end_to_end import _moved

    def run(*rows: tuple[str, float | None, float | None]) -> SimpleNamespace:
        found = [{"encoder": "e", "metric": name, "value": value, "std_error": error} for name, value, error in rows]
        return SimpleNamespace(result={"rows": found})

    exact = run(("fid", 50.0, 2.0), ("kid", 0.3, 0.01), ("is", None, None), ("recall", 0.5, None))
    moved = run(("fid", 50.1, 2.0), ("kid", 0.2991, 0.01), ("is", None, None), ("recall", 0.9, None))
    assert _moved(moved, exact) == (pytest.approx(0.09), "e kid")  # type: ignore[arg-type]
