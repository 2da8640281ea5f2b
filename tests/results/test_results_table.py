"""The terminal table, read as text at several widths, on colour terminals and on ASCII pipes."""

from __future__ import annotations

import io
import json

import pytest
from fixtures.summary import summary_lines
from rich.console import Console

from chexray.findings import FINDINGS
from chexray.report.console import last_page, render
from chexray.results.rows import to_table

BETTER = {"fid": "lower", "kid": "lower", "precision": "higher", "coverage": "higher"}


def row(metric="kid", value=0.02, error=0.002, n=222, **changes):
    spread = None if error is None or value is None else 1.96 * error
    return {
        "metric": metric,
        "value": value,
        "std_error": None if value is None else error,
        "ci_low": None if spread is None else value - spread,
        "ci_high": None if spread is None else value + spread,
        "std_error_method": "jackknife" if spread else "",
        "better": BETTER.get(metric, ""),
        "real_floor": None,
        "encoder": "pixels",
        "encoder_revision": "1",
        "weights": "",
        "weights_sha256": "",
        "subset": "all",
        "n_real": n,
        "n_synthetic": n,
        "n_rejected": 0,
        "real_set": "nih@0123456789abcdef",
        "synthetic_set": "good@aaaaaaaaaaaaaaaa",
        "protocol": "standard",
        "params": "{}",
        "status": "ok" if value is not None else "too_few",
        "reason": "" if value is not None else f"{n} images, and at least 30 are needed",
        "run_id": "r1",
        "seed": 0,
        "chexray_version": "0.1.0",
        "created_at": "2026-01-02T03:04:05Z",
    } | changes


def run(sets=("good", "poor"), params=None, **changes):
    """Two generators of different quality over all images and per finding, the smallest findings without FID."""
    changes = {"params": json.dumps(params), **changes} if params else changes
    rows = []
    for position, name in enumerate(sets):
        factor, identity = 1 + 0.6 * position, f"{name}@{'abcdef'[position] * 16}"
        subsets = {"all": 222} | {f"finding:{f}": 12 + 9 * k for k, f in enumerate(FINDINGS)} | {"sex:F": 101}
        for subset, n in subsets.items():
            common = {"n": n, "subset": subset, "synthetic_set": identity, **changes}
            fid = {"params": json.dumps({"bias_dominated": True, **(params or {})}), "real_floor": 4600.0 / n}
            rows.append(row("fid", 12000 / n * factor if n >= 30 else None, 1.3, **(common | fid)))
            rows.append(row("kid", 0.0231 * factor, 0.0021, real_floor=1e-4, **common))
            rows.append(row("precision", 0.71, 0.08, **common))
            rows.append(row("vendi", 12.345, None, **common))
    return rows


def text_of(rows, width=100, encoding="utf-8", colour=False):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, newline="")
    console = Console(file=stream, width=width, force_terminal=colour, color_system="standard" if colour else None)
    for part in (*render(rows), last_page(rows)):
        console.print(part)
    stream.flush()
    return raw.getvalue().decode(encoding)


def lines_of(text, start):
    return [line for line in text.splitlines() if line.startswith(start)]


