"""The utility tables, read as someone choosing a generator would: intervals, differences to real, what is unsaid."""

from __future__ import annotations

import re

import pytest
from fixtures.summary import summary_lines
from results.utility_rows import GOOD, POOR, everything, faithfulness, flat, line_of, row, section, text_of, trained

from chexray.report.console import render
from chexray.results.rows import to_table

ALL = ("synthetic", "mixed_25", "mixed", "augmented", "pretrain_synthetic_finetune_real")


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("width", [80, 100, 140])
@pytest.mark.parametrize("settings", [("synthetic",), ALL])
def test_nothing_is_wider_than_the_terminal_or_cut(settings, width, encoding):
    text = text_of([*everything(settings), *trained("as_is", 0.5)], width, encoding)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    assert encoding != "ascii" or text.isascii()
    for setting in settings:
        own = {"mixed_25": "mixed 25 %", "mixed": "mixed 50 %"}.get(setting, setting.split("_")[0])
        assert own in text
    assert "[-0.075, -0.019]" in text  # an interval is never broken


def test_the_factory_makes_rows_of_the_schema():
    assert len(to_table(everything(ALL))) == len(everything(ALL))


def test_a_line_has_sizes_value_difference_and_the_all_negative_accuracy():
    text = text_of(everything(params={"seeds": 3}), 140)
    line = flat(line_of(text, "phantom-good"))
    assert line.startswith("phantom-good synthetic 0 + 400 0.861 [0.841, 0.881] -0.047* [-0.075, -0.019] 0.461 0.440")
    assert line.endswith("0.080 0.8812 (0.8716)")
    assert line_of(text, "–             real").split()[2:5] == ["400", "+", "0"]
    assert "0.010 [-0.018, 0.038]" in text  # holds 0: no star
    assert "as is" not in text


def test_narrow_tables_put_intervals_below_and_name_what_they_leave_out():
    text = text_of(everything(ALL, params={"seeds": 3}), 100)
    assert flat(line_of(text, "phantom-good")).startswith("phantom-good synthetic 0 + 400 0.861 -0.047* 0.461")
    assert "not shown at this width: F1 ↑, Brier ↓, accuracy; see results.csv" in flat(text)
    for width, settings in ((80, ("mixed",)), (80, ALL), (62, ALL)):
        stacked = text_of(everything(settings), width).splitlines()
        first = {"mixed": "200 + 200"}.get(settings[0], "0 + 400")
        place = next(at for at, line in enumerate(stacked) if first in line)
        assert flat(stacked[place + 1]).endswith("[0.841, 0.881] [-0.075, -0.019]")
    left_out = "not shown at this width: average precision ↑, F1 ↑, Brier ↓, accuracy; see results.csv"
    assert left_out in flat(text_of(everything(ALL), 62))
    long = [r | {"synthetic_set": r["synthetic_set"].replace("-", "-of-a-long-name-")} for r in everything()]
    assert "[0.841, 0.881]" in text_of(long, 100)


def test_one_generator_stands_in_the_title():
    text = text_of(trained() + trained("synthetic", 0.861, -0.047, synthetic_set=GOOD), 140)
    assert "synthetic: phantom-good" in text.splitlines()[0]
    assert "model: resnet50 (trained from scratch)" in text.splitlines()[0]
    assert "phantom-good" not in text.split("UTILITY")[0].split("\n", 1)[1]
    assert "(timm/resnet50.a1)" in text_of(trained(weights="timm/resnet50.a1"))


def test_what_intervals_hold_is_said():
    one = flat(text_of(everything()))
    assert "95 % of resampled test patients; one training each: the spread between trainings is not in them" in one
    assert one.count("spread between trainings") == 1  # the note of each difference says no more
    several = everything(params={"seeds": 3, "seed_std": 0.01})
    for r in several:
        r["std_error_method"] = "image bootstrap + seeds" if r["std_error"] else ""
    text = flat(text_of(several))
    assert "resampled test images (patients are not known); they include the variation over 3 seeds" in text


def test_labels_thresholds_and_findings_are_said():
    text = flat(text_of(everything()))
    assert "labels: uncertain read as zeros; not mentioned read as zeros" in text
    assert "thresholds: tuned on 40 real validation images" in text
    assert "macro: the mean over 4 findings" in text
    fixed = text_of([r for r in everything() if r["params"].get("threshold") != "tuned"], 140)
    assert "(0.5)" in fixed
    assert "thresholds: tuned" not in fixed
    group = row("auroc_macro", 0.8, subset="sex:X", params={"n_findings": 2})
    assert "macro: the mean over 4 findings" in text_of([*everything(), group])
    uneven = everything()
    uneven[0]["params"] = uneven[0]["params"] | {"n_findings": 3}
    assert "macro: the mean over 3 to 4 findings, not the same for all" in flat(text_of(uneven))


