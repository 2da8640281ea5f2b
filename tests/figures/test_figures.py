"""Figures: one set of files for each synthetic set, the same bytes each time, and names that stay names."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import matplotlib
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from chexray.errors import MetricError
from chexray.figures import figure_files
from chexray.figures.lines import Line, epochs_of, lines_of, settings_of
from chexray.figures.means import mean_line
from chexray.figures.names import LONGEST, file_stems, shown
from chexray.figures.style import line_styles
from chexray.findings import FINDINGS

GOOD, POOR = "phantom-good@1a2b3c4d", "phantom-poor@5e6f7a8b"


def points(setting: str, synthetic_set: str, kind: str, subset: str, seed: int = 0, value: float = 0.75) -> list[dict]:
    xy = {
        "roc": [(0, 0), (0.1, 0.6), (1, 1)],
        "precision_recall": [(0.2, 1), (0.6, 0.5), (1, 0.2)],
        "reliability": [(0.05, 0.1), (0.5, 0.4)],
    }
    bounds = {"low": 0.0, "high": 0.6} if kind == "reliability" else {"low": None, "high": None}
    fixed = {"setting": setting, "synthetic_set": synthetic_set, "kind": kind, "subset": subset, "seed": seed, **bounds}
    return [{**fixed, "x": x, "y": y, "n": 40, "n_positive": 8, "value": value} for x, y in xy[kind]]


def curves(*pairs: tuple[str, str], kinds=("roc",), subsets=("finding:Edema", "all"), seeds=(0,)) -> pa.Table:
    rows = [
        point
        for setting, name in pairs
        for kind in kinds
        for subset in subsets
        for seed in seeds
        for point in points(setting, name, kind, subset, seed)
    ]
    return pa.Table.from_pylist(rows)


def history(*pairs: tuple[str, str], epochs: int = 3) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {
                "setting": setting,
                "synthetic_set": name,
                "seed": 0,
                "phase": 0,
                "epoch": epoch,
                "loss": 1.0 / (1 + epoch),
                "val_loss": 0.9,
                "val_auroc": None if epoch == 0 else 0.8,
            }
            for setting, name in pairs
            for epoch in range(epochs)
        ]
    )


def texts(svg: bytes) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.slow
def test_every_synthetic_set_has_its_figures_and_real_stands_in_all() -> None:
    table = curves(("real", ""), ("synthetic", GOOD), ("synthetic", POOR), kinds=("roc", "reliability"))
    files = figure_files(table, history(("real", ""), ("synthetic", GOOD)), title="resnet50, tested on real_test")
    stems = {f"{kind}-{name}" for kind in ("roc", "reliability", "loss") for name in ("good-1a2b3c4d", "poor-5e6f7a8b")}
    wanted = {f"{stem.replace('-', '-phantom-', 1)}.{ending}" for stem in stems for ending in ("png", "svg")}
    assert set(files) == wanted
    words = texts(files["roc-phantom-good-1a2b3c4d.svg"])
    assert {"real", "synthetic", "Edema", "All findings pooled", "0.750", "8 positive of 40"} <= set(words)
    assert any(GOOD in text and "resnet50" in text for text in words)
    assert not any(POOR in text for text in words)
    assert sum(text.startswith("not both classes") for text in words) == len(FINDINGS) - 1
    image = Image.open(io.BytesIO(files["roc-phantom-good-1a2b3c4d.png"]))
    assert image.size[0] > 1000


def test_real_alone_has_plain_file_names_and_no_history_no_loss_figure() -> None:
    assert set(figure_files(curves(("real", "")))) == {"roc.png", "roc.svg"}
    assert figure_files(curves(("real", "")).slice(0, 0), pa.table({"setting": pa.array([], pa.string())})) == {}
    assert set(figure_files(curves(("real", "")).slice(0, 0), history(("real", "")))) == {"loss.png", "loss.svg"}


@pytest.mark.slow
def test_equal_tables_give_equal_bytes_and_no_rule_of_the_user_matters() -> None:
    table = curves(("real", ""), ("synthetic", GOOD), kinds=("precision_recall",))
    first = figure_files(table)
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "red", "svg.fonttype": "path"}):
        again = figure_files(table)
        assert matplotlib.rcParams["font.size"] == 20
    assert first == again
    svg = first["precision_recall-phantom-good-1a2b3c4d.svg"]
    assert b"<dc:date>" not in svg
    assert not re.search(rb"20[2-9]\d-\d\d-\d\d", svg)


@pytest.mark.parametrize(
    "name", ["$x_1$ & <b>@12", "a\x00b\x1b[31m\n../../etc@12", "\u202egnp.eteled", "日本", "_private"]
)
def test_names_stay_names(name: str) -> None:
    files = figure_files(
        curves(("real", ""), ("synthetic", name)), history(("synthetic", name)), title="$\\frac{1}{2}$"
    )
    assert all(re.fullmatch(r"(roc|loss)-[A-Za-z0-9._-]+\.(png|svg)", file) and ".." not in file for file in files)
    svg = next(content for file, content in files.items() if file.startswith("roc") and file.endswith("svg"))
    head = next(text for text in texts(svg) if "frac" in text)
    assert "$\\frac{1}{2}$" in head
    assert shown(name) in head


def test_file_names_of_different_sets_differ_whatever_the_disk() -> None:
    names = ["Good@1", "good@1", "a/b", "a b", "x" * 200, "x" * 201, "..", "good@2"]
    stems = file_stems(names)
    assert len({stem.lower() for stem in stems}) == len(names)
    assert stems[-1] == "good-2"
    assert all(0 < len(stem) < 100 and not stem.startswith(".") for stem in stems)
    assert len(shown("x" * 200)) == LONGEST


def test_settings_keep_their_order_and_each_its_own_line() -> None:
    found = ["as_is", "mixed", "zzz", "augmented", "mixed_100", "real", "mixed_10", "pretrain_synthetic_finetune_real"]
    lines = lines_of(curves(*((setting, "") for setting in found)))
    order = settings_of(lines)
    assert order == [
        "real", "mixed_10", "mixed", "mixed_100", "augmented", "pretrain_synthetic_finetune_real", "as_is", "zzz",
    ]  # fmt: skip
    styles = line_styles(order)
    assert len({(style["color"], str(style["linestyle"])) for style in styles.values()}) == len(order)
    assert styles["real"] == line_styles(["synthetic", "real"])["real"]


def line(kind: str, x: list[float], y: list[float], n: list[int], value: float) -> Line:
    array = np.array(x), np.array(y), np.zeros(len(x)), np.ones(len(x)), np.array(n)
    return Line("real", "", kind, "all", 0, *array, n_positive=4, value=value)


def test_several_trainings_are_drawn_as_their_mean() -> None:
    perfect = line("roc", [0, 0, 1], [0, 1, 1], [9, 9, 9], 1.0)
    chance = line("roc", [0, 1], [0, 1], [9, 9], 0.5)
    assert mean_line([perfect]) is perfect
    both = mean_line([perfect, chance])
    assert both.value == 0.75
    np.testing.assert_allclose(both.y, (1 + both.x) / 2)
    assert np.isnan(both.low).all()

    steps = line("precision_recall", [0.5, 1.0], [1.0, 0.2], [9, 9], 0.6)
    averaged = mean_line([steps, replace(steps, y=np.array([0.8, 0.4]))])
    np.testing.assert_allclose(averaged.y[averaged.x <= 0.5], 0.9)
    np.testing.assert_allclose(averaged.y[averaged.x > 0.5], 0.3)

    bins = line("reliability", [0.05, 0.95], [0.0, 1.0], [30, 10], 0.1)
    other = line("reliability", [0.04, 0.5], [0.2, 0.5], [10, 4], 0.3)
    merged = mean_line([bins, other])
    np.testing.assert_allclose(merged.x, [(0.05 * 30 + 0.04 * 10) / 40, 0.5, 0.95])
    np.testing.assert_allclose(merged.y, [2 / 40, 0.5, 1.0])
    assert merged.n.tolist() == [20, 2, 5]


@pytest.mark.slow
def test_several_trainings_and_odd_histories_draw() -> None:
    pairs = [("real", ""), ("synthetic", GOOD)]
    table = curves(*pairs, kinds=("roc", "precision_recall", "reliability"), seeds=(0, 1))
    one = history(*pairs, epochs=1)
    unknown = one.set_column(one.column_names.index("loss"), "loss", pa.nulls(len(one), pa.float64()))
    files = figure_files(table, unknown)
    assert len(files) == 8
    assert any("means over 2 trainings" in text for text in texts(files["roc-phantom-good-1a2b3c4d.svg"]))


def test_epochs_are_sorted_by_phase_then_epoch() -> None:
    rows = history(("real", "")).to_pylist()
    mixed = [{**rows[1], "phase": 1, "loss": 5.0}, rows[2], rows[0]]
    (run,) = epochs_of(pa.Table.from_pylist(mixed))
    assert run.phase.tolist() == [0, 0, 1]
    assert run.loss.tolist() == [1.0, 1 / 3, 5.0]
    assert np.isnan(run.val_auroc[0])


def test_a_table_without_a_column_says_which() -> None:
    with pytest.raises(MetricError, match="no column n, value"):
        figure_files(curves(("real", "")).drop_columns(["value", "n"]))
