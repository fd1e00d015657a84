"""The demo app in a window without a display, with eyes and fingers; scenes are in app_driver."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

os.environ.update(
    SDL_VIDEODRIVER="offscreen",
    LIBGL_ALWAYS_SOFTWARE="1",
    KIVY_NO_ARGS="1",
    KIVY_NO_CONSOLELOG="1",
    KIVY_NO_FILELOG="1",
)
os.environ.setdefault("LP_NUM_THREADS", "1")

from hummingbird_demo.app_model import AppModel
from hummingbird_demo.device import Device
from hummingbird_demo.ui.window import configure

Scene = Generator[float | Callable[[], object], None, None]
PATIENCE_S = 60.0
SETTLE = 6
"""Frames that a wait in seconds lasts at least: layouts need a few to come to rest."""


class QuietDesktop(Device):
    """A desktop whose files go to the test's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def data_folder(self) -> Path:
        return self.folder / "data"

    def export_folder(self) -> Path:
        out = self.folder / "saved"
        out.mkdir(parents=True, exist_ok=True)
        return out


class Stage:
    """The running app, with eyes and fingers."""

    def __init__(self, folder: Path, size: tuple[int, int], options: dict[str, str]) -> None:
        configure(size)
        if options.get("smooth") != "yes":  # multisampling in software costs most of a frame
            from kivy.config import Config

            Config.set("graphics", "multisamples", "0")
        from hummingbird_demo.ui.app import HummingbirdApp

        self.folder, self.options = folder, options
        bundle = options.get("bundle")
        self.model = AppModel(
            QuietDesktop(folder), data=folder / "data", bundle=Path(bundle) if bundle else None
        )
        for name in ("theme", "language"):
            if name in options:
                self.model.change_settings(**{name: options[name]})
        self.app = HummingbirdApp(self.model)
        self.result: dict[str, Any] = {}
        self.frame_times: list[float] = []

    @property
    def page(self) -> Any:
        """The drawing page."""
        return self.app.pages["create"]

    @property
    def phase(self) -> str:
        return str(self.model.drawing.state.phase)

    def touch(self, widget: Any) -> None:
        """A finger on the middle of a widget."""
        x, y = widget.to_window(*widget.center)
        self.touch_at(x, y)

    def touch_at(self, x: float, y: float) -> None:
        from kivy.tests.common import UnitTestTouch

        touch = UnitTestTouch(x, y)
        touch.touch_down()
        touch.touch_up()

    def find(self, kind: str, **wanted: object) -> Any:
        """The first widget on screen of a class with such attributes."""
        from kivy.core.window import Window

        for child in Window.children:
            for widget in child.walk():
                if type(widget).__name__ == kind and all(
                    getattr(widget, name, None) == value for name, value in wanted.items()
                ):
                    return widget
        raise LookupError(f"{kind} {wanted}")

    def shot(self, name: str) -> Path:
        """Keep what the window shows."""
        from kivy.core.window import Window
        from kivy.graphics.opengl import GL_RGBA, GL_UNSIGNED_BYTE, glReadPixels
        from kivy.lang import Builder
        from PIL import Image

        Builder.sync()
        Window.dispatch("on_draw")
        width, height = Window.system_size
        pixels = glReadPixels(0, 0, width, height, GL_RGBA, GL_UNSIGNED_BYTE)
        image = Image.frombytes("RGBA", (width, height), pixels).transpose(Image.FLIP_TOP_BOTTOM)
        path = self.folder / f"{name}.png"
        image.convert("RGB").save(path, optimize=True)
        return path

    def play(self, scene: Callable[[Stage], Scene]) -> dict[str, Any]:
        """Run the app; the scene waits by yielding seconds, or something that must come true."""
        from kivy.clock import Clock
        from kivy.core.window import Window

        running = scene(self)
        waits: dict[str, Any] = {"until": None, "give_up": 0.0, "frames": 0}
        Window.bind(on_request_close=lambda *_: True)  # only the scene ends the app

        def step(_: float) -> None:
            now = time.perf_counter()
            self.frame_times.append(now)
            wait = waits["until"]
            if callable(wait):
                if not wait():
                    if now > waits["give_up"]:
                        self.result["error"] = f"nothing came in {PATIENCE_S} s, phase {self.phase}"
                        self.app.stop()
                    return
            elif wait is not None and (now < wait or waits["frames"] > 0):
                waits["frames"] -= 1
                return
            try:
                found = next(running)
            except StopIteration:
                self.app.stop()
                return
            except Exception as error:
                self.result["error"] = f"{type(error).__name__}: {error}"
                self.app.stop()
                return
            waits["give_up"] = now + PATIENCE_S
            waits["until"] = found if callable(found) else now + found
            waits["frames"] = SETTLE

        Clock.schedule_interval(step, 0)
        self.app.run()
        return self.result
