"""Utility rows beside those of another run: what is method, what is outcome, and whose the baseline is."""

from __future__ import annotations

import io

import pandas as pd
import pytest
from results.utility_rows import GOOD, POOR, everything, faithfulness, row, trained
from rich.console import Console

from chexray.report.comparison import render_compare
from chexray.results.aligned import compare
from chexray.results.decisions import decide, method_params
from chexray.results.legacy import upgraded


def several(rows):
    """The rows as of three trainings each; of one, no run is better than another."""
    return [{**each, "params": each["params"] | {"seeds": 3}} for each in rows]


def verdict(*rows):
    return decide(dict(zip("ABC", map(upgraded, several(rows)), strict=False))).text


def test_of_one_training_each_no_run_is_better():
    apart = {"A": upgraded(macro(0.9)), "B": upgraded(macro(0.7))}
    assert decide(apart).text == "unknown: intervals of one training each hold no spread between trainings"
    assert verdict(macro(0.9), macro(0.7)) == "better: A"
    assert decide({"A": upgraded(macro(0.9)), "B": upgraded(macro(0.89))}).text == "tie (intervals overlap)"


def macro(value, **changes):
    params = {"setting": "synthetic"} | changes.pop("params", {})
    return row("auroc_macro", value, **({"synthetic_set": GOOD} | changes), params=params)


def test_outcomes_of_a_training_do_not_keep_it_from_being_compared():
    outcome = {"seeds": 3, "seed_std": 0.02, "n_train_synthetic": 399, "n_positive": 3, "n_findings": 11}
    outcome |= {
        "budget": "images",
        "n_presented": 8000,
        "all_negative": 0.5,
        "thresholds": [0.1],
        "best": "sex:F",
        "worst": "sex:M",
        "note": "x",
    }
    assert verdict(macro(0.9), macro(0.8, params=outcome, synthetic_set=POOR)) == "better: A"
    assert verdict(macro(0.9), macro(0.88, params=outcome)) == "tie (intervals overlap)"


@pytest.mark.parametrize(
    ("params", "what"),
    [
        ({"setting": "mixed"}, "setting"),
        ({"threshold": 0.5}, "threshold"),
        ({"uncertain": "ones"}, "label policy"),
        ({"unmentioned": "ignore", "uncertain": "ones"}, "label policy"),
        ({"recipe": "ffffffffff"}, "training recipe"),
        ({"budget": "epochs"}, "training budget"),
        ({"training_set": "nih-train@0000000000000000"}, "training set"),
        ({"against": "mixed"}, "baseline"),
    ],
)
def test_method_is(params, what):
    assert verdict(macro(0.9), macro(0.7, params=params)) == f"not comparable: different {what}"


def test_sets_are_known_by_their_fingerprints():
    assert verdict(macro(0.9), macro(0.7, params={"training_set": "other@fedcba9876543210"})) == "better: A"
    assert verdict(macro(0.9), macro(0.7, real_set="x@0000000000000000")) == "not comparable: different real set"
    assert '"training_set": "fedcba9876543210"' in method_params(upgraded(macro(0.9)))


@pytest.mark.parametrize("name", ["precision", "recall"])
def test_classifiers_are_not_held_to_the_bias_of_fidelity_metrics(name):
    a, b = row(name, 0.9, n_real=400, n_synthetic=10), row(name, 0.7, n_real=222, n_synthetic=400)
    assert verdict(a, b) == "better: A"
    assert "n differs" in verdict(a | {"suite": "fidelity", "params": {}}, b | {"suite": "fidelity", "params": {}})


def frame(rows):
    return pd.DataFrame(several(rows))


def test_settings_never_share_a_line():
    a = trained() + trained("synthetic", 0.8, synthetic_set=GOOD) + trained("mixed", 0.9, synthetic_set=GOOD)
    table = compare({"A": frame(a), "B": frame(trained("synthetic", 0.7, synthetic_set=POOR))})
    found = table[(table["metric"] == "auroc_macro") & (table["subset"] == "all")]
    assert list(found["verdict"]) == ["only in A", "better: A", "only in A"]
    thresholds = table[(table["metric"] == "f1_macro") & table["method"].str.contains('"synthetic"')]
    assert len(thresholds) == 2


def test_what_needs_no_synthetic_set_is_compared_once_between_runs():
    two = everything(("synthetic",))
    table = compare({"A": frame(two), "B": frame(trained(auroc=0.8) + trained("synthetic", 0.7, synthetic_set=POOR))})
    names = [name.removesuffix(".value") for name in table.columns if name.endswith(".value")]
    assert names == ["A", "A/phantom-good", "A/phantom-poor", "B"]
    overall = table[(table["metric"] == "auroc_macro") & (table["subset"] == "all")].set_index("method")
    verdicts = {("real" if '"real"' in params else "synthetic"): v for params, v in overall["verdict"].items()}
    assert verdicts == {"real": "better: A", "synthetic": "better: A/phantom-good"}


def test_within_a_run_only_its_sets_are_compared():
    table = compare({"A": frame(everything(("synthetic",)))})
    assert not table["method"].str.contains('"setting": "real"')[table["metric"] == "auroc_macro"].any()
    assert [name for name in table.columns if name.endswith(".value")] == [
        "A/phantom-good.value",
        "A/phantom-poor.value",
    ]


def test_runs_on_real_images_alone_are_compared():
    table = compare({"A": frame(trained()), "B": frame(trained(auroc=0.8))}).set_index("metric")
    assert table.loc["auroc_micro", "verdict"] == "better: A"
    assert table.loc["brier_macro", "verdict"].startswith("tie")


@pytest.mark.parametrize("width", [80, 100, 160])
def test_setting_and_threshold_are_printed(width):
    old = {**row("kid", 0.02, 0.01, suite="fidelity", synthetic_set=GOOD), "params": {}}
    runs = {"A": frame([*everything(), old]), "B": frame([*everything(synthetic_set=GOOD), *faithfulness(), old])}
    raw = io.StringIO()
    Console(file=raw, width=width).print(render_compare(compare(runs)))
    text = " ".join(raw.getvalue().split())
    for setting in ("real", "synthetic", "mixed 50 %", "augmented"):
        assert f"model: resnet50 · setting: {setting} ·" in text
    assert "f1_macro (tuned) ↑" in text
    assert "f1_macro (0.5) ↑" in text
    assert "kid ↑" in text
    assert "Atelectasis 222 tie" in text  # not 0, the synthetic images of real
    assert max(map(len, raw.getvalue().splitlines())) <= width
