"""The verdicts on each set and the table of the search under them: found, not found, or not to be decided."""

from __future__ import annotations

import pytest
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
    section,
    text_of,
)  # fmt: skip

from chexray.results.table import summary_lines


def test_copies_are_found_when_the_excess_is_above_zero():
    text = text_of(search())
    assert "COPIES FOUND in copier: 20 of 400 images flagged, 4.0 expected by chance (pixels)" in text
    line = line_of(text, "pixels")
    assert "20 of 400 (5 %)" in line
    assert "4.0 [2.1, 6.6]" in line
    assert line.split()[-3:] == ["0.0004", "COPIES", "FOUND"]
    assert line.rstrip().endswith("COPIES FOUND")
    assert "no copy found" not in text


@pytest.mark.parametrize("low", [0.0, -0.001])
def test_without_excess_the_verdict_says_what_would_go_unnoticed(low):
    text = text_of(search(5, low, 0.0164))
    says = (
        "no copy found at this sensitivity (5 of 400 flagged, 4.0 expected; p 0.31, threshold 0.025; false positives "
        "1 %; up to 1.64 % unaltered copies would go unnoticed by pixels; whether altered copies would be found was "
        "not tried)"
    )
    assert f"copier: {says}" in flat(text)
    assert "COPIES FOUND" not in text
    assert line_of(text, "pixels").rstrip().endswith("within chance")


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
    none = (
        "good: no copy found at this sensitivity (rad_dino: 5 of 400 flagged, 4.0 expected; p 0.31, threshold 0.025; "
        "false positives 1 %; "
    )
    limits = "up to 1.64 % unaltered copies would go unnoticed by pixels, up to 2.11 % by rad_dino"
    assert text.index(found) < text.index(f"{none}{limits}")


def test_a_set_with_copies_in_one_space_is_not_called_clear_for_another():
    rows = search() + search(3, -0.008, 0.0164, **RAD_DINO)
    assert "no copy found" not in text_of(rows)
    assert "within chance" in text_of(rows)


def test_chance_is_named_and_so_is_what_the_search_cannot_see():
    text = flat(text_of(search()))
    assert (
        "flagged: its nearest of 400 training images is nearer, relative to its nearest held-out image, than for all "
        "but 1 % of 399 held-out images; by chance: that 1 %"
    ) in text
    assert "2.3 % copies, each nearer to training than any held-out image, are always noticed" in text
    assert "blind spot: a copy altered so much" in text
    says = "p: chance alone, over the search; 0.025 or less is beyond chance: false-alarm rate at most 2.5 % per run"
    assert says in text
    assert "p: chance alone, over all 4 searches; " in flat(text_of(everything()))
    fallback = flat(text_of(search(params={"null": "training patients", "attained_alpha": 0.005, "n_expected": 2.0})))
    assert "for all but 0.5 % of 399 training images among other patients'; by chance: that 0.5 %" in fallback
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
    assert "power: 2.3 % copies, all of them flagged, are noticed in 80 % of such audits" in text
    assert "false-alarm rate about 2.5 % per run: 2 searches are allowed for" in text
    assert "p:" not in text


def test_the_p_value_outlives_the_verdict_where_width_is_short():
    text = text_of(everything(), 80)
    assert line_of(text, "pixels    copier").split()[-1] == "0.0004"
    assert "p: chance" in text
    assert "p: chance" not in text_of(everything(), 60)
    tiny = search(params={"p_value": 1e-9})
    assert line_of(text_of(tiny), "pixels").split()[-4:] == ["<", "1e-6", "COPIES", "FOUND"]


def planted(near=4, low=1.1, floor=0.0, params=None, n_flagged=4):
    """A search that is not significant, beside near duplicates."""
    found = [
        row("duplicates_exact_training", 0, 0.0, 3.5, real_floor=0.0, n_synthetic=80),
        row("duplicates_near_training", near, low, 9.8, real_floor=floor, n_synthetic=80, params=params or {}),
    ]
    return [*search(n_flagged, -0.001, 0.115, n=80), *found]


def test_near_duplicates_of_training_images_are_said_as_loudly_as_copies():
    loud = "NEAR DUPLICATES in copier: 4 of 80 images are nearly a training image, 0.0 expected"
    quiet = (
        "copier as a set: 4 of 80 images flagged, 0.8 expected by chance (pixels): within chance (p 0.31, threshold "
        "0.025); this does not clear the images above"
    )
    lines = summary_lines(planted())
    assert lines[:2] == [loud, quiet]
    text = text_of(planted(), colour=True)
    assert "\x1b[1;31mNEAR DUPLICATES in copier" in text
    text = text_of(planted())
    assert text.index(loud) < flat(text).index(quiet)
    assert "no copy found" not in text + "".join(lines)
    assert "NEAR DUPLICATES in copier: 1 of 80 images is nearly" in summary_lines(planted(near=1, low=0.1))[0]


