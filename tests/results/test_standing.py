"""Which numbers are never called better, what is judged by its floor, and who is named as worse."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from calibration import winners
from fixtures.summary import summary_lines
from results.test_compare import row
from results.test_compare import text_of as compared
from results.test_results_table import lines_of, text_of
from results.test_results_table import row as result

from chexray.results.aligned import compare
from chexray.results.decisions import decide
from chexray.results.legacy import upgraded

BIASED = json.dumps({"bias_dominated": True})
COPIED = json.dumps({"n_copies_of_real": 3, "copies_of_real_first": ["a.png", "b.png", "c.png"]})
HIGHER = {"better": "higher"}


def verdict(*rows):
    return decide(dict(zip("ABCDEFGHIJ", map(upgraded, rows), strict=False)))


def test_what_is_mostly_bias_is_not_better_and_a_number_far_above_its_floor_is_worse():
    few, many = row("fid", 3.4, 0.3, params=BIASED, real_floor=4.3), row("fid", 4.1, 0.3, params=BIASED, real_floor=4.3)
    assert verdict(few, many).text.startswith("no winner: A is ")  # a perfect set against one of too little variety
    assert not verdict(few, many).worse
    far = row("fid", 50.0, 2.0, params=BIASED, real_floor=4.3)
    found = verdict(many, far)
    assert (found.text, found.winner, found.worse) == (
        "no winner: A mainly reflects sample size; B is worse", "", ("B",),
    )  # fmt: skip
    assert verdict(row("fid", 3.4, 0.3), row("fid", 50.0, 2.0)).winner == "A"


@pytest.mark.parametrize("said", [{"beyond_floor": "better", "real_floor_std_error": 1e-4}, {}])
def test_what_is_beyond_its_floor_in_the_good_direction_is_not_better(said):
    copier = row(value=-0.006, half=0.001, real_floor=2.5e-4, **said)
    found = verdict(copier, row(value=0.3, real_floor=2.5e-4))
    assert (found.text, found.winner, found.worse) == ("no winner: A is beyond its real floor", "", ())
    third = verdict(copier, row(value=0.02, real_floor=2.5e-4), row(value=0.3, real_floor=2.5e-4))
    assert (third.text, third.worse) == ("no winner: A is beyond its real floor; C is worse", ("C",))


def test_a_floor_whose_error_is_known_is_judged_by_what_the_row_says():
    near = row(value=0.001, half=0.0005, real_floor=0.002, real_floor_std_error=0.002, beyond_floor="")
    assert verdict(near, row(value=0.3, real_floor=0.002)).winner == "A"


def test_privacy_numbers_below_those_of_strangers_may_be_better():
    good = row("reid_mean", 0.1, suite="privacy", real_floor=0.2)
    assert verdict(good, row("reid_mean", 0.4, suite="privacy", real_floor=0.2)).winner == "A"


@pytest.mark.parametrize("metric", ["density", "vendi"])
def test_density_and_vendi_are_judged_by_their_distance_to_the_floor(metric):
    perfect, averages, poor = (
        row(metric, value, half, real_floor=1.04, **HIGHER) for value, half in [(1.15, 0.25), (2.6, 0.5), (0.2, 0.1)]
    )
    assert verdict(perfect, averages).winner == "A"
    assert verdict(averages, perfect).winner == "B"
    assert verdict(perfect, poor).winner == "A"
    assert verdict(averages, poor).winner == "B"  # 0.84 from the floor against 1.56
    assert verdict(perfect, row(metric, 0.9, 0.2, real_floor=1.04, **HIGHER)).text == "tie (intervals overlap)"
    assert verdict(perfect, row(metric, 2.6, 0.5, **HIGHER, real_floor=None)).text.startswith("unknown: no real floor")


def test_the_error_of_the_floor_counts_as_far_as_it_could_turn_the_order():
    below, above = (row("density", value, 0.1, real_floor=1.0, **HIGHER) for value in (0.8, 1.5))
    assert verdict(below, above).winner == "A"
    unsure = {"real_floor_std_error": 0.2}
    assert not verdict(below | unsure, above | unsure).winner  # 1.15 is half way, and may be the floor
    higher = row("density", 3.0, 0.1, real_floor=1.0, **HIGHER)
    assert verdict(above | unsure, higher | unsure).winner == "A"  # whichever it is, 1.5 is nearer


def test_nearer_to_the_floor_agrees_with_draws_of_all_three_numbers():
    """A star where 97.5 % of draws at least agree, and no star where they do not, but for the margin of intervals."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((3, 20_000))
    for _ in range(200):
        a, b, floor = rng.uniform(-3, 3, 3)
        errors = rng.uniform(0.05, 0.8, 3)
        rows = [
            row("density", value, 1.96 * error, real_floor=floor, real_floor_std_error=errors[2], **HIGHER)
            for value, error in zip((a, b), errors[:2], strict=True)
        ]
        drawn = np.array([a, b, floor])[:, None] + errors[:, None] * noise
        nearer = float(np.mean(np.abs(drawn[0] - drawn[2]) < np.abs(drawn[1] - drawn[2])))
        winner = verdict(*rows).winner
        assert nearer > 0.975 if winner == "A" else nearer < 0.025 if winner == "B" else 1e-5 < nearer < 1 - 1e-5


