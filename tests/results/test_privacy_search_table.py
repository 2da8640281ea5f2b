"""The verdicts on each set and the table of the search under them: found, not found, or not to be decided."""

from __future__ import annotations

import pytest
from fixtures.summary import summary_lines
from results.privacy_rows import (
    COPIER,
    GOOD,
    RAD_DINO,
    duplicates,
    everything,
    flat,
    line_of,
    row,
    search,
    text_of,
)  # fmt: skip


def test_copies_are_found_when_the_excess_is_above_zero():
    text = text_of(search())
    assert "copier COPIES FOUND 20 of 400 images flagged, 4.0 expected by chance (pixels), p 0.0004" in flat(text)
    line = line_of(text, "pixels")
    assert "20 of 400* (5 %)" in line
    assert "4.0 [2.1, 6.6]" in line
    assert line.split()[-1] == "0.0004"
    assert text.count("COPIES FOUND") == 1
    assert "no copy found" not in text


@pytest.mark.parametrize("low", [0.0, -0.001])
def test_without_excess_the_verdict_says_what_would_go_unnoticed(low):
    text = text_of(search(5, low, 0.0164))
    says = (
        "no copy found 5 of 400 images flagged, 4.0 expected by chance (pixels), p 0.31 unaltered copies that would go "
        "unnoticed: up to 1.64 % by pixels false positives 1 %; p of 0.025 or less is more than chance; whether "
        "altered copies would be found was not tried"
    )
    assert f"copier {says}" in flat(text)
    assert "COPIES FOUND" not in text
    assert "*" not in line_of(text, "pixels")


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
        assert f"copier no verdict no verdict by pixels: {why}" in text
        assert "COPIES FOUND" not in text
        assert "no copy found" not in text
    assert "its excess over chance is missing" in flat(text_of(search()[:1]))


def test_sets_are_judged_once_over_encoders_copies_first():
    text = flat(text_of(everything(), 120))
    found = "copier COPIES FOUND 20 of 400 images flagged, 4.0 expected by chance (pixels, rad_dino), p 0.0004"
    none = (
        "good no copy found 3 of 400 images flagged, 4.0 expected by chance (pixels); 5 of 400 images flagged, 4.0 "
        "expected by chance (rad_dino), p 0.31 "
    )
    limits = "unaltered copies that would go unnoticed: up to 1.64 % by pixels, up to 2.11 % by rad_dino"
    assert text.index(found) < text.index(f"{none}{limits}")


def test_a_set_with_copies_in_one_space_is_not_called_clear_for_another():
    rows = search() + search(3, -0.008, 0.0164, **RAD_DINO)
    text = text_of(rows)
    assert "no copy found" not in text
    assert "*" in line_of(text, "pixels")
    assert "*" not in line_of(text, "rad_dino")


def test_chance_is_named_and_so_is_what_the_search_cannot_see():
    text = flat(text_of(search()))
    assert (
        "flagged: so much nearer to one of 400 training images than to any held-out image that only 1 % of 399 "
        "held-out images are; chance flags 1 %"
    ) in text
    assert "2.3 % copies, each nearer to training than any held-out image, are always noticed" in text
    assert "blind spot: a copy altered so much" in text
    says = "over the search; 0.025 or less is more than chance; false-alarm rate at most 2.5 % per run"
    assert f"p: how often chance alone flags as many, {says}" in text
    assert "flags as many, over all 4 searches; " in flat(text_of(everything()))
    fallback = flat(text_of(search(params={"null": "training patients", "attained_alpha": 0.005, "n_expected": 2.0})))
    says = "than to those of any other patient that only 0.5 % of 399 training images are; chance flags 0.5 %"
    assert says in fallback
    assert "each nearer to training than any training image to another patient's" in fallback


