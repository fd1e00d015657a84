"""An order for one clip, and its trace on disk: JSON beside the runtime's own checkpoint.

Written before the first step and removed when the clip is done, cancelled or failed, so a trace
that is there at the next start means that the system stopped the app in the middle.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hummingbird_demo.choices import Request
from hummingbird_runtime import HummingbirdError
from hummingbird_runtime.atomic import atomic_file
from hummingbird_runtime.resume import read_saved_run

_LIMIT = 1 << 16
_OWN = ("model", "prompt", "seed")


@dataclass(frozen=True)
class Order:
    """One clip to draw."""

    number: int
    """Comes back in every message, so that late ones can be told."""
    model: str
    """Key of the model."""
    bundle: Path
    prompt: str
    seed: int
    request: Request
    threads: int | None = None
    """Of one graph; None is every core."""
    goes_on: bool = False
    """Whether the checkpoint on disk is this order's and is gone on with."""


@dataclass(frozen=True)
class Interrupted:
    """What can be gone on with."""

    order: Order
    steps_done: int
    steps: int


class RunFile:
    """The one unfinished run of the app.

    Args:
        folder: the app's own storage.
        folder_of: where the model with a key lies.
    """

    def __init__(self, folder: Path, folder_of: Callable[[str], Path]) -> None:
        self.checkpoint = folder / "run.npz"
        self._order = folder / "run.json"
        self._folder_of = folder_of

    def begin(self, order: Order) -> None:
        """Note what is about to be drawn.

        Raises:
            ResourceError: ``output.*``.
        """
        document = {name: getattr(order, name) for name in _OWN}
        document["request"] = dataclasses.asdict(order.request)
        with atomic_file(self._order, overwrite=True) as partial:
            partial.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")

    def discard(self) -> None:
        """Forget the run."""
        for path in (self._order, self.checkpoint):
            with contextlib.suppress(OSError):
                path.unlink()

    def find(self) -> Interrupted | None:
        """The run that was left behind; None, and nothing is kept, where it cannot be gone on."""
        try:
            with self._order.open("rb") as file:
                value: Any = json.loads(file.read(_LIMIT + 1))
            kinds = [type(value[name]) for name in _OWN]
            if kinds != [str, str, int]:
                raise ValueError(f"{kinds}, expected text, text and a number")
            order = Order(
                number=0,
                bundle=self._folder_of(value["model"]),
                request=Request(**value["request"]),
                goes_on=True,
                **{name: value[name] for name in _OWN},
            )
            saved = read_saved_run(self.checkpoint)
        except (OSError, ValueError, TypeError, KeyError, RecursionError, HummingbirdError):
            self.discard()
            return None
        return Interrupted(order, saved.steps_done, saved.steps)
