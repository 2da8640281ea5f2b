"""The privacy tables, read as a privacy officer would: verdicts, chance beside counts, and nothing promised."""

from __future__ import annotations

import re

import pytest
from results.privacy_rows import (
    COPIER,
    GOOD,
    RAD_DINO,
    REID,
    distances,
    duplicates,
    everything,
    peers,
    reid,
    row,
    search,
    text_of,
)  # fmt: skip

from chexray.results.rows import to_table
from chexray.results.table import render, summary_lines

PAPER = {"protocol": "chexgenbench"}


def flat(text):
    return " ".join(text.split())


def line_of(text, start):
    return next(line for line in text.splitlines() if line.startswith(start))


def section(text, heading):
    return text.split(f"\n{heading}")[1].split("\n\n")[0]


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("width", [80, 100, 120])
@pytest.mark.parametrize("rows", [everything(), everything(protocol="chexgenbench"), reid(rate=False), search()])
def test_nothing_is_wider_than_the_terminal_or_cut(rows, width, encoding):
    text = text_of(rows, width, encoding)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    assert encoding != "ascii" or text.isascii()
    for number in re.findall(r"0\.539 \[[^\]]*\]?", text):
        assert number == "0.539 [0.520, 0.560]"  # an interval stays with its value


@pytest.mark.parametrize("rows", [everything(), search(0), search(400, 0.9, 1.0), reid(), distances(), []])
def test_no_verdict_promises_anything(rows):
    words = (text_of(rows) + "\n".join(summary_lines(rows))).lower()
    assert not re.search(r"\b(safe|private|secure|anonym\w*|no copies)\b", words)


def test_the_factory_makes_rows_of_the_schema():
    assert len(to_table(everything())) == len(everything())


def test_copies_are_found_when_the_excess_is_above_zero():
    text = text_of(search())
    assert "COPIES FOUND in copier: 20 of 400 images flagged, 4.0 expected by chance (pixels)" in text
    line = line_of(text, "pixels")
    assert "20 of 400 (5 %)" in line
    assert "4.0 [2.1, 6.6]" in line
    assert line.rstrip().endswith("COPIES FOUND")
    assert "no copy found" not in text


@pytest.mark.parametrize("low", [0.0, -0.001])
def test_without_excess_the_verdict_says_what_would_go_unnoticed(low):
    text = text_of(search(5, low, 0.0164))
    says = "no copy found at this sensitivity (false positives 1 %; up to 1.64 % copies would go unnoticed by pixels)"
    assert f"copier: {says}" in flat(text)
    assert "COPIES FOUND" not in text
    assert line_of(text, "pixels").rstrip().endswith("none found")


@pytest.mark.parametrize(
    ("rows", "limit"),
    [
        (search(0, -0.0088, 0.0017), "up to 0.25 %"),  # one image of 400 can never be excluded
        (search(0, -0.0099, -0.0010), "up to 2.6 %"),  # fewer than chance: the share's own upper end
        (search(3, -0.2, 0.9, n=4), "up to 90 %"),
    ],
)
def test_the_limit_is_never_zero(rows, limit):
    assert limit in flat(text_of(rows))


def test_without_interval_or_value_there_is_no_verdict():
    for change, why in (
        ({"value": None, "ci_low": None, "ci_high": None, "status": "undefined", "reason": "all distances are equal"},
         "all distances are equal"),
        ({"ci_low": None, "ci_high": None}, "the excess has no interval"),
    ):  # fmt: skip
        share, excess = search()
        text = flat(text_of([share, excess | change]))
        assert f"copier: no verdict, {why} (pixels)" in text
        assert "COPIES FOUND" not in text
        assert "no copy found" not in text
    assert "its excess over chance is missing" in flat(text_of(search()[:1]))


def test_sets_are_judged_in_one_line_over_encoders_copies_first():
    text = flat(text_of(everything(), 120))
    found = (
        "COPIES FOUND in copier: 20 of 400 images flagged, 4.0 expected by chance (pixels); 20 of 400 images flagged"
    )
    none = "good: no copy found at this sensitivity (false positives 1 %; up to 1.64 % copies would go unnoticed by "
    assert text.index(found) < text.index(f"{none}pixels, up to 2.11 % by rad_dino)")


def test_a_set_with_copies_in_one_space_is_not_called_clear_for_another():
    rows = search() + search(3, -0.008, 0.0164, **RAD_DINO)
    assert "no copy found" not in text_of(rows)
    assert "none found" in text_of(rows)


