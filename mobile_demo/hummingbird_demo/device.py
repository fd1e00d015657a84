"""What differs between a desktop and a phone: folders, dark mode, encoding and sharing.

``Device`` is the desktop. ``android.AndroidDevice`` answers the same questions through the
system's own classes; ``this_device`` picks.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from hummingbird_demo.catalogue import system_language

if TYPE_CHECKING:
    from hummingbird_runtime import SessionBackend, Video


class Device:
    """A desktop."""

    kind = "desktop"

    def data_folder(self) -> Path:
        """The app's own storage, made if it is missing."""
        if sys.platform == "win32":
            base = Path(os.environ.get("APPDATA", Path.home()))
        elif sys.platform == "darwin":
            base = Path.home() / "Library" / "Application Support"
        else:
            base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
        folder = base / "hummingbird-demo"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def export_folder(self) -> Path:
        """Where saved clips go: the user's videos, else downloads, else their home folder."""
        named = (Path.home() / "Videos", Path.home() / "Movies", Path.home() / "Downloads")
        return next((folder for folder in named if folder.is_dir()), Path.home())

    def language(self) -> str:
        """Such as ``de_DE``."""
        return system_language()

    def dark(self) -> bool:
        """Whether the system asks for dark colours; a desktop does not say so in one way."""
        return False

    def threads(self) -> int | None:
        """Threads for one graph: one core is left to the screen."""
        return max(1, (os.cpu_count() or 2) - 1)

    def backend(self) -> SessionBackend | None:
        """What opens graphs; None is the onnxruntime package."""
        return None

    def suffix(self) -> str:
        """The file format that this device writes best."""
        if importlib.util.find_spec("av") is not None:
            return ".mp4"
        return ".webp" if importlib.util.find_spec("PIL") is not None else ".png"

    def write_clip(self, folder: Path, name: str, video: Video) -> Path:
        """Write a clip in the best format; returns the file, named ``name`` and its suffix.

        Raises:
            ResourceError: ``output.*``.
        """
        path = folder / (name + self.suffix())
        video.save(path)
        return path

    def publish(self, path: Path) -> Path:
        """Tell the system about a saved file; returns where it is now."""
        return path

    def share(self, path: Path) -> bool:
        """Open the system's share sheet; False where there is none and the path is copied."""
        return False

    def pick_file(self, copy_to: Path, chosen: Callable[[Callable[[], Path]], None]) -> bool:
        """Open the system's file picker; False where there is none and the app shows its own.

        Args:
            copy_to: where a picked file is copied, for systems that hand out no paths.
            chosen: called on any thread with a function that makes this copy, which may take long.
        """
        return False

    def keep_awake(self, awake: bool) -> None:
        """Ask the system not to stop the app while a clip is drawn."""


def this_device() -> Device:
    """The device that runs now."""
    if "ANDROID_ARGUMENT" in os.environ:
        module = importlib.import_module("hummingbird_demo.android")
        device: Device = module.AndroidDevice()
        return device
    return Device()
