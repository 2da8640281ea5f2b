"""docs/PLUGINS.md is true: its files, run by the real command, give their numbers, encoder and source."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import yaml

from chexray.outputs import output_of
from chexray.registry import use, used, using
from chexray.results.reading import read_results
from chexray.results.rows import params_of

PAGE = Path(__file__).parents[1] / "docs" / "PLUGINS.md"


@pytest.fixture(autouse=True)
def _nothing_registered():
    """A command registers its files for the rest of its process, which here goes on with other tests."""
    yield
    use([])


def blocks() -> dict[str, str]:
    """{file name: text} of the page's Python blocks, whose first line names the file."""
    texts = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return {text.split("\n")[0].removeprefix("# "): text for text in texts}


def test_the_first_metric_has_five_lines():
    lines = blocks()["meandiff.py"].strip().split("\n")
    assert len([line for line in lines if line.strip() and not line.startswith("#")]) == 5


def test_every_example_keeps_to_the_contract(tmp_path):
    for name, text in blocks().items():
        (tmp_path / name).write_text(text)
    with using(sorted(tmp_path.glob("*.py"))):
        assert [file.name for file in used()] == [
            "hist.py", "meandiff.py", "meangap.py", "pairs_of_folders.py", "topshare.py",
        ]  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """A folder with the page's files, two folders of patients and a config."""
    import numpy as np
    from PIL import Image

    folder = tmp_path_factory.mktemp("page")
    for name, text in blocks().items():
        (folder / name).write_text(text)
    for side in ("real", "synthetic"):
        for patient in range(5):
            (folder / side / f"p{patient}").mkdir(parents=True)
            for number in range(2):
                rng = np.random.default_rng([len(side), patient, number])
                pixels = np.clip(rng.normal(110, 30, (24, 24)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / side / f"p{patient}" / f"{number}.png")
    config = {
        "real": {"source": "pairsoffolders", "path": "real", "name": "patients"},
        "synthetic": {"source": "pairsoffolders", "path": "synthetic", "name": "made"},
        "encoders": ["hist"], "metrics": ["kid", "meandiff", "meangap", {"name": "topshare", "k": 2}],
        "output": "out",
    }  # fmt: skip
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    return folder


def test_the_examples_run_by_the_command(ray_cluster, study, monkeypatch, capsys):
    """One real run: the workers, which have no such files on their path, get the classes by their bytes."""
    from chexray.cli import main

    flags = [word for name in blocks() for word in ("--plugin", name)]
    monkeypatch.chdir(study)
    monkeypatch.setattr(sys, "argv", ["chexray", "run", "run.yaml", *flags])
    with pytest.raises(SystemExit) as end:
        main()
    out = capsys.readouterr()
    assert end.value.code == 0, out.err
    assert "mean_diff" in out.out
    (run,) = (study / "out").glob("run-*")
    frame = read_results(run)
    rows = {row["metric"]: row for _, row in frame.iterrows()}
    assert set(rows) == {"kid", "mean_diff", "mean_gap", "top_share", "top_share_real"}
    assert (frame["encoder"] == "hist").all()
    assert (frame["n_real"] == 10).all()
    assert rows["mean_diff"]["better"] == "lower"
    assert rows["mean_diff"]["value"] > 0
    params = params_of(rows["top_share"])
    assert params["k"] == 2
    assert params["plugin"].startswith("topshare.py+")
    assert params["encoder_plugin"].startswith("hist.py+")
    gap = rows["mean_gap"]
    assert gap["ci_low"] < gap["value"] < gap["ci_high"]
    assert gap["real_floor"] > 0
    assert output_of(gap).moves_with == ("n_real", "n_synthetic")
    names = json.loads((run / "run.json").read_text())["plugins"]
    assert set(names) == {"hist", "meandiff", "meangap", "topshare", "source pairsoffolders"}
    config = (run / "config.yaml").read_text()
    assert all(f"# plug-in {name}: {code}" in config for name, code in names.items())
    assert "# runs again with --plugin" in config
    assert "plugin" not in yaml.safe_load(config)


def test_a_function_that_a_metric_hands_to_the_mapper_reaches_the_workers(ray_cluster, tmp_path):
    """Large cells are cut into tasks, each in a process that may not have loaded the file."""
    import numpy as np

    from chexray.engine.reduce import RayMapper

    (tmp_path / "tiles.py").write_text(
        "import numpy as np\n"
        "SCALE = 3\n"
        "def _scaled(x): return SCALE * x\n"
        "def tile(part, values): return float(_scaled(np.sum(values[part])))\n"
        "class Tiles:\n"
        '    reads, outputs = "features", ("tiles",)\n'
        "    def compute(self, real, synthetic): return 0.0\n"
    )
    with using([tmp_path / "tiles.py"]) as (file,):
        tile = file.module().tile
    assert list(RayMapper(2)(tile, [slice(0, 2), slice(2, 4)], np.arange(4.0))) == [3.0, 15.0]