def test_shares_noticed_that_differ_are_a_range():
    rows = search() + search(params={"smallest_share_noticed": 0.041}, **RAD_DINO)
    assert "sensitivity: 2.3 % to 4.1 % copies, each nearer" in flat(text_of(rows))
    assert "sensitivity" not in text_of(search(params={"smallest_share_noticed": None}))


def test_rows_from_before_the_rank_test_are_read_as_they_were_meant():
    old = search() + search(**RAD_DINO)
    for r in old:
        r["params"] = {k: v for k, v in r["params"].items() if k != "p_value"} | {"smallest_share_noticed_power": 0.8}
    text = flat(text_of(old))
    assert "power: 2.3 % copies, all of them flagged, are noticed in 80 % of such runs" in text
    assert "false-alarm rate about 2.5 % per run: 2 searches are allowed for" in text
    assert "p:" not in text


def test_the_p_value_is_shown_where_the_width_holds_it():
    text = text_of(everything(), 80)
    assert line_of(text, "pixels    copier").split()[-1] == "0.0004"
    assert "p: how often chance" in text
    assert "not shown at this width: p; see results.csv" in text_of(everything(), 60)
    tiny = search(params={"p_value": 1e-9})
    assert line_of(text_of(tiny), "pixels").split()[-2:] == ["<", "1e-6"]


def planted(near=4, low=1.1, floor=0.0, params=None, n_flagged=4):
    """A search that is not significant, beside near duplicates."""
    found = [
        row("duplicates_exact_training", 0, 0.0, 3.5, real_floor=0.0, n_synthetic=80),
        row("duplicates_near_training", near, low, 9.8, real_floor=floor, n_synthetic=80, params=params or {}),
    ]
    return [*search(n_flagged, -0.001, 0.115, n=80), *found]


def test_near_duplicates_of_training_images_are_said_as_loudly_as_copies():
    loud = "4 of 80 images are nearly a training image, 0.0 expected"
    quiet = (
        "as a set: 4 of 80 images flagged, 0.8 expected by chance (pixels), p 0.31: within chance; this does not clear "
        "the images below"
    )
    lines = summary_lines(planted())
    assert lines[0] == f"copier: NEAR DUPLICATES: {quiet}; {loud}"
    text = text_of(planted(), colour=True)
    assert "\x1b[1;31mNEAR DUPLICATES" in text
    assert "no copy found" not in text + "".join(lines)
    assert "1 of 80 images is nearly" in summary_lines(planted(near=1, low=0.1))[0]


@pytest.mark.parametrize("rows", [planted(low=0.9, floor=1.0), planted(params={"significant": False})])
def test_near_duplicates_that_chance_explains_are_counted_quietly(rows):
    line = next(line for line in summary_lines(rows) if line.startswith("copier: no copy found"))
    assert "4 of 80 images flagged, 0.8 expected by chance (pixels), p 0.31; 4 of 80 images are nearly a" in line
    assert "NEAR DUPLICATES" not in text_of(rows)


def test_near_duplicates_without_held_out_images_are_neither_alarm_nor_all_clear():
    lines = summary_lines(planted(floor=None))
    says = "4 of 80 images are nearly a training image; no held-out images tell how often real ones are"
    assert lines[0].startswith("copier: within chance: as a set: ")
    assert lines[0].endswith(says)
    assert not any("no copy found" in line or "NEAR DUP" in line for line in lines)


def test_identical_images_are_not_said_twice_and_need_no_search():
    rows = duplicates(2, 2)
    assert [line for line in summary_lines(rows) if "copier" in line] == [
        "copier: IDENTICAL IMAGES: 2 of 400 images are the same as a training image, 0.4 of as many real ones"
    ]
    assert text_of(rows).count("IDENTICAL") == 1
    assert "no copy found" not in text_of(search(3, -0.01, 0.01) + rows)


def test_one_set_of_copies_does_not_speak_for_another():
    rows = planted() + search(0, -0.01, 0.02, synthetic_set=GOOD)
    assert "good    no copy found" in text_of(rows)


