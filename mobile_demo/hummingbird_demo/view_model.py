"""The drawing screen without a screen: what is shown, and what each touch does to it.

A state machine over messages of the worker. ``poll`` is called once per frame and never waits; a
message of an older order than the present one changes nothing. Texts are keys of the catalogue.
"""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from hummingbird_demo import worker as w
from hummingbird_demo.choices import SEED_LIMIT, Request
from hummingbird_demo.orders import Interrupted, Order
from hummingbird_demo.progress import Estimator, Progress
from hummingbird_runtime import HummingbirdError, Video

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hummingbird_demo.clips import Clip, Library
    from hummingbird_demo.models import Model

MAX_SEED = (1 << 64) - 1
MAX_PROMPT = 1000
"""Characters; the box takes no more."""
_TIGHT = 0.8
"""Share of the free memory from which a clip is announced as tight."""
KEEP = "keep"
"""Name of the errand that puts a clip into the library."""


class Phase(StrEnum):
    """Where the screen is."""

    IDLE = "idle"
    INTERRUPTED = "interrupted"
    """A run of an earlier, killed app can be gone on with."""
    OPENING = "opening"
    GENERATING = "generating"
    CANCELLING = "cancelling"
    """Cancel was touched and the worker has not answered yet."""
    PLAYING = "playing"
    FAILED = "failed"
    LOW_MEMORY = "low_memory"


BUSY = frozenset({Phase.OPENING, Phase.GENERATING, Phase.CANCELLING})


@dataclass(frozen=True)
class Line:
    """One text of the catalogue and what goes into its braces."""

    key: str
    values: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class State:
    """Everything the drawing screen shows."""

    phase: Phase = Phase.IDLE
    prompt: str = ""
    seed: int = 0
    request: Request | None = None
    model: Model | None = None
    progress: Progress = dataclasses.field(default_factory=lambda: Progress(0.0, None))
    status: tuple[Line, ...] = ()
    """What the line under the picture says, parts in order."""
    frames: NDArray[np.uint8] | None = None
    """What the picture plays: a rough preview, decoded frames, or the clip; uint8 [F, H, W, 3]."""
    fps: float = 8.0
    clip: Clip | None = None
    """The clip in the library, once it is there."""
    video: Video | None = None
    error: HummingbirdError | None = None
    needed: int = 0
    """Bytes, in LOW_MEMORY."""
    free: int = 0
    interrupted: Interrupted | None = None
    notices: tuple[str, ...] = ()
    """What the model said about the prompt, in its own words."""

    @property
    def busy(self) -> bool:
        """Whether a clip is under way."""
        return self.phase in BUSY


