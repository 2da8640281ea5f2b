"""What utility tables may not claim: differences between single trainings, means over other findings, failures."""

from __future__ import annotations

import pytest
from fixtures.summary import summary_lines
from results.utility_rows import (
    GOOD,
    POOR,
    everything,
    failed,
    faithfulness,
    flat,
    line_of,
    row,
    section,
    text_of,
    trained,
)
from scipy.stats import false_discovery_control

from chexray.results.aligned import compare
from chexray.results.decisions import method_params
from chexray.results.legacy import upgraded
from chexray.results.rows import to_table

LEGEND = "the 95 % interval of the paired difference excludes 0; nothing corrects for many trainings"
NO_STAR = "no star between single trainings: those that differ in their seed alone are often as far apart"


def comparison(text: str) -> str:
    return text.split("AUROC by finding")[0]


def test_single_trainings_get_no_star():
    text = text_of(everything(), 140)
    found = comparison(text) + section(text, "AUROC by finding")
    assert "*" not in found
    assert "0.861 [0.841, 0.881] -0.047 [-0.075, -0.019]" in flat(line_of(text, "phantom-good"))
    assert flat(text).count(NO_STAR) == 1
    assert "excludes 0" not in found
    assert "no training is shown to differ" not in found
    assert "0.030*" in text  # of gaps, which keep their rule


def test_several_trainings_get_stars_and_their_legend():
    text = flat(text_of(everything(params={"seeds": 3}), 140))
    assert "-0.047* [-0.075, -0.019]" in text
    assert f"*  differs from real: {LEGEND}".replace("  ", " ") in text
    assert text.count(LEGEND) == 2
    assert NO_STAR not in text


@pytest.mark.parametrize(
    "params", [{"seeds": 1}, {"seeds": 3, "note": "one training each: no spread"}, {"seeds": None}]
)
def test_seeds_and_note_tell_single_trainings(params):
    rows = trained() + trained("synthetic", 0.861, -0.047, synthetic_set=GOOD, params={"seeds": 3})
    for each in rows:
        if each["metric"].endswith("_difference"):
            each["params"] = {name: v for name, v in (each["params"] | params).items() if v is not None}
    assert "*" not in section(text_of(rows, 140), "AUROC by finding")
    assert "-0.047 [" in text_of(rows, 140)
    assert any(line.endswith("; set utility.seeds to 3 or more") for line in summary_lines(rows))


def test_a_star_of_a_finding_alone_is_withheld_with_its_reason():
    rows = trained() + trained("synthetic", 0.91, 0.01, synthetic_set=GOOD)
    next(r for r in rows if r["metric"] == "auroc_difference").update(value=0.05, ci_low=0.02, ci_high=0.08)
    text = flat(text_of(rows, 140))
    assert "no training is shown to differ from real: all intervals include 0" in text
    assert NO_STAR in text
    assert NO_STAR not in flat(text_of(trained() + trained("synthetic", 0.91, 0.01, synthetic_set=GOOD)))


def test_trainings_of_few_and_many_seeds_share_a_table():
    rows = trained("synthetic", 0.861, -0.047, synthetic_set=GOOD, params={"seeds": 3})
    text = flat(text_of([*trained(), *rows, *trained("as_is", 0.5, -0.4)], 140))
    assert "-0.047*" in text
    assert "-0.400 [" in text
    assert LEGEND in text
    assert NO_STAR in text


def of_findings(*p_values: float) -> list[dict]:
    """Two trainings of three seeds whose difference of every finding excludes 0, with these p-values."""
    rows = trained(params={"seeds": 3}) + trained("synthetic", 0.861, -0.047, synthetic_set=GOOD, params={"seeds": 3})
    (model,) = [each for each in rows if each["metric"] == "auroc_difference"]
    rows.remove(model)
    names = ("Atelectasis", "Edema", "Enlarged Cardiomediastinum", "Pleural Effusion")
    return rows + [
        model | {"subset": f"finding:{name}", "params": model["params"] | {"p_value": p}}
        for name, p in zip(names, p_values, strict=True)
    ]


@pytest.mark.parametrize(
    ("p_values", "starred"),
    [
        ((0.04, 0.03, 0.02, 0.049), 4),  # the largest is within its own bound, so all are (Benjamini, Hochberg 1995)
        ((0.04, 0.03, 0.02, 0.051), 0),
        ((0.012, 0.9, 0.8, 0.9), 1),
        ((0.013, 0.9, 0.8, 0.9), 0),
    ],
)
def test_stars_of_findings_are_corrected_for_their_number(p_values, starred):
    """As statsmodels and scipy.stats.false_discovery_control adjust them."""
    assert sum(false_discovery_control(p_values) <= 0.05) == starred
    text = section(text_of(of_findings(*p_values), 140), "AUROC by finding")
    assert text.replace("*  ", "").count("*") == starred
    assert ("corrected for the number of findings: 5 % of such stars are expected to be false" in flat(text)) == (
        starred > 0
    )
    assert "nothing corrects" not in text


