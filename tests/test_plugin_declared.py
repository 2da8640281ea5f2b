"""What a plug-in declares of its numbers decides how they are compared, marked and explained, as it does for ours."""

from __future__ import annotations

import importlib
import re
import sys
from typing import Any

import numpy as np
import pytest
from results.privacy_rows import text_of
from test_plugin_page import blocks

from chexray.config import parse_config
from chexray.contract import problem
from chexray.metrics.base import Output, Rows
from chexray.metrics.plugged import ASSUMED
from chexray.outputs import output_of
from chexray.plan import Plan, make_plan
from chexray.results.decisions import decide
from chexray.results.reading import read_results
from chexray.results.rows import params_of, write
from chexray.storage import Storage
from chexray.suites.common import score_row

BARE = """
class Bare:
    reads, outputs, better = "features", ("bare_gap",), "lower"

    def compute(self, real, synthetic):
        return ((real.mean(0) - synthetic.mean(0)) ** 2).sum()
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed distribution `gaps` with two metrics: that of the page, and one that declares nothing."""
    site = tmp_path / "site"
    (site / "gaps.dist-info").mkdir(parents=True)
    (site / "gaps.py").write_text(blocks()["meangap.py"] + BARE)
    (site / "gaps.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: gaps\nVersion: 1.0\n")
    (site / "gaps.dist-info" / "entry_points.txt").write_text(
        "[chexray.metrics]\nmeangap = gaps:MeanGap\nbare = gaps:Bare\n"
    )
    (site / "gaps.dist-info" / "RECORD").write_text("gaps.py,,\ngaps.dist-info/METADATA,,\n")
    monkeypatch.syspath_prepend(str(site))
    yield
    sys.modules.pop("gaps", None)
    importlib.invalidate_caches()


@pytest.fixture
def plan(package, tmp_path, write_images) -> Plan:
    folders = {name: str(write_images(name, 4, seed=i)) for i, name in enumerate(("real", "near", "far"))}
    return make_plan(
        parse_config(
            {
                "real": {"path": folders["real"]},
                "synthetic": [{"path": folders[name], "name": name} for name in ("near", "far")],
                "encoders": ["pixels"],
                "metrics": ["meangap", "bare"],
                "output": str(tmp_path / "out"),
            }
        )
    )


def images(n: int, shift: float, seed: int) -> Rows:
    x = np.random.default_rng(seed).normal(shift, 1, (n, 8)).astype(np.float32)
    return Rows(np.array([f"i{i:04d}" for i in range(n)]), x)


def rows_of(plan: Plan, n_near: int = 200, n_far: int = 200) -> dict[str, dict[str, dict[str, Any]]]:
    """{metric: {set: its row}} as a run writes them, of features near to the real ones and far from them."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for position, (n, shift) in enumerate(((n_near, 0.15), (n_far, 0.9))):
        manifest = plan.synthetic[position]
        for metric in plan.metrics.values():
            (score,) = metric.score(images(200, 0.0, 1), images(n, shift, 2 + position))
            found.setdefault(score.metric, {})[manifest.name] = score_row(
                plan, score, suite="fidelity", real=plan.real, synthetic=manifest, n_real=200, n_synthetic=n,
                n_rejected=0, created_at="2026-01-02T03:04:05Z", encoder="pixels",
            )  # fmt: skip
    return found


def test_a_number_that_moves_with_n_wins_at_equal_n_alone(plan):
    equal, unequal = rows_of(plan)["mean_gap"], rows_of(plan, n_far=100)["mean_gap"]
    assert decide(equal).text == "better: near"
    text = "not comparable: n differs (n_synthetic 200 against 100), and mean_gap depends on n"
    assert decide(unequal).text == text
    free = {name: {**row, "declared": "{}"} for name, row in unequal.items()}
    assert decide(free).text == "better: near"  # the declaration alone decides


def test_it_is_starred_floored_and_explained_like_ours(plan, tmp_path):
    found = rows_of(plan)["mean_gap"]
    assert found["near"]["real_floor"] == pytest.approx(8 * 2 / 200, rel=0.2)
    assert found["far"]["beyond_floor"] == "worse"
    write(str(tmp_path), found.values(), Storage())
    for name in ("results.parquet", "results.csv", "results.json"):
        row = read_results(tmp_path / name).iloc[0]
        output = output_of(row)
        assert (output.needs_floor, output.low, output.family) == (True, 0.0, "fidelity")
        assert output.says == "How far apart the means of real and synthetic features are."
    text = text_of(list(found.values()), 120)
    assert re.search(r"0\.180\* ", text)
    assert "0.0814" in text  # the floor


def test_what_declares_nothing_is_taken_to_move_with_n(plan):
    row = rows_of(plan)["bare_gap"]["near"]
    assert output_of(row).moves_with == ("n_real", "n_synthetic")
    assert params_of(row)["note"] == ASSUMED
    assert decide(rows_of(plan, n_far=100)["bare_gap"]).text.startswith("not comparable: n differs")


def test_a_declaration_of_another_kind_is_refused():
    class Metric:
        reads = "features"
        outputs = (Output("gap", moves_with="n_real"),)

        def compute(self, real, synthetic):
            return 0.0

    assert problem("metrics", Metric) == (
        "has the output 'gap', of which moves_with is 'n_real', expected a list of text"
    )