class ViewModel:
    """Holds a ``State`` and changes it; ``subscribe`` tells of every change.

    Args:
        worker: draws.
        library: takes finished clips.
        threads: of one graph; None is every core.
        clock: seconds; tests give their own.
    """

    def __init__(
        self,
        worker: w.Worker,
        library: Library,
        *,
        threads: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.state = State(seed=random.randrange(SEED_LIMIT))
        self._worker, self._library = worker, library
        self._threads, self._clock = threads, clock
        self._number = 0
        self._listeners: list[Callable[[State], None]] = []
        self._estimator = Estimator(1, 1)
        self._decode_s: dict[tuple[str, Request], float] = {}
        self._started_at = self._last_at = 0.0
        self._decoded: NDArray[np.uint8] | None = None
        self._left_at: tuple[float, float] | None = None
        self._fraction_at = 0.0
        self._ordered: Order | None = None

    def subscribe(self, listener: Callable[[State], None]) -> None:
        """Call ``listener`` with the state after every change."""
        self._listeners.append(listener)

    def use_model(self, model: Model) -> None:
        """Draw with another model from the next clip on."""
        request = model.choices.trained
        if self.state.model is not None and self.state.model.key == model.key:
            request = self.state.request or request
        self._change(model=model, request=request)
        if not self.state.busy:
            self._worker.warm(self._order())

    def set_prompt(self, text: str) -> None:
        """What stands in the box."""
        self._change(prompt=text[:MAX_PROMPT])

    def set_seed(self, text: str) -> bool:
        """Take a typed seed; False, and no change, for what is no number 0..2^64-1."""
        if not (text.isascii() and text.isdigit() and int(text[:21]) <= MAX_SEED):
            return False
        self._change(seed=int(text[:21]))
        return True

    def shuffle_seed(self) -> None:
        """Another seed."""
        self._change(seed=random.randrange(SEED_LIMIT))

    def choose(self, **values: Any) -> None:
        """Change parts of the request, such as ``num_frames``."""
        assert self.state.request is not None
        self._change(request=dataclasses.replace(self.state.request, **values))

    def generate(self) -> None:
        """Draw the prompt; nothing while a clip is under way or the box is empty."""
        if self.state.busy or not self.state.prompt.strip() or self.state.model is None:
            return
        self._begin(self._order())

    def go_on(self) -> None:
        """Draw the rest of the run that was interrupted."""
        found = self.state.interrupted
        if self.state.busy or found is None:
            return
        order = dataclasses.replace(found.order, number=self._number + 1, threads=self._threads)
        self._change(prompt=order.prompt, seed=order.seed, request=order.request)
        self._begin(order)

    def discard_interrupted(self) -> None:
        """Forget the run that was interrupted."""
        self._worker.forget_run()
        self._change(phase=Phase.IDLE, interrupted=None)

    def offer(self, found: Interrupted) -> None:
        """Show a run that an earlier app did not finish."""
        if self.state.phase is Phase.IDLE:
            self._change(phase=Phase.INTERRUPTED, interrupted=found)

    def cancel(self) -> None:
        """Stop the clip under way; the answer shows at once, the worker's follows."""
        if self.state.phase in (Phase.OPENING, Phase.GENERATING):
            self._worker.cancel()
            self._change(phase=Phase.CANCELLING, status=(Line("cancelling"),))

    def dismiss(self) -> None:
        """Leave a failure or a memory warning."""
        if self.state.phase in (Phase.FAILED, Phase.LOW_MEMORY):
            self._change(phase=Phase.IDLE, error=None, status=(), frames=None)

    def smaller(self) -> None:
        """One notch less memory, then try again; nothing where there is no smaller notch."""
        state = self.state
        if state.phase is not Phase.LOW_MEMORY or not state.request or not state.model:
            return
        request = state.request.smaller(state.model.choices)
        if request is not None:
            self._change(request=request, phase=Phase.IDLE)
            self.generate()

    def reuse(self, clip: Clip) -> None:
        """Put a clip's prompt and seed into the box."""
        if not self.state.busy:
            self._change(prompt=clip.prompt, seed=clip.seed)

    def memory_warning(self) -> bool:
        """The system is short of memory: close a model that is not drawing; True if it was."""
        if self.state.busy:
            return False
        self._worker.release()
        return True

    def receive(self, message: w.Message) -> None:
        """Follow one message of the worker."""
        if isinstance(message, w.ErrandDone):
            if message.name == KEEP:
                self._kept(message)
            return
        if isinstance(message, w.ErrandNews) or message.number != self._number:
            return
        now = self._clock()
        match message:
            case w.Opening():
                self._started_at = self._last_at = now
            case w.Begun(needed=needed, free=free):
                self._last_at = now
                status = [Line("step", {"i": 1, "n": self._estimator.steps})]
                if free is not None and needed > _TIGHT * free:
                    values = {"needed": needed >> 20, "free": free >> 20}
                    status.append(Line("memory_tight", values))
                self._to(Phase.GENERATING, status=tuple(status))
            case w.Short(needed=needed, free=free):
                self._change(phase=Phase.LOW_MEMORY, needed=needed, free=free or 0, status=())
            case w.StepDone():
                self._estimator.step(message.seconds)
                self._last_at = now
                last = message.i + 1 == message.n
                decoding = Line("decoding", {"done": 0, "total": self._estimator.frames})
                step = Line("step", {"i": message.i + 2, "n": message.n})
                self._show(message.preview, decoding if last else step)
            case w.FramesDone():
                self._decode(message, now)
            case w.Noted():
                self._change(notices=(*self.state.notices, message.text))
            case w.Drawn(video=video):
                self._drawn(video, now)
            case w.Ended(error=error):
                self._ended(error)

    def tick(self) -> None:
        """Count the time that is left down between two messages."""
        if self.state.phase is not Phase.GENERATING or self._left_at is None:
            return
        at, left = self._left_at
        now = max(left - (self._clock() - at), 0.0)
        gone = 1 - now / left if left > 0 else 0.0
        fraction = self._fraction_at + (1 - self._fraction_at) * gone
        shown = self.state.progress
        if fraction - shown.fraction > 0.005 or round(shown.seconds_left or 0) != round(now):
            self._change(progress=Progress(max(fraction, shown.fraction), now))

    def _order(self) -> Order:
        model, request = self.state.model, self.state.request
        assert model is not None
        assert request is not None
        return Order(
            number=self._number + 1,
            model=model.key,
            bundle=model.folder,
            prompt=self.state.prompt.strip(),
            seed=self.state.seed,
            request=request,
            threads=self._threads,
        )

    def _begin(self, order: Order) -> None:
        self._number = order.number
        request = order.request
        self._estimator = Estimator(
            request.num_inference_steps,
            request.num_frames,
            self._decode_s.get((order.model, request)),
        )
        self._decoded, self._left_at = None, None
        self._ordered = order
        self._change(
            phase=Phase.OPENING,
            status=(Line("opening"),),
            progress=Progress(0.0, None),
            frames=None,
            clip=None,
            video=None,
            error=None,
            interrupted=None,
            notices=(),
        )
        self._worker.draw(order)

    def _show(self, frames: NDArray[np.uint8], *status: Line) -> None:
        progress = self._estimator.progress()
        if progress.seconds_left is not None:
            self._left_at = (self._clock(), progress.seconds_left)
            self._fraction_at = progress.fraction
            fraction = max(progress.fraction, self.state.progress.fraction)
            progress = Progress(fraction, progress.seconds_left)
        self._to(Phase.GENERATING, frames=frames, progress=progress, status=status)

    def _decode(self, message: w.FramesDone, now: float) -> None:
        count = self._estimator.frames
        if self._decoded is None:
            self._decoded = np.zeros((count, *message.frames.shape[1:]), np.uint8)
        end = message.start + len(message.frames)
        self._decoded[message.start : end] = message.frames
        self._estimator.decoded(len(message.frames), now - self._last_at)
        self._last_at = now
        line = Line("decoding", {"done": end, "total": count})
        self._show(self._decoded[:end], line)

    def _drawn(self, video: Video, now: float) -> None:
        order, seconds = self._ordered, now - self._started_at
        assert order is not None
        timings = video.timings
        self._decode_s[(order.model, order.request)] = timings.get("decode", 0.0) + timings.get(
            "upscale", 0.0
        )
        values = {"s": seconds, "seed": video.seed}
        self._change(
            phase=Phase.PLAYING,
            frames=video.frames,
            fps=video.fps,
            video=video,
            progress=Progress(1.0, 0.0),
            status=(Line("finished", values),),
        )
        name = self.state.model.name if self.state.model is not None else order.model
        self._worker.do(
            KEEP, lambda news, token: self._library.add(video, model=name, seconds=seconds)
        )

    def _kept(self, message: w.ErrandDone) -> None:
        if message.error is not None:
            self._change(error=message.error)
        elif self.state.phase is Phase.PLAYING:
            self._change(clip=cast("Clip", message.value))

    def _ended(self, error: HummingbirdError | None) -> None:
        if error is None:
            self._change(phase=Phase.IDLE, status=(Line("cancelled"),), frames=None)
        elif error.code == "memory.not_enough":
            self._change(phase=Phase.LOW_MEMORY, error=error, status=())
        else:
            self._change(phase=Phase.FAILED, error=error, status=(), frames=None)

    def _to(self, phase: Phase, **changes: Any) -> None:
        """Change, but stay in CANCELLING: work that was done before the worker heard of it."""
        if self.state.phase is not Phase.CANCELLING:
            self._change(phase=phase, **changes)

    def _change(self, **changes: Any) -> None:
        self.state = dataclasses.replace(self.state, **changes)
        for listener in self._listeners:
            listener(self.state)
