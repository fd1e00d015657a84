"""How Kivy's window is set up; must run before anything imports ``kivy.core.window``."""

from __future__ import annotations

import os


def configure(size: tuple[int, int] | None) -> None:
    """Set the window's size, smooth edges, and leave our arguments and log alone.

    Args:
        size: width and height on a desktop, pixels; None on a phone, where the system decides.
    """
    os.environ.setdefault("KIVY_NO_ARGS", "1")
    os.environ.setdefault("KIVY_NO_CONSOLELOG", "1")
    from kivy.config import Config

    Config.set("kivy", "exit_on_escape", "0")
    Config.set("input", "mouse", "mouse,disable_multitouch")
    Config.set("graphics", "multisamples", "4")
    if size is not None:
        Config.set("graphics", "width", str(size[0]))
        Config.set("graphics", "height", str(size[1]))
