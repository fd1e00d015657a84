"""The one way to stop a generation: a flag that any thread, or a signal handler, may set."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from hummingbird_runtime.errors import Cancelled


class CancelToken:
    """Handed in as ``cancel=``; ``cancel()`` stops the call within one graph node.

    Takes no lock, so a signal handler may call it while the same thread is inside it. A token
    stays cancelled: use a new one for the next call.
    """

    def __init__(self) -> None:
        self._cancelled = False
        self._watchers: dict[object, Callable[[], None]] = {}

    @property
    def cancelled(self) -> bool:
        """Whether ``cancel()`` was called."""
        return self._cancelled

    def cancel(self) -> None:
        """Set the flag and wake whatever is running now."""
        self._cancelled = True
        for wake in list(self._watchers.values()):
            wake()

    def raise_if_cancelled(self) -> None:
        """Raise when the flag is set.

        Raises:
            Cancelled: ``runtime.cancelled``.
        """
        if self._cancelled:
            raise Cancelled

    @contextlib.contextmanager
    def watch(self, wake: Callable[[], None]) -> Iterator[None]:
        """Call ``wake`` when the flag is set during the block, or at once if it is set already."""
        key = object()
        self._watchers[key] = wake
        try:
            if self._cancelled:  # looked at after registering, so no cancel can fall between
                wake()
            yield
        finally:
            del self._watchers[key]
