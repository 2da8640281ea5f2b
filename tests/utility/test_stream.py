"""Which images a step sees: nothing dropped, nothing shared between workers, and any epoch from numbers alone."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chexray.utility.loop.loading import AHEAD, Loader
from chexray.utility.loop.stream import DROPOUT, PASSES, Stream, derived_seed, phase_epochs

streams = st.builds(
    Stream,
    n=st.integers(8, 90),
    per_epoch=st.integers(8, 200),
    batch_size=st.integers(1, 70),
    seed=st.integers(0, 3),
    phase=st.integers(0, 1),
)


def ranks(stream: Stream, size: int) -> list[Stream]:
    return [
        Stream(stream.n, stream.per_epoch, stream.batch_size, stream.seed, stream.phase, r, size) for r in range(size)
    ]


@given(streams, st.integers(1, 4))
@settings(deadline=None, max_examples=80)
def test_shares_are_disjoint_complete_and_even(stream, size):
    shares = [worker.share for worker in ranks(stream, size)]
    assert np.sort(np.concatenate(shares)).tolist() == list(range(stream.n))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@given(streams, st.integers(1, 4), st.integers(0, 5))
@settings(deadline=None, max_examples=80)
def test_an_epoch_presents_its_budget_in_the_same_number_of_even_steps_on_every_worker(stream, size, epoch):
    batches = [worker.batches(epoch) for worker in ranks(stream, size)]
    assert len({len(own) for own in batches}) == 1
    assert sum(len(batch) for own in batches for batch in own) == stream.per_epoch
    for own in batches:
        lengths = [len(batch) for batch in own]
        assert max(lengths) - min(lengths) <= 1
        assert min(lengths) >= 2
    if stream.batch_size >= 3 * size:  # else steps are fewer, so that no batch is a single image
        assert sum(len(own[0]) for own in batches) <= stream.batch_size + size


@given(streams, st.integers(1, 3))
@settings(deadline=None, max_examples=50)
def test_epochs_follow_each_other_through_whole_shuffled_passes(stream, size):
    worker = ranks(stream, size)[-1]
    length = len(worker.share)
    epochs = 2 + 2 * length // worker.mine
    walk = np.concatenate([batch for epoch in range(epochs) for batch in worker.batches(epoch)])
    for start in range(0, len(walk) - length + 1, length):
        assert np.sort(walk[start : start + length]).tolist() == list(range(length))


def test_passes_differ_and_so_do_seeds_and_phases():
    def first(**changes: int) -> list[int]:
        return Stream(**{"n": 40, "per_epoch": 40, "batch_size": 40, "seed": 0, **changes}).batches(0)[0].tolist()

    whole = Stream(40, 40, 40, 0)
    orders = [first(), first(seed=1), first(phase=1), whole.batches(1)[0].tolist(), list(range(40))]
    assert len({tuple(order) for order in orders}) == len(orders)
    assert first() == whole.batches(0)[0].tolist()


@pytest.mark.parametrize(
    ("epochs", "shares", "expected"),
    [
        (20, [1.0], [20]),
        (20, [0.5, 0.5], [10, 10]),
        (5, [0.5, 0.5], [3, 2]),
        (10, [0.01, 0.99], [1, 9]),
        (10, [0.1, 0.2, 0.7], [1, 2, 7]),
        (3, [0.05, 0.05, 0.9], [1, 1, 1]),
        (1, [0.5, 0.5], [1, 1]),
        (0, [0.5, 0.5], [0, 0]),
    ],
)
def test_phases_share_the_epochs(epochs, shares, expected):
    assert phase_epochs(epochs, shares) == expected


def test_seeds_depend_on_their_purpose_and_fit_torch():
    seeds = {derived_seed(purpose, a, b) for purpose in (PASSES, DROPOUT) for a in range(5) for b in range(5)}
    assert len(seeds) == 50
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_the_loader_keeps_order_and_measures_its_own_time():
    batches = [np.arange(k) for k in range(7)]
    with Loader(lambda batch: batch.sum(), batches) as loader:
        assert list(loader) == [batch.sum() for batch in batches]
    assert loader.busy_s > 0


@pytest.mark.parametrize("n", [0, 1, AHEAD, AHEAD + 1])
def test_the_loader_takes_any_number_of_batches(n):
    with Loader(len, [np.arange(3)] * n) as loader:
        assert list(loader) == [3] * n


def test_an_exception_of_the_loader_surfaces_in_the_loop_and_the_thread_ends():
    def make(batch: np.ndarray) -> int:
        if len(batch) == 3:
            raise StopAsyncIteration("image 3 is gone")
        return len(batch)

    with (
        pytest.raises(StopAsyncIteration, match="image 3 is gone"),
        Loader(make, [np.arange(k) for k in range(6)]) as loader,
    ):
        list(loader)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


def test_the_thread_ends_when_the_loop_is_left_early():
    with Loader(len, [np.arange(3)] * 50) as loader:
        for _ in loader:
            break
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]
