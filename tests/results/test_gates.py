"""`--fail-on`: what breaks a gate, what holds it, what it refuses to answer, and how often it breaks without cause."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from results.privacy_rows import COPIER, GOOD, duplicates, row, search

from chexray.errors import ConfigError
from chexray.results.gates import Gate, check_gates, flags, read_gates
from chexray.results.judged_by import without_numbers
from chexray.results.judging import judge, stretch
from chexray.results.rows import to_table

REAL, OTHER_REAL = "nih@0123456789abcdef", "other@ffffffffffffffff"


def frame(*rows: dict) -> pd.DataFrame:
    return to_table(rows).to_pandas()


def number(metric: str = "kid", value: float = 0.02, half: float = 0.004, **changes) -> dict:
    own = {"suite": "fidelity", "real_set": REAL, "synthetic_set": GOOD}
    return row(metric, value, value - half, value + half, **{**own, **changes})


def judged(gate: str, results: pd.DataFrame, sets=None, baselines=None):
    (found,) = judge(read_gates([gate]), results, sets or {}, baselines or {})
    return found


def test_gates_are_named_by_commas_and_by_repetition_each_once() -> None:
    gates = read_gates(["copies, duplicates", "rejects:0.5%", "copies", "worse-than:s3://bucket/out/run-1:kid"])
    assert [str(gate) for gate in gates] == [
        "copies", "duplicates", "rejects:0.5%", "worse-than:s3://bucket/out/run-1:kid",
    ]  # fmt: skip
    assert (gates[2].share, gates[3].run, gates[3].metric) == (0.005, "s3://bucket/out/run-1", "kid")
    assert read_gates(flags(gates)[1::2]) == gates
    assert read_gates(None) == ()


@pytest.mark.parametrize(
    ("text", "run", "metric"),
    [
        ("out/run-1", "out/run-1", ""),
        ("s3://bucket/out", "s3://bucket/out", ""),
        ("/a/b:fid", "/a/b", "fid"),
        ("run:reid_count_0.5", "run", "reid_count_0.5"),
        ("a:b/c", "a:b/c", ""),
    ],
)
def test_a_metric_is_told_from_a_location(text: str, run: str, metric: str) -> None:
    assert read_gates([f"worse-than:{text}"]) == (Gate("worse-than", run, metric),)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("copeis", "Did you mean copies"),
        ("Duplicates", "Did you mean duplicates"),
        ("worse_than:x", "Did you mean worse-than"),
        ("speed", r"Known: copies, duplicates, rejects, worse-than:RUN"),
        ("rejects:many", "share of the images"),
        ("rejects:120%", "share of the images"),
        ("copies:3", "no such gate"),
        ("worse-than", "With what|with what"),
        ("worse-than:", "no such gate"),
    ],
)
def test_what_is_no_gate_is_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read_gates([text])


def test_a_gate_that_the_run_cannot_answer_is_refused_before_it() -> None:
    baseline = {"old": frame(number())}
    for gate in ("copies", "duplicates"):
        with pytest.raises(ConfigError, match=f"--fail-on {gate}: .*--suite fidelity,privacy"):
            check_gates(read_gates([gate]), ["fidelity"], {})
        check_gates(read_gates([gate]), ["privacy"], {})
    with pytest.raises(ConfigError, match=r"privacy\.duplicates is false"):
        check_gates(read_gates(["duplicates"]), ["privacy"], {}, duplicates=False)
    with pytest.raises(ConfigError, match="holds numbers of fidelity, and this run computes privacy"):
        check_gates(read_gates(["worse-than:old"]), ["privacy"], baseline)
    with pytest.raises(ConfigError, match=r"has no metric 'kdi'\. Did you mean 'kid'"):
        check_gates(read_gates(["worse-than:old:kdi"]), ["fidelity"], baseline)
    check_gates(read_gates(["worse-than:old:kid"]), ["fidelity"], baseline)


def test_copies_are_found_by_the_verdict_of_a_search() -> None:
    results = frame(*search(20), *search(3, -0.008, 0.0164, synthetic_set=GOOD))
    found = judged("copies", results)
    assert found.broken == (
        "copier: 20 of 400 images flagged, 4.0 expected by chance (pixels, p 0.0004, threshold 0.025)",
    )
    assert found.lines == [f"FAILED GATE copies: {found.broken[0]}"]
    clear = judged("copies", frame(*search(3, -0.008, 0.0164)))
    assert clear.broken == ()
    assert clear.lines[0].startswith("gate copies holds: no copies found in 1 synthetic set")


def test_an_identical_image_is_a_copy_and_a_duplicate() -> None:
    results = frame(*search(3, -0.008, 0.0164), *duplicates(exact=1, near=1))
    for gate in ("copies", "duplicates"):
        assert judged(gate, results).broken == (
            "copier: 1 of 400 images is the same as a training image, none is allowed",
        )


def test_near_duplicates_break_their_gate_beyond_chance_only() -> None:
    def near(count: int, **params) -> pd.DataFrame:
        rows = duplicates(near=count)
        return frame(
            *({**each, "params": params} if each["metric"].endswith("near_training") else each for each in rows)
        )

    found = judged("duplicates", near(21, significant=True))
    assert found.broken == (
        "copier: 21 of 400 images are nearly a training image, 0.4 expected by chance (threshold p 0.025)",
    )
    assert not judged("duplicates", near(1, significant=False)).broken


def test_what_was_not_judged_breaks_its_gate_and_says_why() -> None:
    nothing = [{**each, "value": None, "ci_low": None, "ci_high": None, "status": "too_few", "reason": "1 image"}
               for each in search()]  # fmt: skip
    (line,) = judged("copies", frame(*nothing)).broken
    assert line == "copier: whether there are copies could not be judged: 1 image (pixels)"
    (line,) = judged("copies", frame(*duplicates())).broken
    assert "could not be judged: nothing was searched" in line
    assert judged("duplicates", frame(*search())).broken == ("copier: duplicates could not be judged",)
    unknown = [{**each, "real_floor": None} for each in duplicates(near=2)]
    (line,) = judged("duplicates", frame(*unknown)).broken
    assert "2 of 400 images are nearly a training image, and no held-out images tell" in line
    with pytest.raises(ConfigError, match="no numbers of the privacy suite"):
        judged("copies", frame(number()))


def test_rejects_are_counted_set_by_set() -> None:
    sets = {"real": (100, 0), "made": (199, 1)}
    found = judged("rejects", frame(number()), sets)
    assert found.broken == ("made: 1 image of 200 was rejected, none is allowed",)
    held = judged("rejects:0.5%", frame(number()), sets)
    assert held.lines == ["gate rejects:0.5% holds: 1 of 300 images rejected, 0.5 % are allowed"]
    assert judged("rejects:0.4%", frame(number()), sets).broken


def test_worse_is_only_what_intervals_tell_apart() -> None:
    base = {"old": frame(number(), number("fid", 12, 1))}
    now = frame(number(value=0.05, synthetic_set=COPIER), number("fid", 13, 1, synthetic_set=COPIER))
    found = judged("worse-than:old", now, baselines=base)
    assert found.broken == (
        "copier: kid 0.0500 [0.0460, 0.0540] (lower is better, pixels), 0.0200 [0.0160, 0.0240] in old",
    )
    assert not judged("worse-than:old:fid", now, baselines=base).broken
    better = frame(number(value=0.001, half=0.0005, synthetic_set=COPIER))
    assert judged("worse-than:old", better, baselines=base).told == "none of 1 number is worse than in old"
    higher = {"old": frame(number("recall", 0.8, 0.02, better="higher"))}
    assert judged("worse-than:old", frame(number("recall", 0.6, 0.02, better="higher", synthetic_set=COPIER)),
                  baselines=higher).broken  # fmt: skip


def test_a_set_is_held_against_the_one_of_its_name_or_the_only_one() -> None:
    several = {"old": frame(number(), number(value=0.06, synthetic_set=COPIER))}
    again = "copier@cccccccccccccccc"
    now = frame(number(value=0.061, synthetic_set=again))
    assert not judged("worse-than:old", now, baselines=several).broken  # worse than good, as bad as copier was
    with pytest.raises(ConfigError, match=r"holds 2 synthetic sets \(good, copier\), and none is called 'newest'"):
        judged("worse-than:old", frame(number(synthetic_set="newest@cccccccccccccccc")), baselines=several)
    assert judged("worse-than:old", now, baselines={"old": frame(number())}).broken


def test_what_does_not_compare_is_no_verdict() -> None:
    now = frame(number(value=0.5, synthetic_set=COPIER))
    for changes, words in (
        ({"real_set": OTHER_REAL}, "different real set"),
        ({"encoder_revision": "64+bb"}, "different encoder revision"),
        ({"metric": "cmmd"}, "no number in common"),
    ):
        with pytest.raises(ConfigError, match=f"no number of this run compares with old: .*{words}"):
            judged("worse-than:old", now, baselines={"old": frame({**number(), **changes})})
    copied = frame(number(synthetic_set=COPIER, params={"n_copies_of_real": 3}))
    with pytest.raises(ConfigError, match="this run holds copies of the real images"):
        judged("worse-than:old", copied, baselines={"old": frame(number())})
    part = {"old": frame(number(), number("fid", 12, 1, encoder_revision="64+bb"))}
    both = frame(number(synthetic_set=COPIER), number("fid", 90, 1, synthetic_set=COPIER))
    assert judged("worse-than:old", both, baselines=part).told == "none of 1 number is worse than in old"


@pytest.mark.parametrize("n_numbers", [1, 5, 9, 50])
def test_equal_generators_break_worse_than_in_at_most_1_of_40_runs(n_numbers: int) -> None:
    """The rate that the module states; numbers that are drawn independently are the worst case."""
    now, before = np.random.default_rng(7).normal(size=(2, 20_000, n_numbers))
    worse = (now - before).max(1) > 2 * 1.96 * stretch(n_numbers)
    assert worse.mean() <= 0.025 + 2 * (0.025 * 0.975 / 20_000) ** 0.5


def test_of_many_numbers_one_must_be_further_apart() -> None:
    def run(identity: str, value: float) -> pd.DataFrame:
        return frame(*(number(f"m{i}", value if i == 0 else 0.02, synthetic_set=identity) for i in range(50)))

    for value, is_broken in ((0.0285, False), (0.0305, True)):
        found = judged("worse-than:old", run(COPIER, value), baselines={"old": run(GOOD, 0.02)})
        assert bool(found.broken) == is_broken
    assert judged("worse-than:old:m0", run(COPIER, 0.0285), baselines={"old": run(GOOD, 0.02)}).broken


def test_a_suite_without_any_number_is_named() -> None:
    nothing = {**number(), "value": None, "ci_low": None, "ci_high": None, "status": "too_few", "reason": "1 image"}
    assert without_numbers(frame(nothing, *search())) == ["the fidelity suite has no number: 1 image"]
    assert without_numbers(frame(nothing, number("fid"))) == []
