"""The training loop: it learns, it counts what it says it counts, and it resumes with the same bits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures.fits import RECIPE, FailingStorage, Images, a_fit, run
from sklearn.metrics import roc_auc_score

from chexray.errors import ResourceError, StorageError
from chexray.storage import Storage, join
from chexray.utility.classification.head import Classification, macro_auroc
from chexray.utility.loop import epoch as epoch_module
from chexray.utility.loop.checkpointing import Folder
from chexray.utility.loop.fit_spec import Phase, Sample
from chexray.utility.loop.predict import outputs_of, own_slice
from chexray.utility.loop.workers import Workers

TIMED = {"images_per_s", "input_images_per_s", "seconds"}


def folder_of(fit, root) -> Folder:
    return Folder(join(str(root), fit.name), fit, Storage())


def kept(fit, root) -> dict[str, bytes]:
    """What a committed fit leaves, but for what the clock wrote."""
    files = {path.name: path.read_bytes() for path in (Path(str(root)) / fit.name).iterdir()}
    history = json.loads(files.pop("history.json"))
    untimed = [{key: row[key] for key in row if key not in TIMED} for row in history]
    return {**files, "history": json.dumps(untimed).encode()}


def rows(fit, root) -> list[dict]:
    return folder_of(fit, root).history()


def test_it_learns_a_separable_set_and_masked_findings_do_not_matter(tmp_path):
    images = Images()
    fit = a_fit(images, n=96, recipe=replace(RECIPE, epochs=10, augment="standard"))
    (summary,) = run([fit], images, tmp_path)
    assert summary["best_auroc"] > 0.95
    assert summary["epochs"] == 10
    logits = folder_of(fit, tmp_path).read_predictions(fit.validation.keys)
    areas = [roc_auc_score(fit.validation.labels[:, k], logits[:, k]) for k in range(2)]
    assert summary["best_auroc"] == pytest.approx(np.mean(areas), abs=1e-12)
    history = rows(fit, tmp_path)
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]
    assert [row["epoch"] for row in history] == list(range(1, 11))
    assert history[0]["lr"] == pytest.approx(RECIPE.learning_rate)
    assert history[-1]["lr"] < 0.05 * RECIPE.learning_rate
    best = max(range(10), key=lambda k: history[k]["val_auroc"])
    assert summary["best_epoch"] == best + 1
    assert sorted(kept(fit, tmp_path)) == sorted(
        ["fit.json", "history", "model.safetensors", *(p.name for p in tmp_path.rglob("*.parquet"))]
    )


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"schedule": "plateau", "optimizer": "adam", "grad_clip": 0.5}, {}])
def test_resuming_after_any_failed_write_gives_the_same_bits(tmp_path, changes):
    """Two phases with augmentation and a schedule; the plug is pulled at each of the writes in turn."""
    images = Images()
    recipe = replace(RECIPE, epochs=3, augment="standard", plateau_patience=0, **changes)
    other = Phase(images.sample(20, "synthetic", seed=5), 1 / 3)
    fit = a_fit(images, n=32, recipe=recipe)
    fit = replace(fit, phases=(other, Phase(fit.phases[0].sample, 2 / 3)), n_budget=32)
    whole = FailingStorage()
    run([fit], images, tmp_path / "whole", whole)
    assert whole.names[0] == "fit.json"
    assert whole.names[1:3] == ["checkpoint.pt", "history.json"]
    assert [name.split("-")[0] for name in whole.names[-3:]] == ["model.safetensors", "history.json", "predictions"]
    expected = kept(fit, tmp_path / "whole")
    for fails_at in range(0, len(whole.names), 3 if changes else 1):
        root = tmp_path / str(fails_at)
        with pytest.raises(StorageError, match="plug"):
            run([fit], images, root, FailingStorage(fails_at))
        run([fit], images, root)
        assert kept(fit, root) == expected, f"write {fails_at}, {whole.names[fails_at]}"


def test_a_failure_mid_epoch_leaves_nothing_behind(tmp_path, monkeypatch):
    images = Images()
    fit = a_fit(images)
    run([fit], images, tmp_path / "whole")
    calls, real = [], epoch_module.augment

    def dies(*args):
        calls.append(1)
        if len(calls) == 5:
            raise OSError("killed")
        return real(*args)

    monkeypatch.setattr(epoch_module, "augment", dies)
    with pytest.raises(OSError, match="killed"):
        run([fit], images, tmp_path / "again")
    said: list[str] = []
    run([fit], images, tmp_path / "again", say=said.append)
    assert said[0] == "real, seed 0: goes on after epoch 1"
    assert kept(fit, tmp_path / "again") == kept(fit, tmp_path / "whole")


@pytest.mark.slow
def test_the_global_generators_and_threads_are_left_as_they_were(tmp_path):
    images = Images()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    threads = torch.get_num_threads()
    run([a_fit(images)], images, tmp_path, threads=threads + 1)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads


def test_a_committed_fit_reads_nothing_and_scores_further_sets_later(tmp_path):
    images = Images()
    fit = a_fit(images)
    (first,) = run([fit], images, tmp_path)
    before, reads = kept(fit, tmp_path), images.reads
    storage = FailingStorage(0)
    assert run([fit], images, tmp_path, storage) == [first]
    assert images.reads == reads
    more = images.sample(70, "test", seed=9)
    further = replace(fit, score={**fit.score, "test": more.keys, "same images": more.keys})
    run([further], images, tmp_path)
    assert images.reads == reads + 1
    after = kept(fit, tmp_path)
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 1
    # The same as if they had been asked for at once.
    run([further], images, tmp_path / "at once")
    assert kept(further, tmp_path / "at once") == after


def test_fits_run_in_order_each_in_its_folder(tmp_path):
    images = Images()
    fits = [a_fit(images, seed=seed, title=f"seed {seed}") for seed in (0, 1)]
    summaries = run(fits, images, tmp_path)
    assert [summary["title"] for summary in summaries] == ["seed 0", "seed 1"]
    assert kept(fits[0], tmp_path)["model.safetensors"] != kept(fits[1], tmp_path)["model.safetensors"]


@pytest.mark.parametrize(("budget", "images_an_epoch"), [("images", 48), ("epochs", 20)])
def test_the_budget_is_counted_in_images_or_in_passes(tmp_path, monkeypatch, budget, images_an_epoch):
    images = Images()
    fit = a_fit(images, recipe=replace(RECIPE, budget=budget, epochs=1), n_budget=48)
    small = images.sample(20, "small")
    seen, real = [], epoch_module.augment
    monkeypatch.setattr(epoch_module, "augment", lambda batch, *rest: seen.append(len(batch)) or real(batch, *rest))
    fit = replace(fit, phases=(Phase(small),))
    run([fit], images, tmp_path)
    assert sum(seen) == images_an_epoch == rows(fit, tmp_path)[0]["images"]
    assert max(seen) <= 16


def test_phases_follow_each_other_and_the_best_epoch_is_of_the_last(tmp_path):
    images = Images()
    fit = a_fit(images, recipe=replace(RECIPE, epochs=4))
    fit = replace(fit, phases=(Phase(fit.phases[0].sample, 0.5), Phase(images.sample(30, "real", seed=4), 0.5)))
    run([fit], images, tmp_path)
    history = rows(fit, tmp_path)
    assert [row["phase"] for row in history] == [0, 0, 1, 1]
    assert [row["best_epoch"] for row in history[:2]] == [None, None]
    assert history[-1]["best_epoch"] in (3, 4)
    assert history[2]["lr"] == pytest.approx(RECIPE.learning_rate)  # a schedule of its own


def test_without_epochs_the_weights_are_committed_as_built(tmp_path):
    from chexray.utility.classification.classifier import build

    images = Images()
    fit = a_fit(images, recipe=replace(RECIPE, epochs=0))
    (summary,) = run([fit], images, tmp_path)
    assert summary["epochs"] == 0
    assert summary["best_epoch"] is None
    state, _ = folder_of(fit, tmp_path).load_model()
    built = build("test_resnet", None, seed=0, image_size=32).state_dict()
    assert all(torch.equal(state[name], built[name]) for name in built)
    assert run([fit], images, tmp_path) == [summary]


def test_training_stops_when_patience_is_over_also_after_a_resume(tmp_path, monkeypatch):
    images = Images()
    areas = iter([0.5, 0.7, 0.7, 0.6, 0.9, 0.9])
    monkeypatch.setattr("chexray.utility.classification.head.macro_auroc", lambda *_: next(areas))
    fit = a_fit(images, recipe=replace(RECIPE, epochs=6, patience=2))
    storage = FailingStorage(1 + 4 * 2)  # fit.json, four epochs; then the final weights fail
    with pytest.raises(StorageError):
        run([fit], images, tmp_path, storage)
    (summary,) = run([fit], images, tmp_path)
    assert summary["epochs"] == 4
    assert summary["best_epoch"] == 2  # the earlier of equals
    assert next(areas) == 0.9


def test_without_both_classes_the_lowest_loss_decides_and_without_labels_the_last_epoch(tmp_path):
    images = Images()
    fit = a_fit(images)
    for value, by in ((0, "loss"), (-1, "last")):
        labels = np.full_like(fit.validation.labels, value)
        other = replace(fit, validation=Sample(fit.validation.ids, fit.validation.keys, labels))
        (summary,) = run([other], images, tmp_path)
        assert summary["best_by"] == by
        assert summary["best_auroc"] is None
        assert summary["best_epoch"] in ((2,) if by == "last" else (1, 2))
    nothing = replace(fit, validation=fit.validation.take(np.arange(0)), score={})
    assert run([nothing], images, tmp_path)[0]["best_epoch"] == 2


def test_masked_training_labels_and_one_class_do_not_crash(tmp_path):
    images = Images()
    fit = a_fit(images, recipe=replace(RECIPE, pos_weight="balanced", epochs=1))
    labels = np.full_like(fit.phases[0].sample.labels, -1)
    labels[:16, 0] = 1
    sample = Sample(fit.phases[0].sample.ids, fit.phases[0].sample.keys, labels)
    (summary,) = run([replace(fit, phases=(Phase(sample),))], images, tmp_path)
    assert summary["epochs"] == 1


def test_a_loss_that_is_not_finite_names_the_images_of_its_batch_and_ends_no_other_training(tmp_path, monkeypatch):
    images = Images()
    fit = a_fit(images)
    other = replace(fit, title="real, seed 1", seed=1)
    real, calls = Classification.loss, []

    def poisoned(*args):
        inner = real(*args)

        def loss(logits, labels):
            calls.append(1)
            return inner(logits, labels) * (float("nan") if len(calls) == 6 else 1)  # 3 steps, validation, 2 steps

        return loss

    monkeypatch.setattr(Classification, "loss", poisoned)
    summary, second = run([fit, other], images, tmp_path)
    folders = [Folder(str(tmp_path / each.name), each, Storage()) for each in (fit, other)]
    text = folders[0].failure
    assert summary["failed"] == text
    assert [folder.is_done for folder in folders] == [False, True]
    assert (folders[1].failure, "failed" in second) == ("", False)
    assert text.startswith("loss is not finite in epoch 2 of real, seed 0, step 2: images image train-")
    assert text.count("image train-") == 5
    assert " and 11 others. Lower utility.learning_rate" in text
    assert len(rows(fit, tmp_path)) == 1


def test_weights_that_break_in_the_last_step_are_not_committed(tmp_path, monkeypatch):
    images = Images()
    fit = a_fit(images)

    def breaks(network, *rest):
        with torch.no_grad():
            next(network.model.parameters()).fill_(float("nan"))
        return outputs_of(network, *rest)

    monkeypatch.setattr("chexray.utility.loop.predict.outputs_of", breaks)
    (summary,) = run([fit], images, tmp_path)
    assert summary["failed"].startswith("predictions are not finite after epoch 1 of real, seed 0")
    assert sorted(path.name for path in (tmp_path / fit.name).iterdir()) == ["failed.json", "fit.json"]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
        MemoryError(),
    ],
)
def test_out_of_memory_says_which_settings_to_lower(tmp_path, monkeypatch, error):
    def full(*_):
        raise error

    monkeypatch.setattr(epoch_module, "augment", full)
    images = Images()
    with pytest.raises(ResourceError, match=r"batch_size \(16\) or image_size \(32\), .* than test_resnet") as caught:
        run([a_fit(images)], images, tmp_path)
    assert "\n" not in str(caught.value)


def test_other_runtime_errors_keep_their_traceback(tmp_path, monkeypatch):
    def wrong(*_):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(epoch_module, "augment", wrong)
    images = Images()
    with pytest.raises(RuntimeError, match="mat1"):
        run([a_fit(images)], images, tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(tmp_path):
    images = Images()
    with pytest.raises(ResourceError, match="no GPU is visible here"):
        run([a_fit(images)], images, tmp_path, device="cuda:0")


def test_a_batch_larger_than_the_set_is_the_set(tmp_path):
    images = Images()
    (summary,) = run([a_fit(images, n=9, recipe=replace(RECIPE, batch_size=500))], images, tmp_path)
    assert summary["epochs"] == 2


@pytest.mark.parametrize("n", [0, 1, 63, 64, 65, 300])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_workers_score_whole_batches(n, size):
    slices = [own_slice(n, Workers(rank, size)) for rank in range(size)]
    assert [i for part in slices for i in range(n)[part]] == list(range(n))
    assert all(part.start % 64 == 0 or part.start == n for part in slices)


@pytest.mark.slow
def test_macro_auroc_equals_sklearn():
    rng = np.random.default_rng(0)
    labels = rng.integers(-1, 2, (200, 14)).astype(np.int8)
    labels[:, 3], labels[:, 4] = 1, -1
    logits = rng.normal(size=(200, 14)).round(1).astype(np.float32)
    areas = []
    for k in range(14):
        known = labels[:, k] >= 0
        if len(set(labels[known, k].tolist())) == 2:
            areas.append(roc_auc_score(labels[known, k], logits[known, k]))
    assert len(areas) == 12
    assert macro_auroc(logits, labels) == pytest.approx(np.mean(areas), abs=1e-12)
    assert macro_auroc(logits, np.zeros_like(labels)) is None
