"""What the soak takes for the same: values, not times; and for different: any other value, file or leftover."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from soak import _field


def a_run(folder: Path, value: float = 0.5, **more: object) -> Path:
    folder.mkdir(parents=True)
    rows = {"metric": ["fid"], "value": [value], "created_at": [str(folder)], "run_id": [folder.name], **more}
    pd.DataFrame(rows).to_parquet(folder / "results.parquet")
    (folder / "status.json").write_text(json.dumps({"state": "done"}))
    return folder


def test_times_and_names_may_differ_and_nothing_else(tmp_path):
    alone = a_run(tmp_path / "a")
    assert _field.differences(a_run(tmp_path / "b"), alone) == []
    assert _field.differences(a_run(tmp_path / "c", 0.5 + 1e-16 + 1e-15), alone) == ["results.parquet: ['value']"]
    other = a_run(tmp_path / "d")
    pd.DataFrame({"x": [1]}).to_parquet(other / "curves.parquet")
    (other / "errors.log").write_text("x")
    (other / "status.json").write_text(json.dumps({"state": "failed"}))
    assert len(_field.differences(other, alone)) == 3


def a_store(output: Path, value: float = 1.0) -> Path:
    part, fit = output / "features" / "pixels-1" / "part-0.parquet", output / "features" / "fits" / "ab"
    part.parent.mkdir(parents=True)
    fit.mkdir(parents=True)
    pd.DataFrame({"image_key": ["k"], "features": [[value, 2.0]]}).to_parquet(part)
    (fit / "model.safetensors").write_bytes(b"weights")
    pd.DataFrame({"image_key": ["k"], "logits": [[0.0] * 14]}).to_parquet(fit / "predictions-1.parquet")
    return output


@pytest.mark.parametrize("leftover", ["features/fits/ab/checkpoint.pt", "features/fits/ab/.model.tmp"])
def test_stores_are_compared_image_by_image_and_fit_by_fit(tmp_path, leftover):
    alone = a_store(tmp_path / "a")
    assert _field.store_differences(a_store(tmp_path / "b"), [alone]) == []
    assert _field.store_differences(a_store(tmp_path / "c", 1.5), [alone]) == ["other pixels-1/features of k"]
    (tmp_path / "b" / "features" / "fits" / "ab" / "model.safetensors").write_bytes(b"other weights")
    (tmp_path / "b" / leftover).write_bytes(b"")
    assert _field.store_differences(tmp_path / "b", [alone]) == ["other fits/ab", f"left over: {Path(leftover).name}"]
    (tmp_path / "b" / "features" / "fits" / "ab" / "model.safetensors").unlink()
    assert "missing fits/ab" in _field.store_differences(tmp_path / "b", [alone])


def test_a_process_that_a_run_leaves_is_seen_and_ended(monkeypatch):
    import os
    import subprocess
    import sys

    monkeypatch.setattr(_field, "GONE_S", 0)
    environment = {**os.environ, _field.MARK: f"test-{os.getpid()}"}
    code = "import sys; print(flush=True); sys.stdin.read()"
    child = subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    child.stdout.readline()
    assert _field.left_behind(f"test-{os.getpid()}") == [child.pid]
    assert child.wait(30) < 0
    assert _field.left_behind(f"test-{os.getpid()}") == []