def test_findings_go_by_their_cases_and_those_without_a_value_are_named():
    found = section(text_of(everything(("synthetic",), params={"seeds": 3}), 140), "AUROC by finding")
    lines = [line.split()[0] for line in found.splitlines() if re.search(r"\d\.\d{3}", line)]
    assert lines == ["Pleural", "Atelectasis", "Edema", "Enlarged"]
    assert line_of(found, "Edema").split()[:2] == ["Edema", "24"]
    assert "0.871* [0.831, 0.911]" in line_of(found, "Edema")
    assert "– Pleural Other: no positive among 222 test images" in found
    narrow = text_of(everything(), 80)
    assert narrow.count("real ") > 2  # in each block of trainings
    assert "intervals: see" not in narrow


def test_groups_come_with_their_gap():
    found = text_of(everything(("synthetic",)), 120).split("AUROC macro by group")[1].split("label faith")[0]
    assert line_of(found, "sex:F").split()[1:3] == ["100", "0.878"]
    assert line_of(found, "sex: gap ↓").split()[3:6] == ["0.030", "[0.005,", "0.055]"]
    assert line_of(found, "sex: gap ↓").count("0.030*") == 2  # by chance as much for real alone
    assert line_of(found, "view:PA")
    assert "best less worst group" in found


def test_faithfulness_stands_beside_real_images():
    text = text_of(everything())
    found = text.split("label faithfulness")[1]
    assert flat(line_of(found, "Edema")) == "Edema 0.880 [0.820, 0.940] 0.520! [0.460, 0.580] 0.910"
    assert line_of(found, "macro").split()[-1] == "0.910"
    assert "!  not shown: down to chance" in found
    assert "!" not in text_of(faithfulness())
    lines = summary_lines(everything())
    assert lines[0] == (
        "phantom-poor: LABELS NOT SHOWN: AUROC of findings asked for: Edema 0.520 [0.460, 0.580], on real images 0.910"
    )


@pytest.mark.parametrize(
    ("value", "half", "floor", "lowest"),
    [(0.5, 0.45, 0.91, None), (0.52, 0.06, 0.6, None), (0.52, 0.06, None, None), (0.52, 0.06, 0.72, 0.57)],
)
def test_few_images_or_a_poor_classifier_accuse_no_label(value, half, floor, lowest):
    about = {"subset": "finding:Fracture", "synthetic_set": GOOD, "n_real": 0, "real_floor": floor}
    about["params"] = {"floor_ci_low": lowest}
    rows = [*faithfulness(), row("faithfulness_auroc", value, half, **about)]
    assert not any("NOT SHOWN" in line for line in summary_lines(rows))


def test_the_summary_has_a_line_a_training():
    lines = summary_lines(everything(("synthetic", "mixed_25"), params={"seeds": 3}))
    assert "real images: real alone, 400 real + 0 synthetic: 0.908 [0.888, 0.928]" in lines
    assert (
        "phantom-good: worse: synthetic alone, 0 real + 400 synthetic: 0.861 [0.841, 0.881], -0.047 [-0.075, -0.019] "
        "to real"
    ) in lines
    assert (
        "phantom-good: no difference: real, 25 % of it replaced by synthetic, 300 real + 100 synthetic: 0.918 [0.898, "
        "0.938], 0.010 [-0.018, 0.038] to real"
    ) in lines
    above = summary_lines(trained("augmented", 0.95, 0.04, synthetic_set=GOOD, params={"seeds": 3}))
    assert above[0].startswith("phantom-good: better: real and synthetic, 400 real + 400 synthetic: 0.950")
    assert above[0].endswith("0.040 [0.012, 0.068] to real")
    assert summary_lines(trained(auroc=0.5))[0].endswith("; NOT SHOWN to be better than chance")