def test_chance_is_named_and_so_is_what_the_search_cannot_see():
    text = flat(text_of(search()))
    assert "by chance: what the same search flags among 399 held-out real images, 1 % of them" in text
    assert "a share of 2.3 % copies, all of them flagged, is noticed in 80 % of such audits" in text
    assert "blind spot: a copy altered so much" in text
    assert "each of" not in text
    assert "each of 4 searches alarms with probability about 2.5 % where there is no copy" in flat(
        text_of(everything())
    )
    fallback = flat(text_of(search(params={"null": "training patients", "attained_alpha": 0.005, "n_expected": 2.0})))
    assert "399 training images, each against other patients', 0.5 % of them" in fallback


def test_what_params_do_not_tell_is_counted_from_the_share():
    rows = [r | {"params": {"alpha": 0.01}} for r in search()]
    assert "20 of 400 images flagged, 4.0 expected" in text_of(rows)
    assert "20 of 400 images flagged, ? expected" in text_of([r | {"params": {}} for r in search()])


def test_one_search_at_two_levels_gives_two_lines():
    rows = search() + search(3, -0.01, 0.02, params={"alpha": 0.001, "attained_alpha": 0.001, "n_expected": 0.4})
    text = text_of(rows)
    assert "pixels (alpha=0.01)" in text
    assert "3 of 400" in line_of(text, "pixels (alpha=0.001)")


def test_other_tools_numbers_come_with_floor_and_blind_spots():
    text = text_of(peers())
    for name in ("closer_to_training ↓", "dcr_q01 ↑", "dcr_below_null ↓", "authenticity ↑", "c_t ↑", "nnaa_loss ↓"):
        assert line_of(text, name)
    assert line_of(text, "authenticity").split()[-1] == "74.0"
    assert "blind spot of dcr_q01, dcr_q05, dcr_below_null: alarms falsely on a generator of low diversity" in flat(
        text
    )
    assert "\x1b[2m" in text_of(peers(), colour=True)  # dim
    two = peers() + [r | {"synthetic_set": GOOD, "value": 0.9, "ci_low": 0.89, "ci_high": 0.91} for r in peers()]
    assert "*" not in text_of(two)  # more authentic is not better: no winner is marked


def test_duplicates_stand_beside_what_real_images_would_score():
    text = text_of(duplicates(2, 21, ci_low=None))
    assert line_of(text, "the same as a training image").split()[-4:] == ["2", "of", "400", "0.4"]
    assert "real images" in text
    assert "21 of 400 [13, 32]" in text_of([row("duplicates_near_training", 21, 12.9, 31.7)])
    rows = duplicates(2, 0)
    assert "IDENTICAL in copier: 2 images of 400 are the same as a training image, 0.4 of as many real ones" in (
        summary_lines(rows)
    )
    assert not any("IDENTICAL" in line for line in summary_lines(duplicates(0, 5)))


def test_counts_stand_beside_their_false_positive_rates():
    text = text_of(reid())
    assert "180 of 200 [175, 186]" in line_of(text, "prompts above 0.5 ↓")
    assert "31 %" in line_of(text, "prompts above 0.5 ↓")
    assert "2.1 %" in line_of(text, "prompts above 0.95 ↓")
    assert "0.1 %" in line_of(text, "prompts above 0.983")
    assert "(calibrated)" in text
    assert "a count means nothing without its false-positive rate" in text
    assert "200 prompts; maxima grow with the number of seeds: 8 to 10 a prompt" in text
    assert "AUC of the network, real pairs of one patient against pairs of two: 0.9670 [0.9500, 0.9800]" in flat(text)
    assert "train" not in section(text, "re-identification")  # the set that calibration rows are filed under


def test_a_rate_of_its_own_row_is_used_and_a_missing_one_is_unknown():
    rows = [r | {"params": {"threshold": 0.5}} for r in reid() if r["metric"] in ("reid_count_0.5", "reid_fpr_0.5")]
    assert "31 %" in line_of(text_of(rows), "prompts above 0.5")
    text = text_of(reid(rate=False))
    assert text.count("unknown") >= 3
    assert "no patient ids: pairs of one patient are unknown" in text


def test_seeds_that_differ_between_sets_are_told_apart():
    few = [r | {"params": r["params"] | {"n_seeds_min": 4, "n_seeds_max": 4}} for r in reid(synthetic_set=GOOD)[:3]]
    text = flat(text_of(reid()[:3] + few))
    assert "good: 200 prompts; maxima grow with the number of seeds: 4 a prompt" in text


