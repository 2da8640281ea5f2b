"""File names are cut, never stripped; strangers are drawn uniformly and repeat only when they must."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from chexray.data.matching import stem
from chexray.data.strangers import draw_outside


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("page_12.jpg", "page_12"),
        ("00000001_000.png", "00000001_000"),
        ("pjg7.jpg", "pjg7"),
        ("a/b/x.PNG", "x"),
        ("1.2.840.113", "1.2.840.113"),
        ("1.2.840.113.dcm", "1.2.840.113"),
        ("v.png.png", "v.png"),
    ],
)
def test_only_the_suffix_of_a_file_name_goes(name, expected):
    assert stem(name) == expected


def test_strangers_are_uniform_and_repeat_only_when_they_must():
    rng = np.random.default_rng(1)
    counts = np.zeros(8)
    for _ in range(2000):
        drawn = draw_outside(np.zeros(3, int), np.full(3, 2), np.full(3, 4), 8, rng)
        assert len(set(drawn.tolist())) == 3
        counts[drawn] += 1
    assert (counts[2:4] == 0).all()
    expected = np.where(counts > 0, 1000.0, 0.0)
    assert np.abs(counts - expected).max() < 5 * np.sqrt(1000)
    crowded = draw_outside(np.zeros(14, int), np.full(14, 2), np.full(14, 4), 8, rng)
    assert Counter(crowded.tolist()).most_common()[-1][1] >= 2  # six free images for 14 pairs: each twice, two thrice
    assert set(crowded.tolist()) == {0, 1, 4, 5, 6, 7}
    mixed = draw_outside(np.zeros(4, int), np.array([0, 1, 2, 3]), np.array([1, 2, 3, 4]), 4, rng)
    assert (mixed != np.arange(4)).all()
