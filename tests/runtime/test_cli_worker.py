"""Work in a thread: signals and the time limit reach it, and handlers are put back."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from hummingbird_runtime.cancel import CancelToken
from hummingbird_runtime.cli import worker
from hummingbird_runtime.cli.worker import HungUp, Terminated, run_cancellable
from hummingbird_runtime.errors import Cancelled, InputError, TimeLimitError


def until_cancelled(token: CancelToken) -> None:
    while True:
        token.raise_if_cancelled()
        time.sleep(0.005)


def test_the_result_and_the_error_come_back() -> None:
    assert run_cancellable(lambda token: token.cancelled) is False

    def fail(token: CancelToken) -> None:
        raise InputError("a.b", "c")

    with pytest.raises(InputError):
        run_cancellable(fail)


@pytest.mark.parametrize(
    ("name", "kind", "code"),
    [("SIGINT", Cancelled, 130), ("SIGTERM", Terminated, 143), ("SIGHUP", HungUp, 129)],
)
def test_a_signal_cancels_and_names_itself(name: str, kind: type[Cancelled], code: int) -> None:
    number = getattr(signal, name, None)
    if number is None:
        pytest.skip(f"no {name} here")
    before = signal.getsignal(number)

    def work(token: CancelToken) -> None:
        signal.raise_signal(number)
        until_cancelled(token)

    with pytest.raises(Cancelled) as caught:
        run_cancellable(work)
    assert type(caught.value) is kind
    assert caught.value.exit_code == code
    assert signal.getsignal(number) is before


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        assert run_cancellable(lambda token: signal.raise_signal(signal.SIGTERM)) is None
    finally:
        signal.signal(signal.SIGTERM, before)


def test_work_outside_the_main_thread_runs_without_handlers() -> None:
    results: list[int] = []
    thread = threading.Thread(target=lambda: results.append(run_cancellable(lambda token: 7)))
    thread.start()
    thread.join()
    assert results == [7]


def test_the_time_limit_is_its_own_error() -> None:
    with pytest.raises(TimeLimitError) as caught:
        run_cancellable(until_cancelled, timeout=0.05)
    assert caught.value.code == "runtime.time_limit"


def test_a_result_that_came_with_the_signal_is_kept() -> None:
    def work(token: CancelToken) -> str:
        signal.raise_signal(signal.SIGTERM)
        return "done"

    assert run_cancellable(work) == "done"


def test_work_that_does_not_stop_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exits themselves are tested in a process of their own."""
    release = threading.Event()

    def leave(error: Exception) -> None:
        release.set()
        raise error

    monkeypatch.setattr(worker, "_exit_now", leave)
    monkeypatch.setattr(worker, "_GRACE_S", 0.05)
    with pytest.raises(TimeLimitError):
        run_cancellable(lambda token: release.wait(20), timeout=0.05)
    release.clear()

    def work(token: CancelToken) -> None:
        signal.raise_signal(signal.SIGTERM)
        time.sleep(0.2)
        signal.raise_signal(signal.SIGTERM)
        release.wait(20)

    with pytest.raises(Terminated):
        run_cancellable(work)
