"""A slice of `make fuzz FUZZ="--kind archives"`, in this process: damaged archives end in images, rejects or a line."""

from __future__ import annotations

import resource
from collections import Counter

import pytest
from fuzz.attempt import random_of
from fuzz.judge import line_faults
from fuzz.kinds import archives
from fuzz.values import CANARY_MARKS

from chexray.errors import ChexrayError


@pytest.mark.parametrize("seed", [1, 2])
def test_a_damaged_archive_ends_in_a_result_a_reject_or_one_line(tmp_path, seed):
    seeds = archives.prepare(tmp_path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ends: Counter[str] = Counter()
    for number in range(40):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        attempt = archives.attempt(seeds, random_of("archives", seed, number), folder)
        outcome, lines = _end(attempt)
        ends[outcome] += 1
        assert not [fault for line in lines for fault in line_faults(line, strict=outcome == "refused")], attempt.how
        assert not [line for line in lines if any(mark in line for mark in CANARY_MARKS)], attempt.how
    assert min(ends["ok"], ends["refused"]) > 6
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 700_000  # kB


def _end(attempt):
    try:
        seen = attempt.act()
    except ChexrayError as error:
        return "refused", [str(error)]
    return seen.outcome, seen.lines
