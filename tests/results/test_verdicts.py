"""What privacy and utility rows decide, without a table."""

from __future__ import annotations

from typing import Any

import pytest
from results.privacy_rows import COPIER, GOOD, RAD_DINO, duplicates, everything, reid, row, search

from chexray.results.copies import FALSE_ALARM, CopyVerdict
from chexray.results.rows import to_records
from chexray.results.trainings import differing, excludes_zero, shows_difference
from chexray.results.verdicts import recognises_nobody, set_verdicts


def verdicts(rows: list[dict]):
    return set_verdicts(to_records(rows))


def test_each_set_is_judged_by_every_search_of_every_encoder():
    copier, good = verdicts(everything())
    assert (copier.synthetic_set, good.synthetic_set) == (COPIER, GOOD)
    assert [search.encoder for search in copier.hits] == ["pixels", "rad_dino"]
    assert copier.alarm
    assert copier.duplicated.identical
    assert not good.alarm
    assert (good.hits, good.undecided) == ([], [])
    assert [search.unnoticed for search in good.clear] == pytest.approx([0.0164, 0.0211])
    assert good.searches[0].flagged == 3
    assert good.searches[0].expected == 4.0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"value": None, "ci_low": None, "ci_high": None, "status": "undefined", "reason": "all equal"}, "all equal"),
        ({"ci_low": None, "ci_high": None}, "the excess has no interval"),
    ],
)
def test_without_a_value_or_an_interval_nothing_is_decided(change, reason):
    share, excess = search()
    (found,) = verdicts([share, excess | change])
    assert found.undecided[0].verdict == CopyVerdict(None, reason)
    assert not found.judged
    assert not found.alarm


def test_what_a_row_tested_itself_outranks_its_interval():
    share, excess = search(20, 0.021, 0.066, params={"significant": False, "p_value": 0.2})
    assert verdicts([share, excess])[0].clear
    assert verdicts(search(20, 0.021, 0.066))[0].hits


def test_settings_of_one_encoder_and_encoders_of_one_name_are_told_apart():
    rows = search() + search(3, -0.01, 0.02, params={"alpha": 0.001, "attained_alpha": 0.001})
    assert [each.encoder for each in verdicts(rows)[0].searches] == ["pixels (alpha=0.01)", "pixels (alpha=0.001)"]
    paper: dict[str, Any] = RAD_DINO
    rows = search(**paper) + search(**(paper | {"weights": "random:7"}))
    assert [each.encoder for each in verdicts(rows)[0].searches] == [
        "rad_dino (microsoft/rad-dino)", "rad_dino (random:7)"
    ]  # fmt: skip


def test_rows_about_a_network_make_no_set_and_runs_are_sets_of_their_own():
    assert [each.synthetic_set for each in verdicts(search() + reid())] == [COPIER]
    assert len(verdicts(search() + search(run_id="r2"))) == 2
    assert len(verdicts(search() + search(protocol="chexgenbench"))) == 2


def test_near_duplicates_alarm_beyond_chance_only_and_stay_open_without_held_out_images():
    near = row("duplicates_near_training", 4, 1.1, 9.8, real_floor=0.0)
    assert verdicts([near])[0].duplicated.nearly
    assert not verdicts([near | {"real_floor": 2.0}])[0].alarm
    assert verdicts([near | {"real_floor": None}])[0].duplicated.unchecked
    assert not verdicts([near | {"params": {"significant": False}}])[0].alarm
    assert not verdicts(duplicates(0, 0))[0].alarm


def test_a_shift_of_case_mix_is_told_where_it_is_all_that_explains_flags():
    told = {"p_value": 0.2, "p_value_as_if_alike": FALSE_ALARM / 2, "significant": False, "case_mix_shifted": True}
    told |= {"local_dimension": 4.0, "local_dimension_null": 9.0}
    (found,) = verdicts(search(params=told))
    assert found.clear[0].explained
    assert found.clear[0].case_mix == (4.0, 9.0)


def test_a_network_that_tells_nobody_apart_is_named_with_its_auc():
    rows = to_records(reid())
    assert recognises_nobody(rows) == []
    low = [each | {"ci_low": 0.48} if each["metric"] == "reid_auc" else each for each in rows]
    assert recognises_nobody(low) == [
        "the network does not tell patients apart: AUC 0.967 [0.480, 0.980] on real pairs, chance is 0.5"
    ]


def difference(subset: str, low: float, high: float, p_value: float | None, seeds: int = 3) -> dict:
    told = {"seeds": seeds, "setting": "synthetic"} | ({} if p_value is None else {"p_value": p_value})
    value = (low + high) / 2
    return row("auroc_difference", value, low, high, suite="utility", subset=subset, params=told)


def test_findings_are_named_only_beyond_what_many_findings_give_by_chance():
    rows = to_records([difference("a", 0.1, 0.2, 0.001), difference("b", 0.01, 0.2, 0.04), difference("c", -1, 1, 0.9)])
    assert [excludes_zero(each) for each in rows] == [True, True, False]
    assert differing(rows) == {"a"}  # b alone would be named, of three it is not
    assert differing(rows[1:2]) == {"b"}
    assert differing(to_records([difference("b", 0.01, 0.2, None)])) == {"b"}
    alone = to_records([difference("a", 0.1, 0.2, 0.001, seeds=1)])
    assert differing(alone) == set()
    assert not shows_difference(alone[0])