def test_what_params_do_not_tell_is_counted_from_the_share():
    rows = [r | {"params": {"alpha": 0.01}} for r in search()]
    assert "20 of 400 images flagged, 4.0 expected" in text_of(rows)
    assert "20 of 400 images flagged, ? expected" in text_of([r | {"params": {}} for r in search()])


def test_one_search_at_two_levels_gives_two_lines():
    rows = search() + search(3, -0.01, 0.02, params={"alpha": 0.001, "attained_alpha": 0.001, "n_expected": 0.4})
    text = text_of(rows)
    assert "pixels (alpha=0.01)" in text
    assert "3 of 400" in line_of(text, "pixels (alpha=0.001)")


def test_the_copier_is_the_first_line_of_the_summary():
    lines = summary_lines(everything())
    assert lines[0].startswith("copier: COPIES FOUND: 20 of 400")
    assert "2 of 400 images are the same as a training image" in lines[0]
    assert COPIER.startswith("copier")
    assert lines[1].startswith("good: no copy found: ")


@pytest.mark.parametrize(("lowest", "loud"), [(0.31, True), (0.7, False)])
def test_a_single_image_far_below_the_null_is_worth_a_look(lowest, loud):
    share, excess = search(1, -0.0099, 0.004)
    ratios = {"lowest_ratio": lowest, "lowest_null_ratio": 0.8}
    rows = [share | {"params": share["params"] | ratios}, excess | {"params": excess["params"] | ratios}]
    text = flat(text_of(rows))
    assert ("ratio of distances 0.31 by pixels, of the baseline at least 0.8" in text) is loud
    assert ("no copy found" in text) is not loud
    assert any(line.startswith("copier: LOOK AT ONE IMAGE: ") for line in summary_lines(rows)) is loud


IDS = ["d-0.png", "d-4.png", "d-8.png", "d-12.png"]


def planted_and_named():
    """The same with the ids that runs write: four images flagged by each part, and one far below the baseline."""
    share, excess, exact, near = planted()
    told = {"lowest_ratio": 0.28, "lowest_null_ratio": 0.6, "outlier": True, "note_lowest_id": IDS[0]}
    rows = [each | {"params": each["params"] | told} for each in (share, excess)]
    near = near | {"params": {"note_flagged": IDS}}
    count = row("images_flagged", 4, encoder="", better="", n_synthetic=80, params={"note_flagged": IDS})
    return [count, *rows, exact, near]


def test_the_set_as_a_whole_then_images_by_id_and_nothing_takes_back_another():
    lines = summary_lines(planted_and_named())
    facts = [
        "as a set: 4 of 80 images flagged, 0.8 expected by chance (pixels), p 0.31: within chance; this does not clear "
        "the images below",
        "4 of 80 images are nearly a training image, 0.0 expected: d-0.png, d-4.png, d-8.png and 1 more",
        "d-0.png: ratio of distances 0.28 by pixels, of the baseline at least 0.6 (copies.parquet)",
        "flagged by any part: 4 of 80 images: d-0.png, d-4.png, d-8.png and 1 more; see verdicts.parquet",
    ]
    assert lines[0] == f"copier: NEAR DUPLICATES: {'; '.join(facts)}"
    text = flat(text_of(planted_and_named(), 120))
    assert "not significant" not in text
    assert f"copier NEAR DUPLICATES {' '.join(facts)}" in text
    assert "images_flagged" not in text  # it is said in words


def test_only_the_first_ids_are_named_and_hostile_ones_are_escaped():
    rows = [
        row("images_flagged", 9, encoder="", better="", params={"note_flagged": ["a\x1b[31m", *IDS[:2]]}),
        *search(3, -0.01, 0.02),
    ]
    assert summary_lines(rows)[0].endswith(
        "flagged by any part: 9 of 400 images: a\\x1b[31m, d-0.png, d-4.png and 6 more; see verdicts.parquet"
    )
