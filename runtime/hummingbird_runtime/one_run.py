"""One run of a pipeline at a time, and the way to cancel the one that is under way."""

from __future__ import annotations

import threading
from collections.abc import Generator

from hummingbird_runtime.cancel import CancelToken
from hummingbird_runtime.errors import ResourceError, UsageError
from hummingbird_runtime.events import Event


class OneRun:
    """Lets one run through; a second one meanwhile is refused."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: CancelToken | None = None

    def guard(
        self, run: Generator[Event, None, None], cancel: CancelToken
    ) -> Generator[Event, None, None]:
        """The events of ``run``; it counts as under way from the first ``next`` to its end.

        Raises:
            UsageError: ``runtime.busy``.
            ResourceError: ``resource.memory`` when Python's own memory runs out.
        """
        if not self._lock.acquire(blocking=False):
            raise UsageError(
                "runtime.busy",
                "this pipeline is drawing another clip, expected one run at a time",
                hint="wait for it, close its generator, or open a second pipeline",
            )
        self._running = cancel
        try:
            yield from run
        except MemoryError as error:
            raise ResourceError(
                "resource.memory",
                "out of memory while drawing a clip",
                hint="ask for fewer frames or a smaller size, or open with low_memory=True",
            ) from error
        finally:
            self._running = None
            self._lock.release()

    def cancel(self) -> None:
        """Cancel the run that is under way, if there is one."""
        running = self._running
        if running is not None:
            running.cancel()
