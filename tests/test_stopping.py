"""A stop is clean where it can be, and over in time where it cannot; a terminal that closes is one but for nohup."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from chexray.run import stopping
from chexray.run.stopping import Stop, in_time


def sent(number: signal.Signals) -> None:
    """Sends it to this process and waits for what it does."""
    os.kill(os.getpid(), number)
    threading.Event().wait(20)


def started_and_waited(thread: threading.Thread) -> None:
    thread.start()
    threading.Event().wait(20)


SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(autouse=True)
def handlers():
    """Puts back what the tests leave, and lets SIGHUP be as on a terminal, whatever runs these tests."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_each_signal_is_a_stop(number: signal.Signals) -> None:
    stop = Stop(leave=lambda _: pytest.fail("nothing hangs here"))
    with pytest.raises(KeyboardInterrupt), stop.on_signals():
        sent(number)
    assert stop.asked
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL


def test_nohup_stands() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop = Stop()
    with stop.on_signals():
        os.kill(os.getpid(), signal.SIGHUP)
    assert not stop.asked


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_main_thread_that_hangs_does_not_keep_the_process(monkeypatch, number) -> None:
    """Neither does a last word that hangs."""
    monkeypatch.setattr(stopping, "UNWIND_S", 0.01)
    monkeypatch.setattr(stopping, "LAST_WORD_S", 0.01)
    left, said, never = threading.Event(), [], threading.Event()
    codes = []

    def last_word() -> None:
        said.append("interrupted")
        never.wait()

    stop = Stop(last_word, leave=lambda code: (codes.append(code), left.set()))
    with stop.on_signals():
        with pytest.raises(KeyboardInterrupt):
            sent(number)
        assert left.wait(20)  # the main thread is still in its block
    assert (codes, said) == ([130], ["interrupted"])
    never.set()


def test_ctrl_c_never_ends_a_notebook(monkeypatch) -> None:
    monkeypatch.setattr(stopping, "UNWIND_S", 0.0)
    monkeypatch.setattr(stopping, "_is_interactive", lambda: True)
    started = []
    monkeypatch.setattr(Stop, "_end_in_time", lambda _, code, seconds: started.append(code))
    for number in (signal.SIGINT, signal.SIGTERM):
        with pytest.raises(KeyboardInterrupt), Stop().on_signals():
            sent(number)
    assert started == [130]


def test_another_thread_can_end_it_and_say_why() -> None:
    stop, why = Stop(leave=lambda _: None), ValueError("the head is gone")
    thread = threading.Thread(target=stop.fail, args=(why, 2))
    with pytest.raises(KeyboardInterrupt), stop.on_signals():
        started_and_waited(thread)
    assert stop.error is why
    assert not stop.asked


def test_what_hangs_is_left_to_itself_and_what_fails_is_raised() -> None:
    never = threading.Event()
    assert not in_time(never.wait, 0.01)
    never.set()
    assert in_time(lambda: None, 20)
    with pytest.raises(ZeroDivisionError):
        in_time(lambda: 1 / 0, 20)


def test_a_stop_takes_less_than_the_20_s_that_are_promised() -> None:
    assert stopping.UNWIND_S + stopping.LAST_WORD_S + stopping.LEAVE_S < 20
    assert stopping.LOST_S + stopping.LAST_WORD_S + 15 < 30