@pytest.mark.parametrize("width", [80, 100, 140])
@pytest.mark.parametrize("sets", [("good",), ("good", "poor"), ("a", "b", "c", "d")])
def test_nothing_is_wider_than_the_terminal_or_cut(width, sets):
    text = text_of(run(sets), width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for name in sets:
        assert name in text
    for number in ("54.1", "[51.5, 56.6]"):  # neither is broken
        assert number in text
    assert "Cardiomediastinum" in text
    assert "real" in text
    assert "floor" in text
    assert "222 / 222" in text


def test_metrics_stand_side_by_side_where_they_fit_then_with_intervals_below_then_in_blocks():
    head, _, good, *_ = text_of(run(), 100).splitlines()[1:]
    assert head.split() == ["synthetic", "set", "kid", "↓", "fid", "↓", "precision", "↑", "vendi", "→"]
    assert "0.0231* [0.0190, 0.0272]  54.1! [51.5, 56.6]  0.710 [0.553, 0.867]  12.35" in good
    head, _, good, below, *_ = text_of(run(), 80).splitlines()[1:]
    assert "vendi" in head
    assert good.split() == ["good", "0.0231*", "54.1!", "0.710", "12.35"]
    assert below.split() == ["[0.0190,", "0.0272]", "[51.5,", "56.6]", "[0.553,", "0.867]"]
    narrow = text_of(run(), 50).split("by subset")[0]
    assert narrow.count("synthetic set") == 2
    assert narrow.count("0.0231") == narrow.count("12.35") / 2 == 1


def test_only_a_clear_winner_is_marked_and_bold():
    text = text_of(run(), 100, colour=True)
    assert "\x1b[1m0.0231*\x1b[0m [0.0190, 0.0272]" in text
    assert "\x1b[1m0.0370" not in text
    assert "\x1b[1m0.71" not in text  # equal values, intervals overlap
    assert "\x1b[1m12.3" not in text  # no direction, no interval
    assert "*" not in text_of(run(("good",)))
    assert "\x1b[1m0.0231" not in text_of(run(("good",)), colour=True)


def test_a_wide_third_interval_takes_the_star_away():
    rows = [row(synthetic_set=name, value=value) for name, value in [("a", 0.02), ("b", 0.05)]]
    assert "*" in text_of(rows)
    assert "*" not in text_of([*rows, row(synthetic_set="c", value=0.06, error=0.03)])


def test_subsets_go_by_size_within_their_kind():
    body = text_of(run(("good",)), 140).split("by subset")[1]
    order = [line.split("  ")[0] for line in body.splitlines()]
    assert order.index("Support Devices") < order.index("Pneumothorax") < order.index("Atelectasis")
    assert order.index("Atelectasis") < order.index("sex:F")


def test_nulls_are_dashes_with_their_reasons_counted():
    text = text_of(run(("good",)))
    (line,) = lines_of(text, "Atelectasis")
    assert line.split() == [
        "Atelectasis",
        "12",
        "/",
        "12",
        "0.0231",
        "±",
        "0.0021",
        "–",
        "0.710",
        "±",
        "0.080",
        "12.35",
    ]
    assert "– fid: e.g. 21 images, and at least 30 are needed" in text


def test_bias_is_marked_and_its_floor_stands_beside_it():
    text = text_of(run(("good",)))
    (line,) = lines_of(text, "Support Devices")
    assert "93.0! ± 1.3 (35.7)" in line
    assert "!  mainly reflects sample size" in text


def test_metrics_that_do_not_fit_are_named():
    narrow = text_of(run(("good",)), 60)
    assert "not shown at this width: fid ↓ (floor), precision ↑, vendi → (floor)" in " ".join(narrow.split())
    assert "not shown" not in text_of(run(("good",)), 140)


def test_a_pipe_that_is_not_utf8_gets_ascii():
    for encoding in ("ascii", "latin-1"):
        text = text_of(run(("good", "Röntgen ✓")), encoding=encoding)
        assert text.isascii()
        assert "kid (lower)" in text
        assert "+/-" in text
        assert "R\\xf6ntgen" in text


def test_markup_and_control_characters_of_the_data_stay_text():
    evil = "[bold red]x[/]\x1b]0;owned\x07\u202e"
    rows = [
        row(value=None, synthetic_set=evil, real_set=evil, encoder=evil, subset=s, reason=evil) for s in ("all", evil)
    ]
    for text in (text_of(rows, colour=True), text_of([row(metric=evil, synthetic_set=s) for s in (evil, "b")])):
        assert r"x[/]\x1b]0;owned\x07\u202e" in text
        assert "\x1b]0" not in text
        assert "\x07" not in text
        assert "\u202e" not in text
    assert not any("\x1b" in line for line in summary_lines(rows))


def paper(**changes):
    trained = {"encoder": "rad_dino", "weights": "microsoft/rad-dino", "protocol": "chexgenbench"}
    trained["params"] = {"weights_are": "released rad_dino, by hub revision 0123456789ab"}
    return text_of(run(("mine",), **(trained | changes)), 140)


def test_the_papers_best_stands_beside_like_only():
    text = paper()
    assert lines_of(text, "paper's best")[0].split()[2:6] == ["0.016", "Sana", "54.225", "Sana"]
    assert "99.52? Sana" in lines_of(text, "Pneumonia")[0]
    assert "163.14 Sana" in lines_of(text, "Lung Lesion")[0]
    assert "88.52 where UniX" in text
    assert "5,034 MIMIC-CXR" in text
    assert "n real = 222" in text


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"protocol": "standard"}, "protocol is standard"),
        ({"encoder": "pixels"}, "encoder is pixels"),
        ({"weights": "random:7"}, "weights are random"),
        ({"params": {}}, "whether the weights are the paper's is not known"),
        (
            {"params": {"network_differs": "hidden_size 192, not 768"}},
            "the network is not the paper's: hidden_size 192",
        ),
    ],
)
def test_where_the_paper_may_not_stand_no_value_of_it_is_shown(changes, why):
    text = paper(**changes)
    assert "54.225" not in text
    assert "Sana" not in text
    assert (f"the paper's values are not shown: {why}" in text) == ("encoder" not in changes)