def test_utility_has_a_vendi_of_its_own_direction():
    a, b = (row("density", value, 0.1, suite="utility", **HIGHER) for value in (2.6, 1.0))
    assert verdict(a, b).winner == "A"


def test_a_set_with_copies_of_real_images_does_not_win_and_is_no_yardstick():
    leak, good = row(value=0.001, half=0.0005, params=COPIED), row(value=0.05)
    found = verdict(leak, good)
    assert (found.text, found.winner, found.worse) == ("no winner: A holds copies of the real images", "", ())
    assert "copies of the real images are in A" in found.notes
    assert verdict(row(value=0.4, params=COPIED), good).winner == "B"  # it loses like any other


def test_of_three_the_worse_are_named_and_one_set_in_two_runs_counts_once():
    same = {"synthetic_set": "x@aaaaaaaaaaaaaaaa"}
    high = {"metric": "recall", "value": 0.933, "half": 0.08} | HIGHER
    low = [row("recall", value, 0.13, synthetic_set=f"y@{digit * 16}", **HIGHER) for value, digit in [(0.267, "b")]]
    found = verdict(row(**high, **same), low[0], row(**high, **same), low[0])
    assert (found.text, found.winners, found.worse) == ("better: A and C", ("A", "C"), ("B", "D"))
    assert "A and C are one set" in found.notes
    other = row(**high, synthetic_set="z@cccccccccccccccc")
    found = verdict(row(**high, **same), low[0], row(**high, **same), other)
    assert (found.text, found.winner, found.worse) == ("no single best; B is worse", "", ("B",))
    assert verdict(row(**same), row(**same)).text == "tie (intervals overlap)"


def test_a_metric_that_says_it_moves_with_n_needs_equal_n():
    small = {"n": 100, "value": 0.05}
    for moves in (True, ["n_synthetic"], "n_synthetic"):
        params = json.dumps({"moves_with_n": moves})
        found = verdict(row("fid_infinity"), row("fid_infinity", **small, params=params))
        assert found.text.startswith("not comparable: n differs (n_synthetic 222 against 100)")
    params = json.dumps({"moves_with_n": ["n_real"]})
    assert verdict(row("fid_infinity"), row("fid_infinity", **small, params=params)).winner == "A"


def test_compare_names_winners_and_losers_in_columns_and_letters():
    sets = [("a", 0.02), ("b", 0.021), ("c", 0.3)]
    rows = [
        row(value=value, synthetic_set=name, subset=s, std_error=0.002)
        for name, value in sets
        for s in ("all", "sex:F")
    ]
    table = compare({"A": pd.DataFrame(rows)})
    assert list(table["verdict"]) == ["no single best; A/c is worse"] * 2
    assert list(table["A/c.standing"]) == ["worse"] * 2
    assert list(table["A/a.standing"]) == [""] * 2
    text = compared(table, 160)
    assert next(line for line in text.splitlines() if line.startswith("sex:F")).split() == ["sex:F", "222", "-C"]
    assert "-A: no winner, and this one is worse" in text
    assert "2 comparisons: 2 no single best." in text


def three(metric, numbers, floor, **changes):
    return [
        result(metric, value, error, real_floor=floor, synthetic_set=f"{name}@{digit * 16}", **changes)
        for (value, error), name, digit in zip(numbers, ("one", "two", "three"), "abc", strict=False)
    ]