def test_nulls_are_dashes_with_reasons_and_counted_apart():
    lines = summary_lines(everything())
    assert "utility, not measured: Pleural Other: no positive among 222 test images" in lines
    assert lines[-1] == "167 numbers computed, 14 not (14 of utility without enough cases)."
    nulls = trained() + [
        r
        | {"value": None, "std_error": None, "ci_low": None, "ci_high": None, "status": "failed", "reason": "NaN loss"}
        for r in trained("synthetic", 0.8, -0.1, synthetic_set=GOOD)
    ]
    text = text_of(nulls)
    assert "–" in line_of(text, "synthetic")
    assert "NaN loss" in text
    assert "synthetic" not in section(text, "AUROC by finding").split("real")[0]
    lines = summary_lines(nulls)
    assert any(line.startswith("FAILED: ") for line in lines)
    assert "phantom-good: FAILED: synthetic alone, 0 real + 400 synthetic" in lines
    assert lines[-1].endswith(" FAILED, 2 of utility without enough cases).")


def test_reasons_that_name_their_finding_are_one_reason():
    rows = [
        row("faithfulness_auroc", None, subset=f"finding:{name}", synthetic_set=GOOD,
            reason=f"{name} is asked for in none of 400 synthetic images")
        for name in ("Fracture", "Pneumonia")
    ]  # fmt: skip
    text = flat(text_of(faithfulness(synthetic_set=GOOD) + rows))
    assert "– Fracture, Pneumonia: e.g. Fracture is asked for in none of 400 synthetic images" in text
    rows = [row("auroc_macro", 1.0, None, params={"std_error_reason": "every resample gives 1"})]
    assert "auroc_macro: no error estimate, every resample gives 1" in text_of(rows)


def test_a_null_without_params_stays_with_its_training():
    rows = trained("synthetic", 0.8, synthetic_set=GOOD)
    bare = row("f1_macro", None, synthetic_set=GOOD) | {"params": {"setting": "synthetic", "threshold": "tuned"}}
    text = text_of([bare, *(r for r in rows if r["metric"] != "f1_macro")], 120)
    assert len(re.findall(r"^synthetic ", text, re.MULTILINE)) == 1
    assert "–" in line_of(text, "synthetic")


def test_what_no_section_shows_is_named():
    text = text_of([*everything(), row("invented", 0.3), row("brier_macro", 0.3, subset="sex:F")], 140)
    assert (
        "also in results.csv: per-finding, macro and micro averages of AUROC, recall, precision, Brier; invented"
    ) in text


def test_models_runs_and_recipes_are_told_apart():
    assert text_of(trained() + trained(encoder="vit_small")).count("utility ·") == 2
    for model in ("resnet50", "vit_small"):
        assert f"UTILITY · AUROC macro on nih-test, model {model}" in text_of(trained() + trained(encoder="vit_small"))
    text = text_of(trained() + trained(run_id="r2"), 140)
    assert "real (run r2)" in text
    text = text_of(trained() + trained(params={"uncertain": "ones"}), 140)
    assert "real (uncertain=ones)" in text
    assert "uncertain read as zeros, ones" in text
    two = trained("synthetic", 0.8, synthetic_set=GOOD) + trained("synthetic", 0.7, synthetic_set=GOOD, run_id="r2")
    assert "phantom-good (run r2)" in text_of(two)


def test_suites_are_apart():
    fidelity = {**row("kid", 0.02, 0.01, suite="fidelity", synthetic_set=POOR), "params": {}}
    table, utility, _ = re.split("utility ·|FIDELITY|UTILITY", text_of([*everything(), fidelity]))
    assert "kid ↑" in table
    assert "auroc" not in table.lower()
    assert "kid" not in utility
    assert len(render(everything())) == 1
    assert text_of(faithfulness(synthetic_set=GOOD)).count("\n") < 22  # alone it has a table too


def test_rejects_of_real_sets_are_said_without_a_name():
    assert "REJECTED: 3 images of the real sets; each with its reason in rejects.parquet" in summary_lines(
        trained(n_rejected=3)
    )


def test_data_cannot_steer_the_terminal():
    evil = "[bold red]x[/]\x1b]0;owned\x07\u202e"
    rows = everything(encoder=evil, real_set=evil, protocol=evil, weights=evil, params={"uncertain": evil})
    rows += trained(evil, synthetic_set=evil, params={"training_set": evil}) + faithfulness(synthetic_set=evil)
    rows += [row("auroc", None, subset=f"finding:{evil}", reason=evil), row(evil, 0.5)]
    rows += [row("auroc_macro", 0.5, subset=evil), row("brier_macro", 0.1, reason=evil)]
    text = text_of(rows, colour=True)
    assert r"x[/]\x1b]0;owned\x07\u202e" in flat(text)
    for bad in ("\x1b]0", "\x07", "\u202e"):
        assert bad not in text
        assert not any(bad in line for line in summary_lines(rows))