@pytest.mark.parametrize("rows", [planted(low=0.9, floor=1.0), planted(params={"significant": False})])
def test_near_duplicates_that_chance_explains_are_counted_quietly(rows):
    line = next(line for line in summary_lines(rows) if line.startswith("copier: no copy found"))
    assert "4 of 80 flagged, 0.8 expected; 4 of 80 are nearly a training image" in line
    assert "NEAR DUPLICATES" not in text_of(rows)


def test_near_duplicates_without_held_out_images_are_neither_alarm_nor_all_clear():
    lines = summary_lines(planted(floor=None))
    says = "copier: 4 of 80 images are nearly a training image; no held-out images tell how often real ones are"
    assert lines[0] == says
    assert not any("no copy found" in line or "NEAR DUP" in line for line in lines)


def test_identical_images_are_not_said_twice_and_need_no_search():
    rows = duplicates(2, 2)
    assert [line for line in summary_lines(rows) if "copier" in line] == [
        "IDENTICAL in copier: 2 images of 400 are the same as a training image, 0.4 of as many real ones"
    ]
    assert "IDENTICAL in copier" in section(text_of(rows), "duplicates")
    assert "no copy found" not in text_of(search(3, -0.01, 0.01) + rows)


def test_one_set_of_copies_does_not_speak_for_another():
    rows = planted() + search(0, -0.01, 0.02, synthetic_set=GOOD)
    assert "good: no copy found at this sensitivity" in text_of(rows)


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
    assert lines[0].startswith("IDENTICAL in copier: 2 images of 400")
    assert lines[2].startswith("COPIES FOUND in copier: 20 of 400")
    assert COPIER.startswith("copier")
    assert any(line.startswith("good: no copy found at this sensitivity") for line in lines)


@pytest.mark.parametrize(("lowest", "loud"), [(0.31, True), (0.7, False)])
def test_a_single_image_far_below_the_null_is_worth_a_look(lowest, loud):
    share, excess = search(1, -0.0099, 0.004)
    ratios = {"lowest_ratio": lowest, "lowest_null_ratio": 0.8}
    rows = [share | {"params": share["params"] | ratios}, excess | {"params": excess["params"] | ratios}]
    text = flat(text_of(rows))
    assert ("LOOK AT copier: ratio 0.31 by pixels, the lowest of the baseline is 0.8" in text) is loud
    assert ("no copy found" in text) is not loud
    assert any(line.startswith("LOOK AT") for line in summary_lines(rows)) is loud


IDS = ["d-0.png", "d-4.png", "d-8.png", "d-12.png"]


def planted_and_named():
    """The same with the ids that runs write: four images flagged by each part, and one far below the baseline."""
    share, excess, exact, near = planted()
    told = {"lowest_ratio": 0.28, "lowest_null_ratio": 0.6, "outlier": True, "note_lowest_id": IDS[0]}
    rows = [each | {"params": each["params"] | told} for each in (share, excess)]
    near = near | {"params": {"note_flagged": IDS}}
    count = row("images_flagged", 4, encoder="", better="", n_synthetic=80, params={"note_flagged": IDS})
    return [count, *rows, exact, near]


def test_images_by_id_then_the_set_as_a_whole_and_nothing_takes_back_another():
    lines = summary_lines(planted_and_named())
    assert lines[:4] == [
        "FLAGGED in copier: 4 of 80 images: d-0.png, d-4.png, d-8.png, d-12.png (each with its reasons in "
        "verdicts.parquet)",
        "NEAR DUPLICATES in copier: 4 of 80 images are nearly a training image, 0.0 expected: d-0.png, d-4.png, "
        "d-8.png, d-12.png",
        "LOOK AT copier: d-0.png, ratio 0.28 by pixels, the lowest of the baseline is 0.6 (copies.parquet)",
        "copier as a set: 4 of 80 images flagged, 0.8 expected by chance (pixels): within chance (p 0.31, threshold "
        "0.025); this does not clear the images above",
    ]
    text = flat(text_of(planted_and_named(), 120))
    assert "not significant" not in text
    assert [text.index(line[:30]) for line in lines[:4]] == sorted(text.index(line[:30]) for line in lines[:4])
    assert "images_flagged" not in text  # it is said in words


def test_only_the_first_ids_are_named_and_hostile_ones_are_escaped():
    rows = [
        row("images_flagged", 9, encoder="", better="", params={"note_flagged": ["a\x1b[31m", *IDS[:2]]}),
        *search(3, -0.01, 0.02),
    ]
    assert summary_lines(rows)[0] == (
        "copier: flagged: 9 of 400 images: a\\x1b[31m, d-0.png, d-4.png and 6 more (each with its reasons in "
        "verdicts.parquet)"
    )
