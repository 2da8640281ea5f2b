"""The check of a GPU, on a CPU: what it would say there, in seconds; and that it needs neither Ray nor Parquet."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"ray", "pyarrow", "s3fs", "pydantic", "typer"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
"""


@pytest.mark.slow
def test_it_runs_with_torch_alone_and_writes_one_file(tmp_path):
    code = BLOCKED + (
        f"sys.path.insert(0, {str(ROOT / 'tests' / 'gpu')!r})\n"
        "import check\n"
        f"sys.exit(check.main(['--tiny', '--device', 'cpu', '--output', {str(tmp_path / 'check.json')!r}]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "check.json").read_text())
    assert found["machine"]["device"] == "cpu"
    by_section = {}
    for row in found["rows"]:
        assert row.get("right") is not False, row
        assert "skipped" not in row, row
        by_section.setdefault(row["section"], []).append(row["what"])
    assert by_section["encoders"] == ["rad_dino, cpu bf16"]
    assert [each.partition(",")[0] for each in by_section["speed"]] == [
        "rad_dino fp32", "rad_dino bf16", "rad_dino fp32 behind decoding",
    ]  # fmt: skip
    assert len(by_section["tiles"]) == 4
    assert f"{len(found['rows'])} rows in" in done.stdout


def test_a_budget_that_is_spent_is_a_row_and_a_section_that_does_not_exist_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "gpu"))
    from gpu import check

    out = tmp_path / "check.json"
    words = ["--tiny", "--device", "cpu", "--output", str(out)]
    assert check.main([*words, "--sections", "encoders", "--budget", "0"]) == 0
    assert [row["skipped"] for row in json.loads(out.read_text())["rows"]] == ["no time left"]
    with pytest.raises(SystemExit):
        check.main([*words, "--sections", "encoders,speeds"])
    assert "speeds; expected some of encoders, speed, tiles" in capsys.readouterr().err


def test_networks_and_mathematics_load_without_ray():
    folders = ("encoders", "stats")
    files = [f"chexray.{name}.{path.stem}" for name in folders for path in (ROOT / "chexray" / name).glob("[a-z]*.py")]
    assert len(files) > 40
    code = f"{BLOCKED}\nimport importlib\nfor name in {files}: importlib.import_module(name)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