@pytest.mark.parametrize("width", [80, 160])
def test_one_floor_is_printed_as_one_number_whatever_the_errors_beside_it(width):
    text = text_of(three("kid", [(0.31, 0.02), (0.4, 0.002), (0.5, 0.2)], 0.0252), width)
    assert "0.025 " not in text
    assert text.count("0.0252") == 1
    equal = text_of(three("precision", [(0.933, 0.1), (0.933, 0.02)], None), width)
    assert equal.count("0.933 ") == 2
    two = three("kid", [(0.31, 0.02), (0.4, 0.002)], 0.0252)
    two[1]["real_floor"] = 0.0311
    text = text_of(two, width)
    assert lines_of(text, "other real images, n of one")[0].split()[-1] == "0.0252"
    assert lines_of(text, "other real images, n of two")[0].split()[-1] == "0.0311"


def test_the_table_stars_what_is_near_the_floor_and_marks_what_is_beyond_it():
    density = three("density", [(1.15, 0.14), (2.59, 0.25)], 1.04, better="higher")
    text = text_of(density, 100)
    assert "1.15* [0.88, 1.42]" in lines_of(text, "one")[0]
    assert "2.59^ [2.10, 3.08]" in lines_of(text, "two")[0]
    assert "density: the nearer to the real floor, the better" in text
    assert "^  better than other real images get" in text
    assert "density (floor)" in text_of(density, 100, "ascii")


def test_the_error_of_a_floor_stands_beside_it():
    rows = [r | {"real_floor_std_error": 0.0004, "beyond_floor": ""} for r in three("kid", [(0.3, 0.02)] * 2, 0.0022)]
    assert "0.00220 ± 0.00040" in text_of(rows, 120)


def test_the_table_says_which_sets_are_worse_where_none_is_best():
    text = text_of(three("kid", [(0.02, 0.002), (0.021, 0.002), (0.3, 0.02)], 0.001), 160)
    assert "*" not in text
    assert "three  worse than the best set by kid (pixels)" in text


def test_copies_of_real_images_are_the_first_line_and_marked_in_the_table():
    rows = three("kid", [(0.001, 0.0002), (0.3, 0.02)], 0.0005)
    rows[0]["params"] = COPIED
    assert summary_lines(rows)[0] == (
        "one: COPIES OF REAL IMAGES: 3 of 222 images are images of nih (equal pixel by pixel), first a.png, b.png, "
        "c.png; its fidelity numbers measure these copies: take them out and run again"
    )
    text = text_of(rows, 120)
    assert "0.00100= [0.00061, 0.00139]" in text
    assert "*" not in text
    assert "=  the set holds images of the real set" in text


def test_the_p_value_of_kid_is_shown():
    rows = three("kid", [(0.001, 0.0002), (0.3, 0.02)], 0.0005)
    for one, p in zip(rows, (0.43, 0.002), strict=True):
        one["params"] = json.dumps({"p_value": p})
    text = text_of(rows, 160)
    assert "one  not told apart     kid p 0.43 (pixels)" in text
    assert "two  differs from real  kid p 0.002 (pixels)" in text
    assert text.count("0.43 (") == text.count("p 0.002") == 1
    of = [rows[0] | {"subset": "finding:Edema"}, rows[1] | {"subset": "finding:Fracture"}]
    text = text_of([one | {"synthetic_set": "s"} for one in of], 160)
    assert "kid: not told apart from real images (permutation test, p >= 0.05): Edema" in text


@pytest.mark.parametrize("by_floor", [False, True])
@pytest.mark.parametrize("n_sets", [2, 5, 30])
def test_equal_sets_are_seldom_called_better_or_worse_and_a_better_one_is_starred(n_sets, by_floor):
    """A slice of tests/calibration/winners.py, which has the rates."""
    equal = winners.numbers(n_sets, 2.0, by_floor, 150, 5)
    assert equal["star"] <= 0.03
    assert equal["worse"] <= 0.1
    assert winners.numbers(n_sets, 2.0, by_floor, 60, 6, gap=6.0)["right"] >= 0.8


def test_averages_of_two_real_images_are_never_starred_and_a_perfect_set_is():
    found = winners.pictures("averages", 2, 3, n=80)
    assert all(found[metric]["other"] == 0 for metric in ("fid", "density", "vendi"))
    assert found["density"]["perfect"] == 1.0


def test_why_there_is_no_floor_is_said_once():
    rows = [
        result(metric, real_floor=None, params=json.dumps({"floor_reason": "too few patients"}))
        for metric in ("kid", "fid", "density")
    ]
    assert text_of(rows, 120).count("no real floor for kid, fid, density: too few patients") == 1
