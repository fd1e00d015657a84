"""A pipeline that obeys a script: for tests of the worker and of what is built on it."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from hummingbird_demo.choices import Request
from hummingbird_demo.orders import Order
from hummingbird_runtime import Video
from hummingbird_runtime.events import Done, Frames, Started, Step, Warning

REQUEST = Request(height=16, width=16, num_frames=4, num_inference_steps=3, decoder="full")


def order(number: int = 1, **changes: Any) -> Order:
    values = {
        "number": number,
        "model": "built-in",
        "bundle": Path("bundle"),
        "prompt": "a red ball",
        "seed": 7,
        "request": REQUEST,
    }
    return Order(**{**values, **changes})


@dataclass
class Plan:
    peak_bytes: int = 100 << 20
    available_bytes: int | None = 1 << 30
    fits: bool = True


class FakePipeline:
    """Draws grey frames; ``hold`` makes it wait before each step, ``fail`` makes one raise."""

    def __init__(
        self, *, hold: bool = False, fail: Exception | None = None, plan: Plan | None = None
    ) -> None:
        self.hold, self.fail, self._plan = hold, fail, plan or Plan()
        self.gate = threading.Event()
        self.closed = self.loads = 0
        self.calls: list[dict[str, Any]] = []

    def plan(self, prompt: str, **options: Any) -> Plan:
        return self._plan

    def load(self) -> None:
        self.loads += 1

    def close(self) -> None:
        self.closed += 1

    def stream(self, prompt: str, **options: Any):
        self.calls.append({"prompt": prompt, **options})
        yield Started(SimpleNamespace(prompt=prompt), "id")
        yield Warning("prompt.unknown_words", "words the model ignores: zebra")
        steps, count = options["num_inference_steps"], options["num_frames"]
        for i in range(steps):
            while self.hold and not self.gate.wait(0.005):
                options["cancel"].raise_if_cancelled()
            options["cancel"].raise_if_cancelled()
            if self.fail is not None:
                raise self.fail
            latent = np.zeros((1, 4, count, 2, 2), np.float32)
            yield Step(i, steps, 999, 0.25, latent, ((0.1, 0, 0, 0, 0),) * 3)
        frames = np.full((count, options["height"], options["width"], 3), 128, np.uint8)
        for start in range(0, count, 2):
            yield Frames(start, frames[start : start + 2])
        timings = {"text": 0.1, "denoise": 0.75, "decode": 0.5, "total": 1.35}
        yield Done(
            Video(frames, fps=8, seed=options["seed"], prompt=prompt, bundle_id="id",
                  timings=timings)
        )  # fmt: skip
