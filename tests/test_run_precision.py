"""`precision: auto`: what the plan foresees, what workers decide, what is kept, and what a run says of it."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from functools import cache

import numpy as np
import pytest

from chexray import evaluate
from chexray.config import parse_config
from chexray.encoders import capability
from chexray.encoders.capability import Machine, of_cpu
from chexray.engine.features import FeatureStore
from chexray.engine.pools import Pool
from chexray.engine.precision import _encode_part
from chexray.plan import make_plan
from chexray.report import care
from chexray.run import precision as run_precision
from chexray.run.directory import RunDirectory
from chexray.run.precision import Checker, Figures, decision, with_precision
from chexray.stats.precision import Shift

TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
NETWORK = {"name": "rad_dino", "weights": "random:1", "architecture": TINY}
POOL = Pool("cpu", "fused", 1, 0.5, 0.25, 0.0, 1, 16, 64, 4, 10**6)
FAST = of_cpu(frozenset({"amx_bf16"}))


@pytest.fixture
def data(write_images, tmp_path):
    @cache
    def folders(n):
        return write_images(f"real{n}", n), write_images(f"synthetic{n}", n, seed=1, offset=9)

    def of(n=40, encoders=(NETWORK, "pixels"), **more):
        real, synthetic = folders(n)
        sets = {"real": str(real), "synthetic": str(synthetic)}
        return parse_config({**sets, "encoders": list(encoders), "metrics": ["kid"], "output": str(tmp_path), **more})

    return of


@pytest.fixture
def amx(monkeypatch):
    monkeypatch.setattr(capability, "cpu_flags", lambda: frozenset({"amx_bf16"}))


def here(plan):
    """(store, directory) of a plan."""
    return FeatureStore(plan.store_uri, plan.storage), RunDirectory(plan.run_uri, plan.run_id, plan.storage)


def in_this_process(store, machine=FAST):
    return Checker(lambda: machine, lambda pair, spec, chunk: _encode_part((pair, spec, store, POOL), chunk))


def never(*_):
    raise AssertionError("asked again")


def answering(noise, shape=32):
    """A checker whose second precision differs by so much noise."""

    def both(pair, spec, chunk):
        rng = np.random.default_rng(0)
        full = rng.normal(1, 1, (chunk.num_rows, shape)).astype(np.float32)
        low = full * (1 + noise * rng.normal(size=full.shape)).astype(np.float32)
        return {"features": (full, low)}, []

    return Checker(lambda: FAST, both)


def test_a_machine_without_bfloat16_runs_in_fp32_and_the_plan_says_why(data, monkeypatch):
    monkeypatch.setattr(capability, "cpu_flags", frozenset)
    plan = make_plan(data())
    assert plan.encoders["rad_dino"][1].precision == "fp32"
    assert any("fp32 (auto: this CPU has neither AMX nor AVX512-BF16)" in line for line in plan.describe())
    assert list(plan.precision) == ["rad_dino"]
    assert not plan.undecided
    assert make_plan(data(encode={"precision": "fp32"})).run_id == plan.run_id


def test_what_is_asked_for_goes_first_and_protocols_fix_fp32(data, amx):
    assert make_plan(data()).undecided == ["rad_dino"]
    assert make_plan(data(encode={"precision": "tf32"})).encoders["rad_dino"][1].precision == "tf32"
    own = {**NETWORK, "precision": "fp32"}
    assert make_plan(data(encoders=[own], encode={"precision": "bf16"})).encoders["rad_dino"][1].precision == "fp32"
    plan = make_plan(data(encoders=[{"name": "rad_dino", "weights": "random:1"}], protocol="chexgenbench"))
    assert plan.encoders["rad_dino"][1].precision == "fp32"
    assert "protocol chexgenbench" in plan.precision["rad_dino"].words


def test_a_good_network_runs_in_bf16_and_the_run_stays_the_same_run(data, amx):
    plan = make_plan(data())
    store, directory = here(plan)
    decided = with_precision(plan, store, directory, answering(1e-4))
    assert decided.encoders["rad_dino"][1].precision == "bf16"
    assert decided.run_id == plan.run_id
    known = decided.precision["rad_dino"]
    assert known.chosen == "bf16"
    assert known.why.startswith("checked on 64 images: features move by 0.01")
    assert set(known.figures["shift"]) == set(known.figures["std_error_at_n"]) == {"fid", "kid"}
    # A run that resumes asks nobody, and another one reads the figures.
    assert with_precision(plan, store, directory, Checker(never, never)).precision == decided.precision
    other = make_plan(data(seed=1))
    again = with_precision(other, *here(other), Checker(lambda: FAST, never))
    assert again.precision["rad_dino"].figures == known.figures


def test_a_network_that_is_bad_in_bf16_falls_back(data, amx):
    plan = make_plan(data())
    decided = with_precision(plan, *here(plan), answering(0.2))
    assert decided.encoders["rad_dino"][1].precision == "fp32"
    assert decided.precision["rad_dino"].why.startswith("bf16 refused, the error of features is 0.2")
    assert "of their length, above 0.02" in decided.precision["rad_dino"].why


def test_figures_kept_for_a_small_run_are_judged_anew_in_a_large_one():
    figures = Figures("cpu amx_bf16", 64, {"features": 0.01}, {"fid": Shift(0.05, 2.0, 32)})
    assert decision(figures, 50).chosen == "bf16"
    large = decision(figures, 50_000)
    assert large.chosen == "fp32"
    assert "fid moves by 0.05, and a tenth of its standard error is 0.0051" in large.why


def test_workers_whose_device_does_not_pay_and_small_runs_are_not_checked(data, amx):
    plan = make_plan(data())
    slow = Checker(lambda: Machine("cpu", False, "no such instructions"), never)
    assert with_precision(plan, *here(plan), slow).precision["rad_dino"].words == "fp32 (auto: no such instructions)"
    few = make_plan(data(n=20))
    decided = with_precision(few, *here(few), Checker(lambda: FAST, never))
    assert decided.precision["rad_dino"].words == "fp32 (auto: fewer than 64 images to check bf16 with)"


def test_without_readable_images_nothing_is_concluded(data, amx):
    plan = make_plan(data())
    unread = Checker(lambda: FAST, lambda *_: ({"features": (np.empty((0, 32), np.float32),) * 2}, list(range(64))))
    words = with_precision(plan, *here(plan), unread).precision["rad_dino"].words
    assert words == "fp32 (auto: only 0 of 64 images to check bf16 with could be read)"


GOOD = {
    "device": "x", "n_images": 64, "errors": {"features": 0.01, "logits": 0.0},
    "shifts": {name: {"shift": -0.1, "std_error": 2.0, "n": 32.0} for name in ("fid", "kid")},
}  # fmt: skip


def parsed(found):
    return Figures.parse(json.dumps(found).encode(), {"features", "logits"}, "x")


def test_figures_are_read_as_they_are_written():
    assert asdict(parsed(GOOD)) == GOOD


@pytest.mark.parametrize(
    "change",
    [
        {"n_images": 0}, {"n_images": 31}, {"n_images": 65}, {"n_images": math.inf}, {"n_images": 64.5},
        {"device": "y"},
        {"shifts": {}}, {"shifts": {"fid": GOOD["shifts"]["fid"]}}, {"errors": {}}, {"errors": {"zzz": 0.0}},
        {"errors": {"features": 0.0}},
        *({"errors": {"features": bad, "logits": 0.0}} for bad in (-5, math.nan, math.inf, 10**400, None)),
        *({"shifts": GOOD["shifts"] | {"kid": {"shift": 0.0, "std_error": 1.0, "n": 32.0} | bad}} for bad in (
            {"std_error": 1e300, "n": 1e300}, {"n": 65.0}, {"n": 0}, {"std_error": 0}, {"std_error": -1.0},
            {"std_error": 1.7e308}, {"shift": math.inf}, {"shift": 10**400}, {"more": 1})),
    ],
)  # fmt: skip
def test_figures_that_no_check_gives_are_measured_again(change):
    assert parsed(GOOD | change) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 5000, '{"n_images": 1' + "0" * 5000 + "}"])
def test_damaged_figures_are_measured_again(text):
    assert Figures.parse(text.encode(), {"features"}, "x") is None


def losing(rejected):
    """A checker of the same numbers in both precisions that cannot read some of the images."""

    def both(pair, spec, chunk):
        features = np.random.default_rng(0).normal(1, 1, (chunk.num_rows - len(rejected), 32)).astype(np.float32)
        return {"features": (features, features * np.float32(1 + 1e-5))}, list(rejected)

    return Checker(lambda: FAST, both)


def test_a_check_that_compared_nothing_is_neither_kept_nor_enough(data, amx):
    plan = make_plan(data())
    for lost in (range(32), range(1, 32)):  # of the real ones, which come first
        store, _ = here(plan)
        decided = with_precision(
            plan, store, RunDirectory(f"{plan.run_uri}-{len(lost)}", "x", plan.storage), losing(lost)
        )
        words = decided.precision["rad_dino"].words
        assert words == "fp32 (auto: too few real or synthetic images to check bf16 with could be read)"
        assert not plan.storage.list(f"{store.root}/precision")
    # The next run measures, and keeps what it found.
    known = with_precision(plan, *here(plan), losing([])).precision["rad_dino"]
    assert known.chosen == "bf16"
    assert len(plan.storage.list(f"{store.root}/precision")) == 1


def test_a_run_of_one_kind_of_image_is_judged_by_its_features_and_keeps_no_figures(data, amx, monkeypatch):
    plan = make_plan(data())
    sample, n = run_precision._sample(plan, "rad_dino")
    only = [(*image[:3], False) for image in sample]
    monkeypatch.setattr(run_precision, "_sample", lambda *_: (only, n))
    store, directory = here(plan)
    known = with_precision(plan, store, directory, losing([])).precision["rad_dino"]
    assert (known.chosen, known.figures["shift"]) == ("bf16", {})
    assert not plan.storage.list(f"{store.root}/precision")


def test_a_file_of_figures_that_says_nothing_is_replaced(data, amx):
    plan = make_plan(data())
    store, directory = here(plan)
    with_precision(plan, store, directory, losing([]))
    (place,) = plan.storage.list(f"{store.root}/precision")
    plan.storage.write(place.uri, b'{"device": "x", "n_images": 1e999, "errors": {"features": 0.0}, "shifts": {}}')
    other = make_plan(data(seed=1))
    assert with_precision(other, *here(other), losing([])).precision["rad_dino"].chosen == "bf16"
    third = make_plan(data(seed=2))
    assert with_precision(third, *here(third), Checker(lambda: FAST, never)).precision["rad_dino"].chosen == "bf16"


def test_a_real_network_in_both_precisions_without_ray(data, amx):
    plan = make_plan(data())
    store, directory = here(plan)
    decided = with_precision(plan, store, directory, in_this_process(store))
    errors = decided.precision["rad_dino"].figures["feature_error"]
    assert 0 < errors["features"] < 0.05
    assert json.loads(plan.storage.read(f"{plan.run_uri}/precision.json"))["rad_dino"]["chosen"] in ("bf16", "fp32")


def test_a_run_checks_on_its_workers_and_says_what_it_chose(ray_cluster, data, amx, monkeypatch):
    on_workers = Checker.on_workers
    monkeypatch.setattr(
        run_precision.Checker, "on_workers", lambda *args: replace(on_workers(*args), machine=lambda: FAST)
    )
    monkeypatch.setattr("chexray.stats.precision.LARGEST_ERROR", 1.0)  # of a random network
    monkeypatch.setattr("chexray.stats.precision.LARGEST_SHIFT", 100.0)
    run = evaluate(data(encoders=[NETWORK], encode={"actors": 1}, floor=False))
    row = run.results[run.results.encoder == "rad_dino"].iloc[0]
    about = json.loads(row["about"])
    assert about["encoder_precision"] == "bf16"
    assert about["precision_check"]["n_checked"] == 64
    assert about["note_precision"].startswith("bf16 (auto: checked on 64 images")
    page = [note.text for note in care.parts(run.results.to_dict("records"))]
    assert any(line.startswith("precision: rad_dino bf16 (auto: checked on 64 images") for line in page)
    story = json.loads(run.storage.read(f"{run.uri}/run.json"))
    assert story["precision"]["rad_dino"]["chosen"] == "bf16"
    assert "precision" in story["seconds"]
