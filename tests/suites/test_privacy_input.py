"""What a privacy run refuses before anything starts: one line each that says what was found and what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fixtures.patients import World, read_rows

from chexray.config import parse_config
from chexray.errors import ChexrayError
from chexray.plan import make_plan

Change = Callable[[World], dict[str, object]]


def pairs(*rows: tuple[str, str]) -> Change:
    """privacy.pairs as a table of these (real_id, synthetic_id)."""

    def change(world: World) -> dict[str, object]:
        table = [{"real_id": real, "synthetic_id": synthetic} for real, synthetic in rows]
        return {"privacy": {"pairs": str(world.table("pairs-given", table))}}

    return change


def weights(name: str) -> Change:
    """siamese_reid with a file that is not its checkpoint."""

    def change(world: World) -> dict[str, object]:
        import torch

        path = world.folder / f"{name}.pth"
        if name == "other-network":
            torch.save({"conv1.weight": torch.zeros(4, 3, 3, 3), "fc.bias": torch.zeros(9)}, path)
        elif name == "pickled-module":
            torch.save(torch.nn.Sequential(torch.nn.Linear(2, 2)), path)
        elif name == "text":
            path.write_text("hello")
        return {"encoders": ["pixels", {"name": "siamese_reid", "weights": str(path)}]}

    return change


def settings(**more: object) -> Change:
    return lambda world: more


def two_sets(**more: object) -> Change:
    return lambda world: {
        "synthetic": [{**world.generated(world.synthetic), "name": name} for name in ("a", "b")],
        **{key: value(world)[key] if callable(value) else value for key, value in more.items()},
    }


BAD: dict[str, tuple[Change, str]] = {
    "a pair of an unknown real image": (
        pairs(("t00", "g00_gen_0.png"), ("t99", "g00_gen_1.png")),
        r"1 of 2 pairs name a real_id that is not in 'training', first 't99' \(data row 2\)\. Did you mean",
    ),
    "a pair of an unknown synthetic image": (
        pairs(("t00", "g00_gen_9.png")),
        r"name a synthetic_id that is not in 'synthetic', first 'g00_gen_9.png' \(data row 1\)\. Did you mean",
    ),
    "a pair given twice": (
        pairs(("t00", "g00_gen_0.png"), ("t00", "g00_gen_0.png")),
        r"1 of 2 pairs repeat.*rows 1 an",
    ),
    "a table of pairs that is not there": (settings(privacy={"pairs": "nowhere.csv"}), r"nowhere\.csv.*no such file"),
    "a misspelt way to pair": (settings(privacy={"pairs": "same_promt"}), "Did you mean 'same_prompt'"),
    "ids that never meet": (settings(privacy={"pairs": "same_id"}), r"same_id finds none.*or a table of pairs"),
    "one table of pairs for two sets": (
        two_sets(privacy=pairs(("t00", "g00_gen_0.png"))),
        r"one table, .*pairs-given\.csv, for 2 synthetic sets\. Evaluate them one by one",
    ),
    "a search in an unknown encoder": (
        settings(privacy={"search": ["pixel"]}),
        r"privacy\.search names 'pixel'\. Encoders of this suite: pixels, perceptual_hash",
    ),
    "a latent distance of an unknown encoder": (settings(privacy={"latent": "rad"}), r"privacy\.latent names 'rad'"),
    "an encoder of the other suite": (
        settings(encoders=[{"name": "pixels", "suites": ["fidelity"]}]),
        r"'pixels' has no use in suite privacy: its `suites` are fidelity\. Drop it",
    ),
    "an encoder of no suite": (
        settings(encoders=[{"name": "pixels", "suites": []}]),
        r"its `suites` are none\. Drop it",
    ),
    "re-identification for fidelity": (
        settings(suite="fidelity", encoders=["pixels", {"name": "siamese_reid", "weights": "random:1"}]),
        r"'siamese_reid' has no use in suite fidelity: it is for privacy alone",
    ),
    "another network's checkpoint": (
        weights("other-network"),
        r"not those of the Siamese ResNet-50.*2 tensors found.*missing, first model\.conv1\.weight.*"
        r"2 unexpected, first conv1\.weight, fc\.bias",
    ),
    "a pickled module": (weights("pickled-module"), r"pickled-module\.pth is refused: it holds a pickled .*run code"),
    "a checkpoint of text": (weights("text"), r"text\.pth is not a readable checkpoint"),
    "a checkpoint that is not there": (weights("missing"), r"missing\.pth' cannot be used: no such file"),
    "held-out images that are the training set": (
        lambda world: {"heldout": str(world.training)},
        "two sets are called 'training': give each its own `name`",
    ),
    "a threshold that is no score": (settings(privacy={"thresholds": [1.5]}), r"privacy\.thresholds.*less than 1"),
    "an unknown setting": (settings(privacy={"treshold": 1}), r"'privacy\.treshold'\. Did you mean 'thresholds'"),
    "an unknown suite": (settings(suite="privcy"), "suite"),
}


@pytest.mark.parametrize("case", BAD)
def test_wrong_input_is_one_line_before_anything_starts(world: World, tmp_path: Path, case: str) -> None:
    change, words = BAD[case]
    with pytest.raises(ChexrayError, match=words) as error:
        make_plan(parse_config(world.data(tmp_path / "out", **change(world))))
    assert error.value.exit_code == 2
    assert len(str(error.value).splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_settings_of_the_other_suite_are_no_error(world: World, tmp_path: Path) -> None:
    plan = make_plan(world.config(tmp_path, metrics="fid,kid", subsets="all,sex", label_policy="u_ones"))
    assert (plan.metrics, plan.subsets) == ({}, ())
    assert plan.sets_of("fidelity") == ()


def test_a_table_of_pairs_is_part_of_the_question(world: World, tmp_path: Path) -> None:
    """The config names only its path, so its rows reach the name of the run."""

    def run_id(*rows: tuple[str, str]) -> str:
        return make_plan(world.config(tmp_path, **pairs(*rows)(world))).run_id

    one = run_id(("t00", "g00_gen_0.png"))
    assert run_id(("t01", "g00_gen_0.png")) != one
    assert run_id(("t00", "g00_gen_0.png")) == one


def test_what_the_run_will_lack_is_said_in_the_plan(world: World, tmp_path: Path) -> None:
    def remarks(**more: object) -> str:
        return "\n".join(make_plan(world.config(tmp_path, **more)).notes)

    assert "no re-identification: give --reid-weights" in remarks()
    assert "held-out" not in remarks()
    assert "no held-out set: the baseline of the search for copies comes from the training" in remarks(heldout=None)
    assert "no search for copies: no encoder of the suite can search" in remarks(encoders="perceptual_hash")
    assert "the real set is not used" in remarks(training={"path": str(world.training), "name": "seen"})


def test_a_prompt_without_a_real_image_and_missing_seeds_are_counted(world: World, tmp_path: Path) -> None:
    rows = read_rows(world.synthetic)[:-1]
    for row in rows[3:6]:
        row["prompt"] = "nobody's report"
    table = world.table("generated-gaps", rows)
    plan = make_plan(world.config(tmp_path, synthetic=[world.generated(table)]))
    assert len(plan.pairs["generated-gaps"]) == 35 - 3
    notes = "\n".join(plan.notes)
    assert "3 of 35 synthetic images are in no pair: no real image has its prompt; first g01_gen_0.png" in notes
    assert "1 of 11 prompts lack seeds: 3 expected, 2 found first at 't11'" in notes
    assert "report" not in notes  # a prompt may be a patient's report
