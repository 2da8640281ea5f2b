"""A plug-in edited between two runs is another encoder or metric: nothing that the old code computed is served."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from chexray.config import parse_config
from chexray.encoders.pixels import Pixels
from chexray.plan import make_plan
from chexray.plugins import code_of

ENCODER = '''
from chexray.encoders.pixels import Pixels
from shade_parts.tables import GAIN

class Shade(Pixels):
    """Greys times a gain."""
    name = "shade"

    def encode(self, batch):
        return {"features": GAIN * super().encode(batch)["features"]}
'''
METRIC = '''
from dataclasses import dataclass
from chexray.metrics.kid import KID

@dataclass(frozen=True)
class Twice(KID):
    """KID under another name."""
'''


class Plugin:
    """An installed distribution `shade`: a module, a package that it reads, and a metric, in a folder of sys.path."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.write("shade_encoder.py", ENCODER)
        self.write("shade_metric.py", METRIC)
        self.write("shade_parts/__init__.py", "")
        self.write("shade_parts/tables.py", "GAIN = 2.0\n")
        self.release("1.0", top="shade_encoder\nshade_metric\nshade_parts\n")

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def release(self, version: str, *, top: str = "", requires: str = "numpy") -> None:
        """Its metadata, as pip leaves them; top: the file setuptools writes, else RECORD says which modules it has."""
        about = self.folder / "shade.dist-info"
        about.mkdir(exist_ok=True)
        (about / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: shade\nVersion: {version}\nRequires-Dist: {requires}\n"
        )
        (about / "entry_points.txt").write_text(
            "[chexray.encoders]\nshade = shade_encoder:Shade\n[chexray.metrics]\ntwice = shade_metric:Twice\n"
        )
        (about / "top_level.txt").write_text(top)
        names = ["shade_encoder.py", "shade_metric.py", "shade_parts/__init__.py", "shade_parts/tables.py"]
        (about / "RECORD").write_text("".join(f"{name},,\n" for name in [*names, "shade.dist-info/METADATA"]))


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    found = Plugin(tmp_path / "site")
    monkeypatch.syspath_prepend(str(found.folder))
    before = set(sys.modules)
    yield found
    for name in set(sys.modules) - before:
        if name.startswith("shade"):
            del sys.modules[name]
    importlib.invalidate_caches()


def plan_of(tmp_path, write_images):
    real, synthetic = tmp_path / "real", tmp_path / "synthetic"
    if not real.exists():
        write_images("real", 4)
        write_images("synthetic", 4, seed=1)
    config = {"real": {"path": str(real)}, "synthetic": [{"path": str(synthetic)}], "encoders": ["shade"]}
    return make_plan(parse_config({**config, "metrics": ["twice"], "output": str(tmp_path / "out")}))


EDITS = {
    "its module": lambda plugin: plugin.write("shade_encoder.py", ENCODER.replace("GAIN *", "3 * GAIN *")),
    "a module that it imports": lambda plugin: plugin.write("shade_parts/tables.py", "GAIN = 5.0\n"),
    "a data file": lambda plugin: plugin.write("shade_parts/table.json", "[1]"),
    "its version": lambda plugin: plugin.release("1.1", top="shade_encoder\nshade_metric\nshade_parts\n"),
    "what it requires": lambda plugin: plugin.release("1.0", top="shade_encoder\nshade_parts\n", requires="scipy"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_encoder_has_another_fingerprint(plugin, tmp_path, write_images, edit):
    before, same = (plan_of(tmp_path, write_images) for _ in range(2))
    EDITS[edit](plugin)
    after = plan_of(tmp_path, write_images)
    first, again, last = (plan.encoders["shade"][1] for plan in (before, same, after))
    assert first.fingerprint == again.fingerprint != last.fingerprint
    assert before.run_id == same.run_id != after.run_id
    assert first.code.startswith("shade==1.0+")


def test_without_top_level_txt_the_record_names_the_modules(plugin):
    plugin.release("1.0")
    before = code_of("encoders", "shade")
    plugin.write("shade_parts/tables.py", "GAIN = 7.0\n")
    assert code_of("encoders", "shade") != before


def test_bytecode_and_hidden_files_do_not_count(plugin):
    before = code_of("encoders", "shade")
    plugin.write("shade_parts/__pycache__/tables.cpython-311.pyc", "x")
    plugin.write("shade_parts/.cache/x.py", "x")
    assert code_of("encoders", "shade") == before


def test_an_edited_metric_is_another_run_and_leaves_features_alone(plugin, tmp_path, write_images):
    plugin.release("1.0", top="shade_encoder\nshade_parts\n")
    before = plan_of(tmp_path, write_images)
    (plugin.folder / "shade_metric.py").write_text(METRIC + "\nCHANGED = True\n")
    after = plan_of(tmp_path, write_images)
    assert before.run_id != after.run_id
    assert before.code["twice"] != after.code["twice"]


def test_what_chexray_brings_is_known_by_its_code_version_alone():
    from chexray.registry import find, names

    assert {code_of("encoders", name) for name in ("pixels", "patches", "perceptual_hash")} == {""}
    assert {code_of("metrics", name) for name in names("metrics")} == {""}
    spec = find("encoders", "pixels")().resolve()
    assert spec.code == ""
    assert dataclasses.replace(spec, code="x==1+0").fingerprint != spec.fingerprint


RUN = """
import json, sys
from chexray import evaluate, parse_config
from chexray.results.rows import params_of
run = evaluate(parse_config(json.loads(sys.argv[1])), once=True)
row = run.results.iloc[0]
print(json.dumps([run.run_id, float(row["value"]), params_of(row)["note_encoder_cannot_see"]]))
"""


@pytest.mark.ray
def test_a_second_run_serves_nothing_of_the_old_code(plugin, tmp_path, write_images):
    """Through everything: entry point, store, `once`. Half the gain halves the features, and the numbers follow."""
    config = {
        "real": {"path": str(write_images("real", 6))},
        "synthetic": [{"path": str(write_images("synthetic", 6, seed=1))}],
        "encoders": ["shade"], "metrics": ["fid"], "subsets": ["all"], "output": str(tmp_path / "out"),
        "ray": {"num_cpus": 1, "object_store_gb": 0.2},
    }  # fmt: skip

    def run() -> tuple[str, float]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(plugin.folder), os.getcwd()])}
        for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
            environment.pop(name, None)
        done = subprocess.run(
            [sys.executable, "-c", RUN, json.dumps(config)], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        run_id, value, unseen = json.loads(done.stdout.splitlines()[-1])
        assert unseen == Pixels.cannot_see  # it travels with the numbers of whoever inherits it
        return run_id, value

    first, value = run()
    plugin.write("shade_parts/tables.py", "GAIN = 1.0  # half\n")
    second, halved = run()
    assert first != second
    assert halved == pytest.approx(value / 4, rel=1e-4)