def test_random_weights_are_shouted():
    rows = run(("mine",), encoder="rad_dino", weights="random:7")
    assert "RANDOM WEIGHTS" in text_of(rows)
    assert summary_lines(rows)[-3] == "RANDOM WEIGHTS: these numbers compare with nothing (rad_dino: random:7)"
    assert "RANDOM" not in text_of(run())


def test_the_summary_says_what_must_not_be_overlooked():
    failed = row(value=None, status="failed", reason="a worker died", metric="fid")
    lines = "\n".join(summary_lines([*run(n_rejected=3), failed]))
    assert "FAILED: 1 of 129 numbers; first fid, all: a worker died" in lines
    assert "REJECTED: 3 images of good and its real set, 3 images of poor and its real set" in lines
    assert "fid in 14 subsets mainly reflects sample size (marked !): use kid" in lines
    assert "124 numbers computed, 5 not (4 too few images, 1 FAILED)." in lines
    assert summary_lines([row()]) == ["1 number computed."]
    assert summary_lines([]) == ["0 numbers computed."]
    assert render([]) == []


def test_frames_and_dictionaries_print_alike():
    assert text_of(to_table(run()).to_pandas()) == text_of(run())


def test_one_metric_under_two_settings_is_told_apart():
    rows = [row("precision", 0.5, params=json.dumps({"k": k, "metric_key": f"p{k}"})) for k in (3, 5)]
    text = text_of(rows)
    assert "precision (k=3) ↑" in text
    assert "precision (k=5) ↑" in text
    assert "precision #2 ↑" in text_of([row("precision"), row("precision")])


def test_sets_and_runs_of_one_name_are_told_apart():
    two_prints = [row(synthetic_set=f"x@{c * 16}") for c in "ab"]
    assert "x@aaaaaaaa" in text_of(two_prints)
    two_runs = [row(run_id=run_id) for run_id in ("r1", "r2")]
    assert "good (run r2)" in text_of(two_runs)


def test_a_number_without_error_says_why():
    rows = [row(error=None, params=json.dumps({"std_error_reason": "5 images are too few blocks"}))]
    text = text_of(rows)
    assert "kid: no error estimate, 5 images are too few blocks" in text
    assert "a value without an interval has no error estimate" in text


def test_an_encoder_without_weights_says_what_it_cannot_see():
    blind = json.dumps({"note_encoder_cannot_see": "what is finer than a cell of its grid"})
    rows = [row(params=blind), row("fid", params=blind), row(encoder="rad_dino")]
    said = [line for line in text_of(to_table(rows).to_pandas(), 140).splitlines() if "cannot see" in line]
    assert said == [" pixels cannot see what is finer than a cell of its grid"]
    hostile = row(params=json.dumps({"note_encoder_cannot_see": ["\x1b[2J", {}]}))
    assert "\x1b" not in text_of([hostile])
