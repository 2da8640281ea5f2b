"""Which runs may be compared, and when one of them is called better."""

from __future__ import annotations

import io
import json

import pandas as pd
import pytest
from rich.console import Console

from chexray.errors import ConfigError
from chexray.report.comparison import render_compare
from chexray.results.aligned import compare
from chexray.results.decisions import decide, method_params
from chexray.results.legacy import upgraded

TRAINED = {"encoder": "rad_dino", "encoder_revision": "1", "weights": "hub/rad-dino", "weights_sha256": "ab"}


def row(metric="kid", value=0.02, half=0.004, better="lower", n=222, **changes):
    return {
        "metric": metric,
        "value": value,
        "std_error": None,
        "ci_low": None if half is None or value is None else value - half,
        "ci_high": None if half is None or value is None else value + half,
        "better": better,
        "encoder": "pixels",
        "encoder_revision": "1",
        "weights": "",
        "weights_sha256": "",
        "subset": "all",
        "n_real": 222,
        "n_synthetic": n,
        "real_set": "nih@0123456789abcdef",
        "synthetic_set": "s",
        "protocol": "standard",
        "params": "{}",
        "reason": "" if value is not None else "too few",
        "chexray_version": "0.1.0",
    } | changes


def found(*rows):
    return decide(dict(zip("ABCD", map(upgraded, rows), strict=False)))


def verdict(*rows):
    return found(*rows).text


def test_a_winner_needs_intervals_apart_in_the_better_direction():
    assert verdict(row(), row(value=0.05)) == "better: A"
    assert verdict(row(value=0.05), row()) == "better: B"
    assert verdict(row(better="higher"), row(value=0.05, better="higher")) == "better: B"
    assert verdict(row(), row(value=0.027)) == "tie (intervals overlap)"
    assert verdict(row(), row(value=0.028)) == "tie (intervals overlap)"  # touching is overlapping
    assert verdict(row(), row()) == "tie (intervals overlap)"


def test_of_several_the_best_must_clear_them_all():
    assert verdict(row(), row(value=0.05), row(value=0.06)) == "better: A"
    assert verdict(row(), row(value=0.022), row(value=0.06)) == "no single best; C is worse"
    assert verdict(row(), row(value=0.05), row(value=0.06, half=0.05)) == "no single best; B is worse"


def test_what_is_unknown_is_said():
    assert verdict(row(half=None), row()) == "unknown: no interval"
    assert verdict(row(value=None), row()) == "unknown: no value in A"
    assert verdict(row(better=""), row(value=0.05, better="")) == "unknown: neither direction is better"


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"protocol": "chexgenbench"}, "protocol"),
        (TRAINED, "encoder"),
        ({"weights_sha256": "cd"}, "weights"),
        ({"encoder_revision": "2"}, "encoder revision"),
        ({"real_set": "nih@fedcba9876543210"}, "real set"),
        ({"params": '{"k": 3}'}, "k"),
        ({"protocol": "chexgenbench", "real_set": "other"}, "protocol, real set"),
    ],
)
def test_unlike_things_are_not_compared(changes, what):
    assert verdict(row(), row(value=0.05, **changes)) == f"not comparable: different {what}"


def test_the_same_real_images_under_another_name_are_the_same():
    assert verdict(row(), row(value=0.05, real_set="test-set@0123456789abcdef")) == "better: A"


def test_remarks_among_the_params_do_not_matter():
    remarks = {"bias_dominated": True, "floor_method": "halves", "metric_key": "mine", "std_error_reason": "x"}
    assert method_params(upgraded(row(params=json.dumps({"k": 5} | remarks)))) == '{"k": 5}'
    assert verdict(row(), row(value=0.05, params=json.dumps(remarks))) == "better: A"
    assert "mainly reflects sample size" in found(row(), row(params=json.dumps(remarks))).notes


def test_metrics_biased_by_n_need_equal_n_and_unbiased_ones_do_not():
    small = {"n": 100, "value": 0.05}
    assert verdict(row("fid"), row("fid", **small)).startswith(
        "not comparable: n differs (n_synthetic 222 against 100)"
    )
    assert verdict(row("fid"), row("fid", value=0.05, n=221)) == "better: A"  # a reject
    assert verdict(row("kid"), row("kid", **small)) == "better: A"
    assert verdict(row("fid_infinity"), row("fid_infinity", **small)) == "better: A"
    assert verdict(row("recall"), row("recall", **small)).startswith("not comparable: n differs")
    assert verdict(row("precision"), row("precision", **small)) == "better: A"  # its balls are the real set's
    assert any("222 against 100" in note for note in found(row(), row(**small)).notes)


