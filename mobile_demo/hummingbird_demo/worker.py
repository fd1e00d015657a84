"""The thread that draws, and the thread that does everything else that takes time; no Kivy here.

Both put messages into one queue that the screen empties between two frames, so the screen never
waits for them. A pipeline stays open from clip to clip until another model or style is asked for.
"""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hummingbird_demo.orders import Order, RunFile
from hummingbird_runtime import (
    Cancelled,
    CancelToken,
    ExecutionError,
    HummingbirdError,
    SessionBackend,
    TextToVideoPipeline,
    Video,
)
from hummingbird_runtime.events import Done, Frames, Started, Step, Warning

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


NICENESS = 10
"""Of the threads that compute; the screen's has 0."""


@dataclass(frozen=True)
class Opening:
    """The model of an order is being opened."""

    number: int


@dataclass(frozen=True)
class Begun:
    """The order is about to draw; memory as the planner predicts it."""

    number: int
    needed: int
    """Bytes at the peak."""
    free: int | None
    """Bytes that the process may hold in all; None where the system does not tell."""


@dataclass(frozen=True)
class Short:
    """The order was not begun: its peak does not fit."""

    number: int
    needed: int
    free: int | None


@dataclass(frozen=True)
class StepDone:
    """One step of the solver."""

    number: int
    i: int
    """0-based."""
    n: int
    seconds: float
    preview: NDArray[np.uint8]
    """uint8 [F, h, w, 3], rough."""


@dataclass(frozen=True)
class FramesDone:
    """Decoded frames, in order."""

    number: int
    start: int
    frames: NDArray[np.uint8]
    """uint8 [n, H, W, 3]."""


@dataclass(frozen=True)
class Noted:
    """A warning of the run."""

    number: int
    code: str
    text: str


@dataclass(frozen=True)
class Drawn:
    """The clip."""

    number: int
    video: Video


@dataclass(frozen=True)
class Ended:
    """The order ended without a clip; ``error`` is None when it was cancelled."""

    number: int
    error: HummingbirdError | None


@dataclass(frozen=True)
class ErrandDone:
    """Something beside drawing is done; ``error`` is None when it went well."""

    name: str
    value: Any
    error: HummingbirdError | None


@dataclass(frozen=True)
class ErrandNews:
    """How far an errand is."""

    name: str
    done: int
    total: int


Message = (
    Opening
    | Begun
    | Short
    | StepDone
    | FramesDone
    | Noted
    | Drawn
    | Ended
    | ErrandDone
    | ErrandNews
)
News = Callable[[int, int], None]
Errand = Callable[[News, CancelToken], Any]


def open_pipeline(order: Order, backend: SessionBackend | None = None) -> TextToVideoPipeline:
    """The pipeline of an order, its graphs not yet open."""
    return TextToVideoPipeline.from_pretrained(
        order.bundle,
        backend=backend,
        style=order.request.style or None,
        threads=order.threads,
        preload=False,
    )