def test_a_gap_without_an_interval_gets_no_star():
    rows = trained()
    gap = next(each for each in rows if each["metric"] == "auroc_macro_gap")
    gap |= {"value": 0.4, "ci_low": 0.1, "ci_high": 0.7}
    assert "0.400* [0.100, 0.700]" in text_of(rows, 140)
    gap |= {"std_error": None, "ci_low": None, "ci_high": None, "std_error_method": ""}
    text = text_of(rows, 140)
    assert "0.400" in line_of(text, "sex: gap")
    assert "*" not in line_of(text, "sex: gap")
    assert "served equally well" not in text


def test_groups_left_out_of_a_gap_are_named_with_the_reason():
    rows = trained()
    why = "too small to judge: fewer than 5 patients with or without the findings that the other groups share"
    for each in rows:
        if each["metric"] == "auroc_macro_gap":
            each["params"] |= {"left_out": ["age:>=80", "age:<40"], "left_out_why": why}
    assert f"not in the gap: age:>=80, age:<40 ({why})" in flat(text_of(rows, 100))


def test_differences_without_intervals_hold_nothing():
    rows = trained() + trained("synthetic", 0.861, -0.047, half=None, synthetic_set=GOOD)
    text = flat(text_of(rows))
    assert "all intervals include 0" not in text
    assert "*" not in comparison(text)
    assert any(line.startswith("phantom-good: no interval: synthetic alone") for line in summary_lines(rows))
    assert any(line.endswith(", -0.04700 to real") for line in summary_lines(rows))


def test_the_summary_claims_single_trainings_for_themselves_only():
    lines = summary_lines(everything(("synthetic", "mixed")))
    assert (
        "phantom-good: worse, 1 seed: synthetic alone, 0 real + 400 synthetic: 0.861 [0.841, 0.881], -0.047 [-0.075, "
        "-0.019] to real"
    ) in lines
    says = "1 seed: trainings often differ as much by their seed alone; set utility.seeds to 3 or more"
    assert lines.count(says) == 1
    assert (
        "phantom-good: no difference: real, half of it replaced by synthetic, 200 real + 200 synthetic: 0.918 [0.898, "
        "0.938], 0.010 [-0.018, 0.038] to real"
    ) in lines
    chance = trained("synthetic", 0.5, -0.4, synthetic_set=GOOD)
    assert summary_lines(chance)[0].startswith("phantom-good: worse, 1 seed: ")
    assert summary_lines(chance)[0].endswith("to real; NOT SHOWN to be better than chance")
    assert not any("1 seed" in line for line in summary_lines(everything(params={"seeds": 3})))


def group_params(rows, **params):
    """Rows with params for the AUROC macro of some groups: sex_F={...} is of "sex:F"."""
    for each in rows:
        if each["metric"] == "auroc_macro" and (own := params.get(each["subset"].replace(":", "_"))):
            each["params"] = each["params"] | own
    return rows


def test_groups_that_average_other_findings_say_so():
    some = {"n_findings": 9, "left_out": ["Fracture"]}
    text = flat(text_of(group_params(trained(), sex_F=some, sex_M={"n_findings": 14}, view_PA=some)))
    line = "groups: the mean over 9 to 14 findings, those with both classes in the group"
    assert f"{line}; the gap line compares the same findings" in text
    no_gap = [
        r for r in group_params(trained(), sex_F=some, sex_M={"n_findings": 14}) if not r["metric"].endswith("gap")
    ]
    assert line in flat(text_of(no_gap))
    assert "the gap line" not in flat(text_of(no_gap))
    other = {"n_findings": 9, "left_out": ["Edema"]}
    assert "groups: the mean over 9 findings" in flat(text_of(group_params(trained(), sex_F=some, sex_M=other)))


def test_groups_that_average_the_same_findings_need_no_remark():
    same = {"n_findings": 9, "left_out": ["Fracture"]}
    rows = group_params(trained(), sex_F=same, sex_M=same, view_PA=same)
    null = row("auroc_macro", None, subset="sex:X", params={"n_findings": 0, "left_out": ["Edema"]})
    assert "groups: the mean" not in text_of([*rows, null])
    assert "groups: the mean" not in text_of(everything())


LONGER = "an epoch is one pass of each training's own images: larger sets were trained longer"


@pytest.mark.parametrize(
    ("budget", "presented", "said"),
    [("epochs", (8000, 16000), True), ("epochs", (8000, 8000), False), ("images", (8000, 16000), False)],
)
def test_unequal_budgets_are_said(budget, presented, said):
    first, second = ({"budget": budget, "n_presented": n} for n in presented)
    rows = trained(params=first) + trained("augmented", 0.95, 0.04, synthetic_set=GOOD, params=second)
    rows += trained("as_is", 0.5, params={"budget": budget, "n_presented": 0})
    rows += failed("synthetic", synthetic_set=GOOD, params={"budget": budget, "n_presented": 40})
    text = flat(text_of(rows))
    assert (LONGER in text) == said
    assert "budget" not in text  # the recipe tells trainings apart that differ in it


