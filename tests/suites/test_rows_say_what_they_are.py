"""Rows of privacy and utility carry the declaration of their number, and what must agree apart from how it came out."""

from __future__ import annotations

import pytest

from chexray.outputs import output_of
from chexray.privacy.outputs import privacy_outputs
from chexray.results.legacy import split
from chexray.results.rows import method_of, params_of, to_records
from chexray.utility.classification.outputs import utility_outputs

pytestmark = pytest.mark.ray  # its runs are asked for by name


@pytest.mark.parametrize(("run", "outputs"), [("calm", privacy_outputs()), ("lesson", utility_outputs())])
def test_each_number_is_declared_and_lies_in_its_range(run, outputs, request):
    known = {output.name: output for output in outputs}
    for row in to_records(request.getfixturevalue(run).results):
        output = output_of(row)
        assert output == known[row["metric"]]
        ends = [end for end in (row["value"], row["ci_low"], row["ci_high"]) if end is not None]
        assert all(output.low is None or end >= output.low for end in ends), row
        assert all(output.high is None or end <= output.high for end in ends), row


@pytest.mark.parametrize("run", ["calm", "lesson"])
def test_two_runs_compare_by_what_version_0_1_compared_them_by(run, request):
    for row in to_records(request.getfixturevalue(run).results):
        method, about = split(params_of(row), row["suite"], row["metric"])
        assert method_of(row) == method, row["metric"]
        assert not set(method_of(row)) & set(about)
