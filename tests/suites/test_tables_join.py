"""Sets and subsets are spelled one way in every file of a run, so that tables join; worklists begin with the worst."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from fixtures.patients import EXACT_COPY, NEAR_COPY, World

from chexray import evaluate
from chexray.run.evaluation import Run
from chexray.suites.common import Outcome, with_set_names

NAMES = {"synthetic_set": "synthetic_set", "subset": "subset", "other_set": None}
"""{column of a side table: the column of the results that it joins; None for either set}"""


def check_joins(run: Run) -> set[str]:
    """The tables with such columns, each of whose rows joins the results."""
    joined = set()
    results = run.results
    sets = {*results["synthetic_set"], *results["real_set"]}
    for name in set(run.tables()) - {"results"}:
        table = run.table(name)
        for column, target in NAMES.items():
            if column in table.columns:
                known = sets if target is None else set(results[target])
                assert set(table[column].dropna()) <= known, (name, column)
                joined.add(name)
    return joined


def test_sets_of_the_run_are_spelled_as_in_the_results_and_nothing_else_is_touched() -> None:
    made, other = (SimpleNamespace(name=name, fingerprint="0123456789abcdef") for name in ("made", "training"))
    names = pa.array(["made", "", None, "a set of none"], pa.string())
    table = pa.table({"setting": ["a"] * 4, "synthetic_set": names, "other_set": ["training"] * 4, "x": range(4)})
    outcome = with_set_names(
        SimpleNamespace(sets=[other, made]), Outcome(tables={"t": table, "u": table.select(["x"])})
    )
    spelled = outcome.tables["t"]
    assert spelled.schema == table.schema
    assert spelled["synthetic_set"].to_pylist() == ["made@0123456789abcdef", "", None, "a set of none"]
    assert set(spelled["other_set"].to_pylist()) == {"training@0123456789abcdef"}
    assert spelled.select(["setting", "x"]).equals(table.select(["setting", "x"]))
    assert outcome.tables["u"].equals(table.select(["x"]))


def test_every_table_of_privacy_joins(calm: Run) -> None:
    assert check_joins(calm) >= {"verdicts", "copies", "duplicates", "pairs", "prompts"}
    merged = calm.verdicts.merge(calm.results.query("metric == 'memorised_share'"), on="synthetic_set")
    assert len(merged) == len(calm.verdicts)


def test_every_table_of_utility_joins(lesson: Run) -> None:
    assert check_joins(lesson) >= {"predictions", "curves", "history", "contradictions", "comparison"}
    figures = {path.name for path in (Path(lesson.uri) / "figures").iterdir()}
    assert "roc-drawn.png" in figures  # files are called as people call the set


def test_every_table_of_fidelity_joins(ray_cluster, world: World, tmp_path: Path) -> None:
    """With an image of the real set among the synthetic ones, so that `copies_of_real` is there."""
    run = evaluate(world.config(tmp_path, suite=["fidelity"], metrics=["prdc"], heldout=None, floor=False))
    assert check_joins(run) >= {"per_image", "copies_of_real"}


def test_copies_come_worst_first_with_both_paths(calm: Run) -> None:
    copies = calm.table("copies")
    assert copies["sample_id"].tolist()[0] == EXACT_COPY
    assert set(copies["sample_id"].tolist()[:2]) == {EXACT_COPY, NEAR_COPY}
    for _, mine in copies.groupby("synthetic_set"):
        order = np.lexsort((mine["ratio"], mine["p_value"]))
        assert order.tolist() == list(range(len(mine)))
    for row in copies.itertuples():
        assert Path(row.uri).name == row.sample_id
        assert Path(row.nearest_training_uri).stem == row.nearest_training_id
        assert Path(row.uri).is_file()
        assert Path(row.nearest_training_uri).is_file()


def test_duplicates_and_verdicts_are_worklists_too(calm: Run) -> None:
    duplicates, verdicts = calm.table("duplicates"), calm.verdicts
    kinds = ["exact_training", "near_training", "exact_within", "near_within"]
    assert duplicates["kind"].map(kinds.index).is_monotonic_increasing
    for row in duplicates.itertuples():
        assert Path(row.uri).name == row.sample_id
        assert Path(row.other_uri).name.startswith(row.other_id)
    n_flagged = int(verdicts["flagged"].sum())
    assert verdicts["flagged"].tolist() == [True] * n_flagged + [False] * (len(verdicts) - n_flagged)
    assert [Path(uri).name for uri in verdicts["uri"]] == verdicts["sample_id"].tolist()


def test_a_table_that_is_not_there(calm: Run) -> None:
    with pytest.raises(Exception, match="no table 'per_image'"):
        _ = calm.per_image
    assert isinstance(calm.table("pairs"), pd.DataFrame)