def test_rows_without_a_budget_had_the_usual_one():
    assert LONGER not in flat(text_of(everything()))
    named = {"budget": "images", "n_presented": 8000}
    bare, full = (upgraded(row("auroc_macro", 0.9, params=params)) for params in ({}, named))
    assert method_params(full) == method_params(bare)


@pytest.mark.parametrize("width", [62, 80, 140])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_failed_training_is_a_dash_with_its_reason(width, encoding):
    dash = "–" if encoding == "utf-8" else "-"
    rows = [r for r in everything() if (r["synthetic_set"], r["params"]["setting"]) != (POOR, "mixed")]
    raw = text_of([*rows, *failed("mixed", synthetic_set=POOR)], width, encoding)
    text = flat(raw)
    assert f"{dash} mixed 50 % (phantom-poor): loss is NaN in epoch 1 at step 3" in text
    assert max(map(len, raw.splitlines())) <= width
    if width == 140:
        poor = raw.split("phantom-poor ")[1]
        line = next(line for line in poor.splitlines() if "mixed 50 %" in line)
        assert flat(line) == f"mixed 50 % 200 + 200 {dash}"
    assert text.count("loss is NaN") == 2  # below the table, and with what failed


def test_a_failed_training_is_loud_in_the_summary():
    rows = [*trained(), *failed("synthetic", synthetic_set=GOOD)]
    lines = summary_lines(rows)
    assert f"FAILED: 1 of {len(rows)} numbers; first auroc_macro, all: loss is NaN in epoch 1 at step 3" in lines
    assert "phantom-good: FAILED: synthetic alone, 0 real + 400 synthetic" in lines
    assert "1 FAILED" in lines[-1]


def test_where_real_failed_the_others_stand_alone():
    rows = failed(n_real=0) + trained("synthetic", 0.861, synthetic_set=GOOD, params={"n_findings": 4})
    text = text_of(rows, 140)
    assert "– real: loss is NaN in epoch 1 at step 3" in text
    assert flat(line_of(text, "real ")) == "real 400 + 0 –"
    assert "n = 222 test images" in text
    assert "AUROC ↑" in text_of(failed(better="") + rows[1:], 140)
    assert "difference" not in comparison(text)
    head = section(text, "AUROC by finding").splitlines()[:3]
    assert "synthetic" in " ".join(head)
    assert "real" not in " ".join(head)
    lines = summary_lines(rows)
    assert "real images: FAILED: real alone, 400 real + 0 synthetic" in lines
    assert "phantom-good: synthetic alone, 0 real + 400 synthetic: 0.861 [0.841, 0.881]" in lines


def test_where_all_failed_there_is_a_table_of_dashes():
    bare = failed("as_is", "out of memory", params={"n_train_real": None, "recipe": "ffffffffff"})
    rows = failed() + failed("synthetic", synthetic_set=GOOD) + bare
    assert len(to_table(rows)) == 3
    text = text_of(rows, 100)
    assert "– real, synthetic (phantom-good): loss is NaN" in text
    assert "– as is: out of memory" in text
    assert "by finding" not in text
    assert "Brier" not in text_of(rows, 100, "ascii")
    assert "by group" not in text
    nothing = [{**r, "value": None, "status": "failed", "reason": "no classifier"} for r in faithfulness()]
    assert "no classifier" in text_of(rows + nothing)


def test_a_failed_training_beside_another_run_is_unknown():
    import pandas as pd

    runs = {"A": pd.DataFrame(trained()), "B": pd.DataFrame(failed())}
    table = compare(runs)
    overall = table[(table["metric"] == "auroc_macro") & (table["subset"] == "all")]
    assert list(overall["verdict"]) == ["unknown: no value in B"]


def test_numbers_elsewhere_take_one_line():
    metrics = ("average_precision", "f1", "precision", "recall", "specificity", "balanced_accuracy", "brier")
    rows = trained()
    for metric in (*metrics, "calibration_error"):
        rows += [row(metric, 0.5, subset="finding:Edema"), row(f"{metric}_micro", 0.5)]
    rows += [row(f"{name}_macro_difference", 0.1) for name in ("brier", "average_precision")]
    text = flat(text_of([r for r in rows if r["metric"] not in ("auroc_micro", "recall_macro")]))
    assert (
        "also in results.csv: per-finding and micro averages of precision, average precision, F1, recall, "
        "specificity, balanced accuracy, Brier, calibration error; brier_micro, more differences"
    ) in text
    assert "also in results.csv: per-finding values of precision" in text_of(
        [r for r in trained() if r["metric"] not in ("auroc_micro", "recall_macro")]
    )
    many = [row(f"invented_{n}", 0.1) for n in range(9)] + [row("precision", 0.1)]
    assert "; invented_0, invented_1, invented_2, invented_3 and 5 more" in flat(text_of(trained() + many))
    assert "also in" not in text_of(faithfulness(synthetic_set=GOOD))
