"""A slice of `make fuzz`: the first inputs of every kind, and that the harness sees what it is there to see."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

if not Path("/proc/self/clear_refs").exists():
    pytest.skip("the harness measures its workers through /proc", allow_module_level=True)

N = {"archives": 20, "configs": 20, "images": 25, "parts": 20, "runs": 8, "tables": 10, "weights": 4}
"""Of the kinds that are not named, 10. `make fuzz` gives thousands of each."""


@pytest.mark.slow
def test_the_first_inputs_of_every_kind_end_in_a_result_a_reject_or_one_line() -> None:
    from fuzz.attempt import kinds
    from fuzz.fleet import Worker, sandbox_of_run
    from fuzz.report import failures

    met = []
    with sandbox_of_run() as sandbox:
        worker = Worker(0, sandbox)
        for kind in kinds():
            for number in range(N.get(kind, 10)):
                worker = worker if worker.is_alive else Worker(0, sandbox)
                met.append(worker.meet(kind, number))
        worker.close()
    assert not any(each.faults for each in met), failures(met, 0)
    assert {each.outcome for each in met} == {"ok", "refused", "rejected"}


def test_an_input_is_the_same_when_it_is_made_again() -> None:
    from fuzz.attempt import random_of
    from fuzz.mutation import mutated

    data = bytes(range(200))
    again = [mutated(data, random_of("images", 3, number)) for number in range(20)]
    assert again == [mutated(data, random_of("images", 3, number)) for number in range(20)]
    assert len(set(again)) > 15


@pytest.fixture
def judged_act(tmp_path, monkeypatch):
    """Judges a function as if it were chexray reading an input; `tmp_path`/watched is not its to write in."""
    from fuzz.attempt import Attempt
    from fuzz.judge import judged

    (tmp_path / "watched").mkdir()
    noise = tmp_path / "noise"
    noise.touch()
    monkeypatch.setenv("FUZZ_MARKER", str(tmp_path / "marker"))
    return lambda act: judged(Attempt("made", act), noise, [tmp_path / "watched"])


def test_every_fault_is_seen(judged_act, tmp_path) -> None:
    from fuzz.attempt import Seen, Wrong
    from fuzz.values import CANARY, payload

    from chexray.errors import ConfigError

    def refuse(message: str) -> None:
        error = ConfigError("x")
        error.args = (message,)  # past what ConfigError makes of it
        raise error

    def unpickle() -> Seen:
        import pickle

        pickle.loads(payload(__import__("random").Random(2)))
        return Seen()

    def say() -> Seen:
        print("a library")
        return Seen()

    acts = {
        "traceback": lambda: {}["x"],
        "wrong": lambda: (_ for _ in ()).throw(Wrong("other numbers")),
        "code run": unpickle,
        "outside": lambda: (tmp_path / "watched" / "x").write_text("x") and Seen(),
        "canary": lambda: refuse(f"row 3: {CANARY}"),
        "noise": say,
        "message": lambda: refuse("two\nlines"),
    }
    for fault, act in acts.items():
        assert fault in {name for name, _ in judged_act(act)["faults"]}, fault
    for message in ("", "x" * 1501, "\x1b[2J", "\u202egnp"):
        assert judged_act(lambda message=message: refuse(message))["faults"], message
    assert judged_act(lambda: refuse("path: expected a number. Give one."))["outcome"] == "refused"
    assert os.listdir(tmp_path / "watched") == []
