"""Runs the work of a verb in a thread, so that signals and the time limit can reach it.

A Python signal handler cannot run while the main thread is inside ONNX Runtime; here the main
thread only waits. The first signal cancels; a second one, or a time limit that one big graph node
overstays, ends the process at once after removing half-written outputs.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeVar

from hummingbird_runtime.atomic import discard_partials
from hummingbird_runtime.cancel import CancelToken
from hummingbird_runtime.errors import Cancelled, HummingbirdError, TimeLimitError

T = TypeVar("T")

_POLL_S = 0.1
_GRACE_S = 10.0


class Terminated(Cancelled):
    """SIGTERM came."""

    exit_code = 143


class HungUp(Cancelled):
    """The terminal went away."""

    exit_code = 129


def run_cancellable(work: Callable[[CancelToken], T], *, timeout: float | None = None) -> T:
    """Run ``work(token)`` in a thread and return its result.

    Args:
        work: must stop soon after its token is cancelled.
        timeout: seconds; None is no limit.

    Raises:
        Cancelled: SIGINT (exit 130), SIGTERM (143) or SIGHUP (129) came.
        TimeLimitError: ``runtime.time_limit``.
    """
    token = CancelToken()
    results: list[T] = []
    failures: list[BaseException] = []

    def body() -> None:
        try:
            results.append(work(token))
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=body, name="hummingbird-work", daemon=True)
    started = time.monotonic()
    stop: HummingbirdError | None = None
    with _signals(token) as received:
        thread.start()
        while thread.is_alive():
            thread.join(_POLL_S)
            elapsed = time.monotonic() - started
            if received:
                stop = received[0]
            if len(received) > 1:
                _exit_now(received[0])
            if stop is None and timeout is not None and elapsed > timeout:
                stop = _time_limit(timeout)
                token.cancel()
            if isinstance(stop, TimeLimitError) and elapsed > (timeout or 0.0) + _GRACE_S:
                _exit_now(stop)
    if not failures:
        return results[0]
    if stop is not None and isinstance(failures[0], Cancelled):
        raise stop from failures[0]
    raise failures[0]


_MEANINGS: dict[str, Callable[[], Cancelled]] = {
    "SIGINT": lambda: Cancelled("interrupted by the user"),
    "SIGTERM": lambda: Terminated("terminated by SIGTERM"),
    "SIGHUP": lambda: HungUp("the terminal went away"),
}


@contextlib.contextmanager
def signals_raise() -> Iterator[None]:
    """A signal raises its error in the main thread: for work that only waits there for children."""

    def throw(error: Cancelled) -> None:
        raise error

    with _handled(throw):
        yield


@contextlib.contextmanager
def _signals(token: CancelToken) -> Iterator[list[Cancelled]]:
    """Cancel the token on a signal and note it."""
    received: list[Cancelled] = []

    def note(error: Cancelled) -> None:
        received.append(error)
        token.cancel()

    with _handled(note):
        yield received


@contextlib.contextmanager
def _handled(receive: Callable[[Cancelled], None]) -> Iterator[None]:
    """Hand signals over as errors; those that the caller ignores stay ignored."""
    previous: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for name, meaning in _MEANINGS.items():
            number = getattr(signal, name, None)  # Windows has no SIGHUP
            if number is None or signal.getsignal(number) is signal.SIG_IGN:
                continue

            def handle(*_: object, meaning: Callable[[], Cancelled] = meaning) -> None:
                receive(meaning())

            previous[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _time_limit(timeout: float) -> TimeLimitError:
    return TimeLimitError(
        "runtime.time_limit",
        f"got no result within {timeout:g} s",
        hint="raise --timeout, or ask for fewer steps or frames",
    )


def _exit_now(error: HummingbirdError) -> NoReturn:
    from hummingbird_runtime.cli import report

    discard_partials()
    report(error)
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()
    os._exit(error.exit_code)
