"""Privacy rows beside those of another run: what is method, what is outcome, and what grows with n."""

from __future__ import annotations

import io

import pandas as pd
import pytest
from results.privacy_rows import COPIER, GOOD, RAD_DINO, REID, distances, reid, row, search
from rich.console import Console

from chexray.report.comparison import render_compare
from chexray.results.aligned import compare
from chexray.results.decisions import decide, method_params
from chexray.results.legacy import upgraded


def verdict(*rows):
    return decide(dict(zip("ABC", map(upgraded, rows), strict=False))).text


def share(n_flagged, low, high, **changes):
    return search(n_flagged, low, high, **changes)[1]


def test_outcomes_of_a_search_do_not_keep_it_from_being_compared():
    copier = share(20, 0.021, 0.066)
    good = share(3, -0.008, 0.016, params={"threshold_ratio": 0.6, "n_null": 200, "attained_alpha": 0.0099, "z": 1.0})
    assert method_params(upgraded(copier)) == '{"alpha": 0.01, "null": "held-out"}'
    assert verdict(copier, good) == "better: B"
    assert verdict(copier, share(18, 0.016, 0.06)) == "tie (intervals overlap)"


@pytest.mark.parametrize("params", [{"alpha": 0.001}, {"null": "training patients"}])
def test_level_and_null_are_method(params):
    found = verdict(share(20, 0.02, 0.06), share(3, -0.01, 0.01, params=params))
    assert found == f"not comparable: different {next(iter(params))}"


def count(name, threshold, n=10, **params):
    seeds = {"n_prompts": 200, "n_seeds_min": 10, "n_seeds_max": 10, "n_pairs_above": n, "share": n / 200}
    return row(f"reid_count_{name}", n, n - 2, n + 2, params=seeds | {"threshold": threshold} | params, **REID)


def test_a_given_threshold_is_method_and_a_found_one_is_not():
    assert method_params(upgraded(count("0.85", 0.85, false_positive_rate=0.1))) == '{"threshold": 0.85}'
    assert verdict(count("calibrated", 0.93), count("calibrated", 0.97, 40)) == "better: A"
    assert verdict(count("0.85", 0.85), count("0.85", 0.851, 40)) == "not comparable: different threshold"
    fidelity = row("kid", 0.1, suite="fidelity", params={"threshold": 1, "n_subsets": 100})
    assert method_params(upgraded(fidelity)) == '{"n_subsets": 100, "threshold": 1}'


def test_counts_and_maxima_need_equal_prompts_and_seeds():
    assert "n_prompts 200 against 100" in verdict(count("0.5", 0.5), count("0.5", 0.5, 40, n_prompts=100))
    assert verdict(count("0.5", 0.5), count("0.5", 0.5, 40, n_prompts=199)) == "better: A"  # a reject
    seeds = {"n_prompts": 200, "n_seeds_max": 10}
    few = {"n_prompts": 200, "n_seeds_max": 4}
    for name in ("reid_max", "reid_max_mean", "latent_distance_min", "pixel_distance_min_mean"):
        a, b = row(name, 0.5, 0.4, 0.6, params=seeds), row(name, 0.9, 0.8, 1.0, params=few)
        assert "n_seeds_max 10 against 4" in verdict(a, b)
    a, b = row("reid_mean", 0.5, 0.4, 0.6, params=seeds), row("reid_mean", 0.9, 0.8, 1.0, params=few)
    assert verdict(a, b) == "better: A"
    assert verdict(row("reid_max", 0.5, 0.4, 0.6), row("reid_max", 0.9, 0.8, 1.0, params=few)) == "better: A"


def test_distances_to_the_nearest_need_equal_training_sets():
    a, b = row("dcr_q01", 3.0, 2.9, 3.1, better="higher"), row("dcr_q01", 2.0, 1.9, 2.1, better="higher", n_real=4000)
    assert "n_real 400 against 4,000" in verdict(a, b)


def test_upstreams_pixel_distance_ranks_nobody():
    a, b = (row("pixel_distance_upstream", v, v - 1, v + 1, better="higher", encoder="") for v in (147.0, 157.0))
    found = decide({"A": upgraded(a), "B": upgraded(b)})
    assert found.text == "not comparable: WRONG: differences wrap modulo 256"
    assert not found.winner
    assert "WRONG: differences wrap modulo 256" in found.notes


def test_suites_are_compared_apart_and_printed_apart():
    a = [row("kid", 0.02, 0.01, 0.03), row("kid", 0.5, 0.4, 0.6, suite="fidelity"), *reid(), *distances(True)]
    b = [r | ({"synthetic_set": GOOD} if r["synthetic_set"] == COPIER else {}) for r in a]
    table = compare({"A": pd.DataFrame(a), "B": pd.DataFrame(b)})
    assert list(table[table["metric"] == "kid"]["suite"]) == ["privacy", "fidelity"]
    assert set(table["A.value"].dropna()) == {r["value"] for r in a}
    raw = io.StringIO()
    Console(file=raw, width=100).print(render_compare(table))
    assert "privacy · encoder: siamese_reid" in raw.getvalue()
    assert "WRONG: differences wrap" in " ".join(raw.getvalue().split())


def test_runs_from_before_there_were_suites_are_compared_with_new_ones():
    new = row("kid", 0.02, 0.01, 0.03, suite="fidelity", **RAD_DINO)
    old = {name: value for name, value in new.items() if name != "suite"}
    old |= {"value": 0.05, "ci_low": 0.04, "ci_high": 0.06}
    table = compare({"A": pd.DataFrame([new]), "B": pd.DataFrame([old])})
    assert list(table["verdict"]) == ["better: A"]
    assert list(table["suite"]) == ["fidelity"]


def test_what_calibrates_a_network_is_of_every_set():
    a = reid() + reid(synthetic_set=GOOD)[:6]  # the calibration is filed under the training set
    table = compare({"A": pd.DataFrame(a)})
    assert [name for name in table.columns if name.endswith(".value")] == ["A/copier.value", "A/good.value"]
    auc = table.set_index("metric").loc["reid_auc"]
    assert auc["A/copier.value"] == auc["A/good.value"] == 0.967
