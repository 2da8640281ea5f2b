"""Codes of patients and prompts that mean the same in every set of a run."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from chexray.suites.common import shared_codes, shared_units


def column(*texts: str | None) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(texts, pa.string())])


def test_one_text_has_one_code_in_all_sets_and_no_text_has_none():
    real, synthetic = shared_codes([column("a", "b", None), column("b", "c", "  ", "a")])
    np.testing.assert_array_equal(real, [0, 1, -1])
    np.testing.assert_array_equal(synthetic, [1, 2, -1, 0])
    assert shared_codes([column(None, "")]) == [None]


def test_a_text_is_the_same_with_other_blanks_and_line_ends():
    real, synthetic = shared_codes([column("no acute\r\nfindings "), column("no acute\nfindings")])
    assert real.tolist() == synthetic.tolist()


def test_an_image_without_a_patient_is_like_no_other_in_any_set():
    real, synthetic, none = shared_units([column("p", None, None), column(None, "p"), column(None, None)])
    assert real[0] == synthetic[1]
    assert len({*real.tolist(), *synthetic.tolist()}) == 4
    assert none is None
