"""Planted copies on a terminal: grouped by how many were found, per space, and never silently absent."""

from __future__ import annotations

from fixtures.summary import summary_lines
from results.privacy_rows import COPIER, GOOD, RAD_DINO, flat, line_of, row, search, text_of


def planted(encoder: str, counts: dict[str, int], synthetic_set: str = COPIER) -> list[dict]:
    """Rows of one space; n is 40."""
    return [
        row(
            f"planted_found_{name}", found / 40, 0.1, 1.0, encoder=encoder, encoder_revision="", better="higher",
            synthetic_set=synthetic_set, std_error_method="clopper_pearson",
            params={"n": 40, "n_found": found, "alteration": name.replace("_", " "), "searched": "pixels, hash"},
        )
        for name, found in counts.items()
    ]  # fmt: skip


ROWS = [
    *search(5, -0.001, 0.0164),
    *planted("pixels", {"exact": 40, "turned_9": 3}),
    *planted("", {"exact": 40, "mirrored": 40, "turned_9": 35}),
]


def test_the_summary_says_what_all_spaces_found_together():
    text = flat(text_of(ROWS))
    assert text.count("planted test copies: 115 of 120 found by pixels, hash; fewest: 35 of 40 turned 9") == 1
    assert "was not tried" not in text


def test_each_space_has_a_column_and_any_comes_last():
    text = text_of(ROWS)
    head = line_of(text, "training images, altered")
    assert head.split()[-2:] == ["pixels", "any"]
    assert line_of(text, "turned 9 ").split()[-6:] == ["3", "of", "40", "35", "of", "40"]
    assert "further numbers" not in text


def test_a_space_that_was_not_tried_is_named():
    text = flat(text_of([*ROWS, *search(4, -0.001, 0.02, **RAD_DINO)]))
    assert "not tried: rad_dino; chexray audit tries them" in text


def test_planted_copies_do_not_count_as_a_set_of_their_own():
    rows = [*ROWS, *search(5, -0.001, 0.0164, synthetic_set=GOOD)]
    assert [line for line in summary_lines_of(rows) if "no copy found" in line][1].startswith("good: ")


def summary_lines_of(rows: list[dict]) -> list[str]:
    import pandas as pd

    return summary_lines(pd.DataFrame(rows))


def test_copies_that_could_not_be_planted_leave_the_question_open():
    lost = row("planted_found_exact", None, encoder="", status="undefined", reason="an image could not be read again")
    text = flat(text_of([*search(5, -0.001, 0.0164), lost]))
    assert "whether altered copies would be found was not tried" in text
