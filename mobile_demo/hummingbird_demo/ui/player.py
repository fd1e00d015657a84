"""Plays frames in a loop: a texture filled frame by frame.

Small clips keep hard pixel edges at any size: every pixel is repeated by the next whole number, and
only what is over is taken off smoothly. Rough previews are drawn soft, so that nobody takes their
few pixels for the clip's.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from kivy.clock import Clock
from kivy.graphics.texture import Texture
from kivy.properties import BooleanProperty, ListProperty, NumericProperty, ObjectProperty
from kivy.uix.widget import Widget

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SMALL = 256
"""Clips of at most this many pixels a side keep hard pixel edges."""
_LARGEST = 1024
"""Side of a texture that pixels are repeated to, at most."""


class Player(Widget):
    """Shows ``frames``, uint8 [F, H, W, 3], at ``fps`` while ``playing``."""

    frames = ObjectProperty(None, allownone=True, comparator=lambda a, b: a is b)
    fps = NumericProperty(8.0)
    playing = BooleanProperty(True)
    shape = ListProperty([64, 64])
    """Height and width that the picture stands for; a rough preview has fewer pixels."""
    texture = ObjectProperty(None, allownone=True)
    picture = ListProperty([0, 0, 0, 0])
    """Where the picture lies: x, y, width, height."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        self._place, self._factor = 0, 1
        self._timer = None
        self.bind(frames=self._load, fps=self._retime, playing=self._retime)
        self.bind(pos=self._fit, size=self._fit, shape=self._fit)

    def _load(self, *_: object) -> None:
        frames: NDArray[np.uint8] | None = self.frames
        if frames is None:
            self.texture = None
            self._retime()
            return
        high, wide = frames.shape[1:3]
        self._factor = self._repeats(high, wide)
        size = (wide * self._factor, high * self._factor)
        if self.texture is None or self.texture.size != size:
            texture = Texture.create(size=size, colorfmt="rgb")
            texture.flip_vertical()
            self.texture = texture
        self._place %= len(frames)
        self._draw()
        self._retime()

    def _retime(self, *_: object) -> None:
        running = self.frames is not None and self.playing and len(self.frames) > 1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if running:
            self._timer = Clock.schedule_interval(self._next, 1 / self.fps)

    def _next(self, _: float) -> None:
        self._place = (self._place + 1) % len(self.frames)
        self._draw()

    def _draw(self) -> None:
        frame = self.frames[self._place]
        if self._factor > 1:
            frame = frame.repeat(self._factor, axis=0).repeat(self._factor, axis=1)
        self.texture.blit_buffer(frame.tobytes(), colorfmt="rgb", bufferfmt="ubyte")
        self.canvas.ask_update()

    def _fit(self, *_: object) -> None:
        height, width = self.shape
        scale = min(self.width / width, self.height / height)
        wide, high = round(width * scale), round(height * scale)
        # from pos and size: Kivy's cached centre may still be the old one here
        left = self.x + (self.width - wide) / 2
        foot = self.y + (self.height - high) / 2
        self.picture = [round(left), round(foot), wide, high]
        if self.frames is not None and self._repeats(*self.frames.shape[1:3]) != self._factor:
            self._load()

    def _repeats(self, high: int, wide: int) -> int:
        """How often a pixel of the frames is repeated each way."""
        if (high, wide) != tuple(self.shape) or max(high, wide) > SMALL:
            return 1
        scale: float = min(self.width / wide, self.height / high)
        return max(1, min(math.ceil(scale), _LARGEST // max(high, wide)))
