"""The training group is sized for what the cluster has, says how fast it was, and leaves Ctrl-C to us."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from chexray.config import UtilityConfig
from chexray.engine import train as stage
from chexray.engine.pools import Resources, plan_train_pool
from chexray.engine.watching import summary_of
from chexray.errors import ResourceError, RunFailed
from chexray.storage import Storage

LAPTOP = Resources(cpus=8, gpus=0, memory=16e9, nodes=1)
CLUSTER = Resources(cpus=64, gpus=8, memory=1e12, nodes=4, joined=True)


@pytest.mark.parametrize(
    ("resources", "asked", "workers", "device", "threads"),
    [
        (LAPTOP, {}, 1, "cpu", 8),
        (LAPTOP, {"workers": 2}, 2, "cpu", 4),
        (CLUSTER, {}, 8, "cuda", 8),
        (CLUSTER, {"workers": 2}, 2, "cuda", 16),
        (CLUSTER, {"device": "cpu"}, 4, "cpu", 16),
        (Resources(cpus=1, gpus=0, memory=4e9, nodes=1), {}, 1, "cpu", 1),
        # A worker larger than the smallest node would be waited for without end.
        (Resources(cpus=6, gpus=0, memory=9e9, nodes=3, node_cpus=(2, 2, 2)), {"workers": 1}, 1, "cpu", 2),
        (Resources(cpus=12, gpus=0, memory=9e9, nodes=3, node_cpus=(8, 4)), {}, 3, "cpu", 4),
        (Resources(cpus=4, gpus=8, memory=9e9, nodes=1, node_cpus=(4,)), {}, 8, "cuda", 1),
    ],
)
def test_one_worker_a_gpu_or_a_machine(resources, asked, workers, device, threads) -> None:
    pool = plan_train_pool(UtilityConfig(**asked), resources)
    assert (pool.workers, pool.device, pool.threads) == (workers, device, threads)
    # The pool never books every CPU: whoever else needs one would wait for ever.
    assert pool.workers * pool.cpus_per_worker < resources.cpus
    on_one_node = -(-pool.workers // resources.nodes)
    assert on_one_node * pool.cpus_per_worker <= 0.5 * resources.smallest_node_cpus or device == "cuda"
    assert f"{workers} training worker" in pool.describe()


@pytest.mark.parametrize(
    ("resources", "asked", "words"),
    [
        (LAPTOP, {"device": "cuda"}, "utility.device is cuda, but local Ray: 1 node, 8 CPU has no GPU"),
        (LAPTOP, {"workers": 9}, "utility.workers is 9, one CPU each.*from 1 to 8, or auto"),
        (CLUSTER, {"workers": 9}, "utility.workers is 9, one GPU each.*from 1 to 8, or auto"),
        (LAPTOP, {"workers": 0}, "utility.workers is 0"),
    ],
)
def test_what_cannot_be_had_is_said_before_anything_waits(resources, asked, words) -> None:
    with pytest.raises(ResourceError, match=words):
        plan_train_pool(UtilityConfig(**asked), resources)


def test_ray_still_registers_its_interrupt_handler_where_we_replace_it() -> None:
    from ray.train.torch import TorchTrainer

    assert callable(getattr(TorchTrainer, "_register_sigint_handler", None))


def test_the_line_of_a_finished_training() -> None:
    def epoch(best_epoch: int | None, best: float | None) -> dict:
        return {"best_epoch": best_epoch, "best_auroc": best, "images": 100, "images_per_s": 50.0,
                "input_images_per_s": 1000.0}  # fmt: skip

    history = [epoch(None, None), epoch(2, 0.7), epoch(3, 0.8), epoch(3, 0.8)]
    assert summary_of(history, "auroc") == (
        ": epoch 3 of 4 is best, validation AUROC 0.800; 50 images/s, the input could give 1,000"
    )
    assert summary_of([epoch(1, None)], "auroc") == ""
    assert summary_of([], "auroc") == ""


def lost(monkeypatch, ends: list[Exception | None], committed: list[int]) -> list[str]:
    """Ends of the groups that are tried, one after the other, and epochs committed before and after each."""
    said: list[str] = []
    monkeypatch.setattr(stage, "PAUSE_S", 0.0)
    monkeypatch.setattr(stage, "say", said.append)
    monkeypatch.setattr(stage, "_n_committed", lambda *_: committed.pop(0))

    def fit(*_: Any) -> None:
        end = ends.pop(0)
        if end is not None:
            raise end

    monkeypatch.setattr(stage, "_fit_on_ray", fit)
    return said


SHORT = ResourceError("out of memory on node 10.0.0.7: 0.9 of 23.5 GB was free")
ANYTHING: Any = None


def test_a_training_whose_leader_is_lost_starts_again_within_bounds(monkeypatch) -> None:
    leader = stage._Lost(SHORT, was_restarted=False)
    said = lost(monkeypatch, [leader, leader, leader, None], [0] * 7)
    stage._train_on_ray(ANYTHING, [], ANYTHING)
    assert said == [f"note: training starts again from its last checkpoint, since {SHORT}"] * 3
    lost(monkeypatch, [leader] * 4, [0] * 8)
    with pytest.raises(ResourceError, match=r"0\.9 of 23\.5 GB"):
        stage._train_on_ray(ANYTHING, [], ANYTHING)


def test_progress_buys_a_new_group_and_its_lack_ends_the_run(monkeypatch) -> None:
    group = stage._Lost(RunFailed("workers failed"), was_restarted=True)
    lost(monkeypatch, [group, group, None], [0, 1, 1, 2, 2])
    stage._train_on_ray(ANYTHING, [], ANYTHING)
    lost(monkeypatch, [group, group], [0, 1, 1, 1])
    with pytest.raises(RunFailed, match="workers failed"):
        stage._train_on_ray(ANYTHING, [], ANYTHING)


NO_MEMORY = (
    "1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 10.0.0.7, ID: 34fb) was "
    "22.61GB used / 23.54GB limit (0.960493)\nTop 10 memory users: PID\tMEM(GB)\tCOMMAND\n4242\t14.80\tpython3 train.py"
)
WORDS = r"out of memory on node 10\.0\.0\.7: 0\.9 of 23\.5 GB was free.*train\.py \(14\.8 GB\).*utility\.batch_size"


@pytest.mark.parametrize("who", ["leader", "workers", "defect"])
def test_out_of_memory_in_any_process_of_a_training_is_told(monkeypatch, tmp_path, who: str) -> None:
    """Nothing runs here: the trainer ends as Ray's does."""
    import ray
    from ray.exceptions import OutOfMemoryError, RayTaskError
    from ray.train import WorkerGroupError
    from ray.train.torch import TorchTrainer

    ends: dict[str, Exception] = {
        "leader": OutOfMemoryError(NO_MEMORY),
        "workers": WorkerGroupError("...", {0: RuntimeError("gloo"), 1: OutOfMemoryError(NO_MEMORY)}),
        "defect": RayTaskError("run", "KeyError: 'x'", KeyError("x"), "ray::TrainController", 5, "10.0.0.7"),
    }

    def fit(_: Any) -> None:
        raise ends[who]

    monkeypatch.setattr(TorchTrainer, "__init__", lambda *_, **__: None)
    monkeypatch.setattr(TorchTrainer, "fit", fit)
    monkeypatch.setattr(ray, "put", lambda value: value)
    monkeypatch.setattr(stage, "free_groups", lambda: None)  # would start a Ray
    pool = plan_train_pool(UtilityConfig(), LAPTOP)
    store = SimpleNamespace(storage=Storage())
    task = stage.Task((), cast(Any, store), ANYTHING, ANYTHING, None, pool, str(tmp_path), "run-1")
    if who == "defect":
        with pytest.raises(RayTaskError):
            stage._fit_on_ray(task, [], LAPTOP)
        return
    with pytest.raises(stage._Lost, match=WORDS) as error:
        stage._fit_on_ray(task, [], LAPTOP)
    assert error.value.was_restarted == (who == "workers")
    assert len(str(error.value.why).splitlines()) == 1
