"""Patience with an endpoint: retries with exponential back-off, and a limit on the rate of calls.

Clock and sleep are arguments, so that tests run without waiting.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


class Transient(Exception):
    """A failure that may pass: a busy, slow or briefly broken endpoint.

    Args:
        reason: one line.
        retry_after: seconds that the endpoint asked to wait, if it did.
    """

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


@dataclass(frozen=True)
class RetryPolicy:
    """How often, and how long to wait between."""

    attempts: int = 5
    """calls in all, the first among them"""
    first_wait: float = 1.0
    """seconds after the first failure; doubled after every other"""
    longest_wait: float = 60.0
    """seconds; also the longest Retry-After that is obeyed"""


def with_retries(
    call: Callable[[], T],
    policy: RetryPolicy = RetryPolicy(),
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Call until it succeeds or the attempts are gone.

    Raises:
        Transient: the last one.
    """
    wait = policy.first_wait
    for attempt in range(1, policy.attempts + 1):
        try:
            return call()
        except Transient as failure:
            if attempt == policy.attempts:
                raise
            asked = wait if failure.retry_after is None else max(wait, failure.retry_after)
            sleep(min(asked, policy.longest_wait))
            wait *= 2
    raise ValueError(f"attempts, got {policy.attempts}, expected 1 or more")


class RateLimit:
    """Spaces calls evenly; shared by threads.

    Args:
        per_minute: calls; None is no limit.
        clock: seconds that only grow.
        sleep: waits.
    """

    def __init__(
        self,
        per_minute: float | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._interval = 0.0 if per_minute is None else 60.0 / per_minute
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._next = 0.0

    def wait(self) -> None:
        """Return when the next call may start."""
        with self._lock:
            now = self._clock()
            start = max(now, self._next)
            self._next = start + self._interval
        if start > now:
            self._sleep(start - now)