class Worker:
    """Two threads and a queue of messages. ``close`` ends it.

    Args:
        run_file: keeps what is being drawn, so that a killed app can go on; None keeps nothing.
        open_pipeline: makes the pipeline of an order; tests give another.
    """

    def __init__(
        self,
        run_file: RunFile | None = None,
        open_pipeline: Callable[[Order], Any] = open_pipeline,
    ) -> None:
        self._run_file, self._open = run_file, open_pipeline
        self._closing = False
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._orders: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._errands: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._drawing = CancelToken()
        self._errand_tokens: dict[str, CancelToken] = {}
        self._pipeline: Any = None
        self._pipeline_of: tuple[Path, str, int | None] | None = None
        self._threads = [
            threading.Thread(target=_serve, args=(jobs,), name=name, daemon=True)
            for jobs, name in ((self._orders, "draw"), (self._errands, "errands"))
        ]
        for thread in self._threads:
            thread.start()

    def draw(self, order: Order) -> None:
        """Draw a clip after what was ordered before."""
        token = self._drawing = CancelToken()
        self._orders.put(lambda: self._draw(order, token))

    def warm(self, order: Order) -> None:
        """Open the model of an order without drawing; a failure shows when it is drawn."""

        def open_ahead() -> None:
            with contextlib.suppress(Exception):
                self._pipeline_for(order).load()

        self._orders.put(open_ahead)

    def cancel(self) -> None:
        """Cancel the latest order; its ``Ended`` follows."""
        self._drawing.cancel()

    def release(self) -> None:
        """Close the model once nothing is drawn, to give memory back."""
        self._orders.put(self._forget)

    def forget_run(self) -> None:
        """Drop what an interrupted run left on disk."""
        if self._run_file is not None:
            self._orders.put(self._run_file.discard)

    def do(self, name: str, errand: Errand) -> None:
        """Run ``errand(news, token)`` beside the drawing; ``ErrandDone`` tells its result."""
        token = self._errand_tokens[name] = CancelToken()
        self._errands.put(lambda: self._run_errand(name, errand, token))

    def cancel_errand(self, name: str) -> None:
        """Cancel an errand by its name, if it is under way or waiting."""
        token = self._errand_tokens.get(name)
        if token is not None:
            token.cancel()

    def messages(self) -> list[Message]:
        """Everything that happened since the last call."""
        found: list[Message] = []
        with contextlib.suppress(queue.Empty):
            while True:
                found.append(self._messages.get_nowait())
        return found

    def close(self, timeout: float = 5.0) -> bool:
        """Stop everything and wait for both threads; an unfinished run can be gone on with.

        Returns:
            False when a thread did not end in time.
        """
        self._closing = True
        self._drawing.cancel()
        for token in list(self._errand_tokens.values()):
            token.cancel()
        self._orders.put(self._forget)
        self._orders.put(None)
        self._errands.put(None)
        for thread in self._threads:
            thread.join(timeout)
        return not any(thread.is_alive() for thread in self._threads)

    def _draw(self, order: Order, token: CancelToken) -> None:
        put = self._messages.put
        try:
            self._run(order, token)
        except Cancelled:
            put(Ended(order.number, None))
        except Exception as error:
            put(Ended(order.number, _typed(error)))
        finally:
            if self._run_file is not None and not self._closing:
                self._run_file.discard()

    def _run(self, order: Order, token: CancelToken) -> None:
        number, request, put = order.number, order.request, self._messages.put
        token.raise_if_cancelled()
        put(Opening(number))
        pipe = self._pipeline_for(order)
        plan = pipe.plan(order.prompt, **request.options())
        if not plan.fits:
            put(Short(number, plan.peak_bytes, plan.available_bytes))
            return
        options = request.options() | {"seed": order.seed, "cancel": token}
        if self._run_file is not None:
            if not order.goes_on:
                self._run_file.discard()
            self._run_file.begin(order)
            options["checkpoint"] = self._run_file.checkpoint
        with contextlib.closing(pipe.stream(order.prompt, **options)) as events:
            for event in events:
                if isinstance(event, Started):
                    put(Begun(number, plan.peak_bytes, plan.available_bytes))
                elif isinstance(event, Step):
                    put(StepDone(number, event.i, event.n, event.seconds, event.preview))
                elif isinstance(event, Frames):
                    put(FramesDone(number, event.start, event.array))
                elif isinstance(event, Warning):
                    put(Noted(number, event.code, event.text))
                elif isinstance(event, Done) and isinstance(event.video, Video):
                    put(Drawn(number, event.video))

    def _pipeline_for(self, order: Order) -> Any:
        wanted = (order.bundle, order.request.style, order.threads)
        if self._pipeline_of != wanted:
            self._forget()
            self._pipeline = self._open(order)
            self._pipeline_of = wanted
        return self._pipeline

    def _forget(self) -> None:
        if self._pipeline is not None:
            self._pipeline.close()
        self._pipeline = self._pipeline_of = None

    def _run_errand(self, name: str, errand: Errand, token: CancelToken) -> None:
        def news(done: int, total: int) -> None:
            self._messages.put(ErrandNews(name, done, total))

        try:
            token.raise_if_cancelled()
            self._messages.put(ErrandDone(name, errand(news, token), None))
        except Exception as error:
            self._messages.put(ErrandDone(name, None, _typed(error)))


def _serve(jobs: queue.SimpleQueue[Callable[[], None] | None]) -> None:
    _give_way_to_the_screen()
    while (job := jobs.get()) is not None:
        job()


def _give_way_to_the_screen() -> None:
    """Lower the priority of this thread and of those that it starts, ONNX Runtime's among them.

    Linux and Android have priorities of threads; elsewhere the system is left to decide.
    """
    if sys.platform in ("linux", "android"):
        thread = threading.get_native_id()
        with contextlib.suppress(OSError):
            niceness = max(os.getpriority(os.PRIO_PROCESS, thread), NICENESS)
            os.setpriority(os.PRIO_PROCESS, thread, niceness)


def _typed(error: Exception) -> HummingbirdError:
    """The error as one of ours, so that the screen always has a code and a text."""
    if isinstance(error, HummingbirdError):
        return error
    return ExecutionError(
        "internal.bug", f"{type(error).__name__}: {error}", hint="this is a fault of the app"
    )
