"""Settings and synthetic sets are scored the same here and by Ray tasks, in their order, with one seed or several."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from chexray.data.labels import NOT_MENTIONED, from_codes, targets, to_codes
from chexray.engine import tasks
from chexray.engine.progress import Progress
from chexray.findings import FINDINGS
from chexray.plan.examples import Examples
from chexray.suites.utility import faithful
from chexray.suites.utility import score_rows as scored
from chexray.utility.classification.estimates import Predictions, Table, to_scores
from chexray.utility.loop.fit_spec import Sample

N, RESAMPLES = 60, 40
FLOOR = dict.fromkeys(FINDINGS, 0.8)


class Room(SimpleNamespace):
    """What scoring asks of a Context."""

    def __init__(self) -> None:
        super().__init__(workers=2, lines=[])

    def progress(self, stage: str, unit: str, total: int) -> Progress:
        line = Progress(stage, unit, total, stream=SimpleNamespace(isatty=bool, write=len, flush=int))  # type: ignore
        self.lines.append(line)
        return line

    @property
    def counted(self) -> list[tuple[str, str, int, int]]:
        return [(line.stage, line.unit, line.done, line.total) for line in self.lines]


def setting(seeds: int, strength: float) -> Predictions:
    labels = (np.random.default_rng(0).random((N, 14)) < 0.4).astype(np.int8)
    noise = np.random.default_rng(seeds).normal(size=(seeds, N, 14))
    probabilities = 1 / (1 + np.exp(-noise - strength * (labels - 0.5)))
    return Predictions(labels, probabilities, np.full((seeds, 14), 0.4), np.arange(N) // 2)


def watched(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each stage was asked to work here. The work always runs here, and what comes first finishes last."""
    asked, run = [], tasks.as_they_finish

    def noted(*arguments: Any, here: bool, **more: Any) -> Any:
        asked.append(here)
        return reversed(list(run(*arguments, here=True, **more)))

    monkeypatch.setattr(tasks, "as_they_finish", noted)
    return asked


def same(table: Table, other: Table) -> None:
    """BLAS with another number of threads may add up a Brier score in another order."""
    assert (table.sample, table.seeds, table.unit) == (other.sample, other.seeds, other.unit)
    for (subset, a), (subset_b, b) in zip(to_scores(table), to_scores(other), strict=True):
        assert (subset, a.metric, a.reason) == (subset_b, b.metric, b.reason)
        for name in ("value", "std_error", "ci_low", "ci_high"):
            assert getattr(a, name) == pytest.approx(getattr(b, name), rel=1e-9), (subset, a.metric)


def test_ray_scores_settings_as_they_are_scored_here_and_in_their_order(
    ray_cluster: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Among them weights that are only tested, with one training beside the others' three."""
    settings = [setting(3, 2.0), setting(1, 0.2), setting(3, 1.0)]
    groups = {"sex:F": np.arange(N) % 4 < 2}
    here, there = Room(), Room()
    expected = scored.evaluated(here, settings, groups, RESAMPLES, 5)
    assert [table.seeds for table in expected] == [3, 1, 3]
    monkeypatch.setattr(scored, "SMALL_CELLS", 0)
    for table, other in zip(scored.evaluated(there, settings, groups, RESAMPLES, 5), expected, strict=True):
        same(table, other)
    assert here.counted == there.counted == [("score", "settings", 3, 3)]


def test_trainings_count_as_work_and_a_single_setting_needs_no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = watched(monkeypatch)
    monkeypatch.setattr(scored, "SMALL_CELLS", 4 * N * RESAMPLES)
    for seeds in ((1, 1, 1), (1, 3), (3, 2), (5,)):
        tables = scored.evaluated(Room(), [setting(n, 1.0) for n in seeds], {}, RESAMPLES, 0)
        assert tuple(table.seeds for table in tables) == seeds
    assert asked == [True, False, False, True]


class Judge(SimpleNamespace):
    """A trained setting, and the task that reads what it says: the i-th set shows findings as strongly as i says."""

    def __init__(self, seeds: int, n_sets: int) -> None:
        self.names = [f"set{i}" for i in range(n_sets)]
        self.sets, self.logits = {}, {}
        for i, name in enumerate(self.names):
            rng = np.random.default_rng(i)
            codes = rng.choice(np.array([1, 0, -1, -2], np.int8), size=(N, 14), p=[0.4, 0.2, 0.1, 0.3])
            table = pa.table({"labels": from_codes(codes), "prompt": [f"prompt {k // 2}" for k in range(N)]})
            ids, labels = np.array([f"{name}-{k}" for k in range(N)]), targets(table["labels"], "zeros", "zeros")
            self.sets[name] = Examples(SimpleNamespace(name=name), table, Sample(ids, ids, labels))  # type: ignore
            self.logits[name] = rng.normal(size=(seeds, N, 14)) + i * (labels - 0.5)
        fits = [SimpleNamespace(seed=s, score={f"synthetic {name}": name for name in self.names}) for s in range(seeds)]
        super().__init__(
            asked=SimpleNamespace(fits=tuple(fits)),
            predictions=SimpleNamespace(thresholds=np.full((seeds, 14), 0.4)),
        )

    def folder(self, fit: Any) -> Any:
        return SimpleNamespace(read_predictions=lambda name: self.logits[name][fit.seed])

    def judged(self, room: Room) -> list[faithful.Judged]:
        plan = SimpleNamespace(
            synthetic=[SimpleNamespace(name=name) for name in self.names],
            config=SimpleNamespace(resamples=RESAMPLES),
            seed=3,
        )
        cohorts = SimpleNamespace(synthetic=self.sets)
        return faithful._judged(room, plan, cohorts, self, FLOOR, self)  # type: ignore


def test_ray_judges_synthetic_sets_as_they_are_judged_here_and_in_their_order(
    ray_cluster: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge, here, there = Judge(seeds=2, n_sets=3), Room(), Room()
    expected = judge.judged(here)
    macro = [scores[-1][1].value for scores, _ in expected]
    assert 0.4 < macro[0] < macro[1] < macro[2]
    monkeypatch.setattr(faithful, "SMALL_CELLS", 0)
    for (scores, table), (other, contradicted) in zip(judge.judged(there), expected, strict=True):
        assert scores == other
        assert table.equals(contradicted, check_metadata=True)
    assert here.counted == there.counted == [("faithfulness", "sets", 3, 3)]


def test_every_training_and_set_counts_as_work_and_one_set_needs_no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = watched(monkeypatch)
    monkeypatch.setattr(faithful, "SMALL_CELLS", 4 * N * RESAMPLES)
    for seeds, n_sets in ((1, 3), (2, 2), (1, 4), (5, 1)):
        tables = [table for _, table in Judge(seeds, n_sets).judged(Room())]
        assert [table["sample_id"][0].as_py().split("-")[0] for table in tables] == [f"set{i}" for i in range(n_sets)]
    assert asked == [True, False, False, True]


def test_what_a_report_is_silent_or_uncertain_about_was_not_denied() -> None:
    judge = Judge(seeds=1, n_sets=1)
    ((_, table),) = judge.judged(Room())
    codes = to_codes(judge.sets["set0"].table["labels"])
    found = set()
    for row in table.to_pylist():
        code = int(codes[int(row["sample_id"].removeprefix("set0-")), FINDINGS.index(row["finding"])])
        assert row["asked"] == (code if code in (0, 1) else None)
        assert row["surprise"] > math.log(2)
        found.add(code)
    assert found == {1, 0, -1, NOT_MENTIONED}