def frames(**runs):
    return {name: pd.DataFrame(rows) for name, rows in runs.items()}


def test_runs_are_aligned_on_what_was_measured_and_how():
    table = compare(frames(A=[row(), row("fid", 50.0, 1.0)], B=[row("fid", 90.0, 1.0), row(value=0.05)]))
    assert dict(zip(table["metric"], table["verdict"], strict=True)) == {"kid": "better: A", "fid": "better: A"}
    assert table.set_index("metric").loc["fid", "B.value"] == 90.0


def test_a_null_aligns_with_its_number():
    table = compare(frames(A=[row(params='{"k": 5}')], B=[row(value=None)]))
    assert list(table["verdict"]) == ["unknown: no value in B"]
    assert list(table["B.reason"]) == ["too few"]


def test_other_protocols_and_encoders_meet_in_one_line_that_says_so():
    table = compare(frames(A=[row()], B=[row(protocol="chexgenbench")]))
    assert list(table["verdict"]) == ["not comparable: different protocol"]
    assert list(table["protocol"]) == ["standard | chexgenbench"]
    table = compare(frames(A=[row()], B=[row(**TRAINED)]))
    assert list(table["verdict"]) == ["not comparable: different encoder"]


def test_like_runs_are_compared_although_a_third_is_unlike():
    table = compare(frames(A=[row()], B=[row(value=0.05)], C=[row(protocol="chexgenbench")]))
    assert list(table["verdict"]) == ["better: A", "not comparable: different protocol"]


def test_every_row_of_every_run_appears_once():
    a = [row(), row(**TRAINED), row(params='{"k": 3}'), row(subset="sex:F")]
    b = [row(value=0.05), row(**TRAINED), row("fid", 50.0, 1.0)]
    table = compare(frames(A=a, B=b))
    assert table["A.value"].notna().sum() == len(a)
    assert table["B.value"].notna().sum() == len(b)
    assert "only in B" in set(table["verdict"])
    assert table.set_index(["metric", "subset"]).loc[("kid", "sex:F"), "verdict"] == "only in A"


def test_a_run_of_several_sets_is_compared_with_itself():
    table = compare(frames(A=[row(synthetic_set="x"), row(synthetic_set="y", value=0.05)]))
    assert list(table["verdict"]) == ["better: A/x"]
    assert {"A/x.value", "A/y.value"} <= set(table.columns)


def test_one_run_of_one_set_is_nothing_to_compare():
    with pytest.raises(ConfigError, match="at least two"):
        compare(frames(A=[row()]))


def text_of(table, width=100, encoding="utf-8"):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, newline="")
    Console(file=stream, width=width).print(render_compare(table))
    stream.flush()
    return raw.getvalue().decode(encoding)


@pytest.fixture
def two_runs():
    findings = [f"finding:{name}" for name in ("Edema", "Fracture")]
    a = [
        row(m, 0.02, subset=s, n=n)
        for m in ("kid", "fid_infinity")
        for s, n in zip(["all", *findings], [222, 90, 5], strict=True)
    ]
    b = [r | {"value": 0.05, "ci_low": 0.04, "ci_high": 0.06} for r in a]
    b[2] |= {"ci_low": 0.01}
    a[4] |= {"protocol": "chexgenbench"}
    a[5] |= {"ci_low": None}
    return compare(frames(**{"a[bold]": a, "b\x1b[31m": b}))


@pytest.mark.parametrize("width", [80, 100, 140])
def test_the_comparison_reads_at_any_width(two_runs, width):
    text = text_of(two_runs, width)
    assert max(map(len, text.splitlines())) <= width
    assert "a[bold]" in text
    assert "\x1b" not in text
    assert "0.0200" in text
    assert "[0.0160, 0.0240]" in text
    assert "better: a[bold]" in text
    edema = next(line for line in text.splitlines() if line.startswith("Edema"))
    fracture = next(line for line in text.splitlines() if line.startswith("Fracture"))
    assert edema.split() == ["Edema", "90", "A"]
    assert fracture.split() == ["Fracture", "5", "?", "tie"] or fracture.split() == ["Fracture", "5", "tie", "?"]
    assert "n/c" in text
    assert "6 comparisons" in text


def test_the_comparison_is_ascii_on_an_ascii_pipe(two_runs):
    assert text_of(two_runs, encoding="ascii").isascii()


def test_random_weights_are_shouted():
    random = {"encoder": "rad_dino", "weights": "random:7"}
    assert "RANDOM WEIGHTS" in text_of(compare(frames(A=[row(**random)], B=[row(value=0.05, **random)])))