def test_a_random_network_is_shouted():
    text = text_of(reid(weights="random:7") + search())
    assert "RANDOM WEIGHTS: these numbers compare with nothing (siamese_reid (random:7))" in text
    assert "RANDOM WEIGHTS: this network recognises nobody" in text
    assert "RANDOM" not in text_of(everything())
    lines = summary_lines(reid(weights="random:7") + search())
    assert lines[0].startswith("COPIES FOUND")
    assert lines[1] == "RANDOM WEIGHTS: these numbers compare with nothing (siamese_reid: random:7)"


@pytest.mark.parametrize("width", [80, 120])
def test_upstreams_pixel_distance_never_stands_without_its_error(width):
    text = text_of(distances(upstream=True), width)
    assert "WRONG: differences" in text
    assert "pixel_distance_upstream is WRONG: differences wrap modulo 256" in flat(text)
    assert "\x1b[1;31m pixel_distance_upstream is WRONG" in text_of(distances(upstream=True), width, colour=True)
    assert "upstream" not in text_of(distances(), width)
    assert "minima fall with the number of seeds: 10 a prompt" in text


def test_the_papers_values_stand_beside_like_only():
    text = text_of(reid(**PAPER) + distances(True, **PAPER), 120)
    assert "0.365? SD V3.5 Medium" in line_of(text, "mean score")
    assert "0.992? RadEdit" in line_of(text, "maximum")
    assert "0.601 SD V3.5 Medium" in line_of(text, "rad_dino: mean ↑")
    assert "over 2,000 MIMIC-CXR prompts of 10 seeds" in text
    assert "the network was given 224 px images" in flat(text)
    assert line_of(text, "pixel_distance_upstream").split() == ["pixel_distance_upstream", "157.2"]
    assert "Sana" not in text
    assert "arXiv" not in text_of(reid() + distances(True), 120)
    assert "arXiv" not in text_of(reid(weights="random:7", **PAPER), 120)


def test_nulls_are_dashes_with_reasons_and_counted_in_the_summary():
    rows = [row("dcr_q01", None), row("reid_mean", None, **REID), row("pixel_distance", None, encoder="")]
    text = text_of(rows)
    assert text.count("1 synthetic image, and at least 2 are needed") == 3
    assert "–" in line_of(text, "mean score")
    assert summary_lines(rows)[-2:] == [
        "privacy, not measured: dcr_q01, reid_mean, pixel_distance: 1 synthetic image, and at least 2 are needed",
        "0 numbers computed, 3 not (3 too few images).",
    ]


def test_what_no_section_knows_is_shown_all_the_same():
    failed = row("memorisation", None, status="failed", reason="ValueError: x", better="")
    text = text_of([failed, row("invented", 0.25), row("reid_mean", 0.5, subset="sex:F", **REID)])
    assert "pixels: invented ↓" in text
    assert "memorisation: ValueError: x" in text
    assert "1 subset besides all images: see results.csv" in text


def test_fidelity_groups_hold_fidelity_rows_only():
    fidelity = row("kid", 0.02, 0.01, 0.03, suite="fidelity", synthetic_set=GOOD)
    text = text_of([*search(), fidelity])
    table, private = text.split("privacy ·")
    assert "kid ↓" in table
    assert "memor" not in table
    assert "kid" not in private
    assert len(render(search())) == 1
    del fidelity["suite"]
    assert "kid ↓" in text_of([fidelity])
    assert "privacy" not in text_of([fidelity])


def test_runs_protocols_and_revisions_are_told_apart():
    text = text_of(search() + search(run_id="r2"))
    assert "copier (run r2)" in text
    assert text_of(search() + search(**PAPER)).count("privacy ·") == 2
    two = reid() + reid(encoder_revision="authors_256+1f")
    assert "re-identification: siamese_reid (authors_256)" in text_of(two)
    assert "re-identification: siamese_reid (upstream_224)" in text_of(two)


def test_data_cannot_steer_the_terminal():
    evil = "[bold red]x[/]\x1b]0;owned\x07\u202e"
    rows = [*everything(encoder=evil, real_set=evil, protocol=evil), row("dcr_q01", None, reason=evil, encoder="e")]
    rows += search(synthetic_set=evil, params={"null": evil, "cannot_see": evil})
    text = text_of(rows, colour=True)
    assert "[bold red]x[/]]0;owned" in flat(text)
    for bad in ("\x1b]0", "\x07", "\u202e"):
        assert bad not in text
        assert not any(bad in line for line in summary_lines(rows))


def test_the_copier_is_the_first_line_of_the_summary():
    lines = summary_lines(everything())
    assert lines[0].startswith("COPIES FOUND in copier: 20 of 400")
    assert COPIER.startswith("copier")
    assert any(line.startswith("good: no copy found at this sensitivity") for line in lines)
