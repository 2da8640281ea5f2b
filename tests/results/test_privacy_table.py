"""The privacy tables, read as a privacy officer would: verdicts, chance beside counts, and nothing promised."""

from __future__ import annotations

import re

import pytest
from fixtures.summary import summary_lines
from results.privacy_rows import (
    COPIER,
    GOOD,
    RAD_DINO,
    REID,
    distances,
    duplicates,
    everything,
    flat,
    line_of,
    peers,
    reid,
    row,
    search,
    section,
    text_of,
)  # fmt: skip

from chexray.report.console import render
from chexray.results.rows import to_table

PAPER = {"protocol": "chexgenbench"}


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


def three_sets(**changes):
    return [r for name in (COPIER, GOOD, "third@cccccccccccccccc") for r in peers(synthetic_set=name, **changes)]


def test_other_tools_numbers_of_all_encoders_share_a_table_and_its_footnotes():
    few = "80 images are too few for a 1% quantile: this is near the smallest distance"
    rows = three_sets() + three_sets(**RAD_DINO)
    for r in rows:
        r["params"] = r["params"] | ({"note": few} if r["metric"] == "dcr_q01" else {})
    text = text_of(rows, 100)
    assert text.count("for comparison with other tools") == text.count("intervals: see results.csv") == 1
    assert text.count("few copies among many") == 1
    assert text.count("too few for a 1% quantile") == 1
    assert f" dcr_q01: {few}" in text
    assert line_of(text, "rad_dino  closer_to_training").split()[2:] == ["↓", "0.511", "0.511", "0.511", "0.500"]
    assert len(section(text, "for comparison").splitlines()) < 26
    narrow = [line.split()[0] for line in text_of(rows, 60).splitlines() if "closer_to_training ↓" in line]
    assert narrow == ["pixels", "rad_dino"] * (len(narrow) // 2)  # blocks of sets
    assert len(narrow) > 2
    assert "[0.481, 0.541]" in text_of(rows, 160)
    assert "(rad_dino)" in text_of(three_sets(**RAD_DINO), 160)


def test_a_note_names_encoder_and_set_only_where_it_is_theirs():
    rows = three_sets() + three_sets(**RAD_DINO)
    noted = next(r for r in rows if r["metric"] == "c_t" and r["synthetic_set"] == GOOD)
    noted["params"] = noted["params"] | {"note": "3 cells were skipped"}
    assert " c_t of good (pixels): 3 cells were skipped" in text_of(rows)


def test_a_floor_shown_once_is_the_most_precise_of_its_texts():
    rows = [
        row("dcr_q01", 3.0, 2.9, 3.1, real_floor=2.5),
        row("dcr_q01", 3, 1, 5, real_floor=2.5, synthetic_set=GOOD),
    ]
    assert line_of(text_of(rows), "dcr_q01").split()[-2:] == ["5.0]", "2.500"]


def test_equal_n_stands_in_the_title_and_unequal_n_beside_the_sets():
    assert text_of(everything(), 120).splitlines()[0].endswith("n = 400 / 400")
    text = text_of([*peers(), *peers(synthetic_set=GOOD, n_synthetic=80)], 120)
    assert "n = " not in text.splitlines()[0]
    assert "n = 400 / 80" in text


def test_duplicates_stand_beside_what_real_images_would_score():
    text = text_of(duplicates(2, 21, ci_low=None))
    assert line_of(text, "the same as a training image").split()[-4:] == ["2", "of", "400", "0.4"]
    assert "real images" in text
    assert "21 of 400 [13, 32]" in text_of([row("duplicates_near_training", 21, 12.9, 31.7)])
    rows = duplicates(2, 0)
    identical = "IDENTICAL IMAGES: 2 of 400 images are the same as a training image, 0.4 of as many real ones"
    assert f"copier: {identical}" in summary_lines(rows)
    assert not any("IDENTICAL" in line for line in summary_lines(duplicates(0, 5)))


def test_what_never_has_an_error_is_said_in_one_line():
    text = text_of(everything(), 120)
    assert text.count("no error estimate") == 1
    assert "extremes of pairs and counts within a set have no error estimate: compare them at equal n" in text
    why = {"std_error_reason": "all prompts are of one patient, or there is one prompt"}
    assert "latent_distance: no error estimate, all prompts" in text_of([row("latent_distance", 0.5, params=why)])
    covered = row("reid_count_0.5", 0, 0, 4, params={"std_error_reason": "a bootstrap sees no spread"}, **REID)
    assert "no error estimate" not in text_of([covered])


def test_one_seed_a_prompt_has_no_extremes_of_its_own():
    def pairs(seeds, **changes):
        params = {"n_prompts": 200, "n_seeds_min": 1, "n_seeds_max": seeds}
        names = ("latent_distance", "latent_distance_min_mean", "latent_distance_min")
        return [row(name, 0.5, 0.4, 0.6, params=params, **changes) for name in names]

    text = text_of(pairs(1))
    assert "mean of the minima" not in text
    assert "200 prompts; minima fall with the number of seeds: 1 a prompt, so that their mean is the mean" in text
    assert "mean of the minima" in text_of(pairs(1) + pairs(4, synthetic_set=GOOD))
    assert "so that" not in text_of(pairs(4))


def test_sets_without_pairs_are_a_line_and_no_column():
    nothing = {"params": {"pairs": "none"}, "reason": "there are no pairs of a real and a synthetic image"}
    nothing |= {"status": "too_few", "std_error": None, "ci_low": None, "ci_high": None, "value": None}
    measured = reid()[:6] + distances()
    rows = [*measured, *(r | nothing | {"synthetic_set": GOOD} for r in measured), *reid()[6:]]
    text = text_of(rows)
    assert text.count("no pairs") == text.count(" good: no pairs") == 1
    assert "there are no pairs" not in text
    assert "good" not in "".join(line for line in text.splitlines() if "n =" in line or "space:" in line)
    assert summary_lines(rows)[-1] == "13 numbers computed, 10 not (10 without pairs)."
    alone = text_of([r | nothing for r in measured])
    assert alone.count(" copier: no pairs") == 1
    assert "distances of pairs" not in alone


def test_counts_stand_beside_their_false_positive_rates():
    text = text_of(reid())
    assert "180 of 200 [175, 186]" in line_of(text, "prompts above 0.5 ↓")
    assert "31 %" in line_of(text, "prompts above 0.5 ↓")
    assert "2.1 %" in line_of(text, "prompts above 0.95 ↓")
    assert "0.1 %" in line_of(text, "prompts above 0.983")
    assert "(calibrated)" in text
    assert "a count means little without its false-positive rate" in text
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
    assert "RANDOM WEIGHTS: untrained network" in text
    assert "RANDOM" not in text_of(everything())
    lines = summary_lines(reid(weights="random:7") + search())
    assert lines[0].startswith("copier: COPIES FOUND")
    assert lines[2] == "RANDOM WEIGHTS: these numbers compare with nothing (siamese_reid: random:7)"


@pytest.mark.parametrize("width", [80, 120])
def test_upstreams_pixel_distance_never_stands_without_its_error(width):
    text = text_of(distances(upstream=True), width)
    assert "pixel_distance_upstream is WRONG: differences wrap modulo 256" in flat(text)
    assert "\x1b[1;31mpixel_distance_upstream is WRONG" in text_of(distances(upstream=True), width, colour=True)
    assert "upstream" not in text_of(distances(), width)
    assert "minima fall with the number of seeds: 10 a prompt" in text


def test_the_papers_values_stand_beside_like_only():
    text = text_of(reid(**PAPER) + distances(True, **PAPER), 120)
    assert "0.365? SD V3.5 Medium" in line_of(text, "mean score")
    assert "0.992? RadEdit" in line_of(text, "maximum")
    assert "0.601 SD V3.5 Medium" in line_of(text, "rad_dino: mean ↑")
    assert "over 2,000 MIMIC-CXR prompts of 10 seeds" in text
    assert "the network was given 224 px images" in flat(text)
    assert line_of(text, "pixel_distance_upstream").split() == ["pixel_distance_upstream:", "WRONG", "157.2"]
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
    assert r"x[/]\x1b]0;owned\x07\u202e" in flat(text)
    for bad in ("\x1b]0", "\x07", "\u202e"):
        assert bad not in text
        assert not any(bad in line for line in summary_lines(rows))
