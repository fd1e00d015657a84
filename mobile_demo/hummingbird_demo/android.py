"""Android's answers to ``Device``: its folders, language, encoder, media store and share sheet.

Everything goes through pyjnius and python-for-android's ``android`` package, which exist on the
phone alone; tests put stand-ins in their place. Not run on a device yet.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hummingbird_demo.device import Device
from hummingbird_runtime import HummingbirdError, SessionBackend, Video

_NIGHT_MASK, _NIGHT = 0x30, 0x20
_KEEP_SCREEN_ON = 128
_PICK = 4711
"""Number that tells our file picker's answer from others'."""
_COPY = 1 << 20
_MEDIA_STORE = 29
"""First API level on which an app may add to the media store without a permission."""
_TYPES = {".mp4": "video/mp4", ".webp": "image/webp", ".png": "image/png",
          ".json": "application/json"}  # fmt: skip


class AndroidDevice(Device):
    """A phone or tablet."""

    kind = "phone"

    def __init__(self) -> None:
        self._java: Callable[[str], Any] = importlib.import_module("jnius").autoclass
        self._activity = self._java("org.kivy.android.PythonActivity").mActivity
        build = self._java("android.os.Build")
        os.environ.setdefault("HUMMINGBIRD_DEVICE_NAME", f"{build.MANUFACTURER} {build.MODEL}")
        self._api = int(self._java("android.os.Build$VERSION").SDK_INT)
        self._uris: dict[Path, Any] = {}

    def data_folder(self) -> Path:
        """The app's private storage."""
        folder = Path(os.environ["ANDROID_PRIVATE"]) / "hummingbird"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def export_folder(self) -> Path:
        """The app's own folder on shared storage; needs no permission."""
        return Path(self._activity.getExternalFilesDir(None).getAbsolutePath())

    def language(self) -> str:
        """Such as ``de-DE``."""
        return str(self._java("java.util.Locale").getDefault().toLanguageTag())

    def dark(self) -> bool:
        """Whether the system asks for dark colours."""
        mode = self._activity.getResources().getConfiguration().uiMode
        return bool(mode & _NIGHT_MASK == _NIGHT)

    def threads(self) -> int | None:
        """Half of the cores: phones pair fast cores with slow ones that only hold them up."""
        return max(1, (os.cpu_count() or 2) // 2)

    def backend(self) -> SessionBackend:
        """ONNX Runtime's C library from the package."""
        from hummingbird_runtime.capi import CapiBackend

        return CapiBackend()

    def write_clip(self, folder: Path, name: str, video: Video) -> Path:
        """An MP4 by the device's encoder; a WebP where it refuses this size or fails.

        Raises:
            HummingbirdError: ``output.*``, ``extra.missing``.
        """
        path = folder / f"{name}.mp4"
        try:
            video.save(path)
        except HummingbirdError as error:
            if not error.code.startswith("video."):
                raise
            path = folder / f"{name}.webp"
            video.save(path)
        return path

    def publish(self, path: Path) -> Path:
        """Put a file into the system's media store, from where galleries show it."""
        if self._api < _MEDIA_STORE or path.suffix == ".json":
            return path
        media = "Video" if path.suffix == ".mp4" else "Images"
        folder = "Movies" if path.suffix == ".mp4" else "Pictures"
        values = self._java("android.content.ContentValues")()
        values.put("_display_name", path.name)
        values.put("mime_type", _TYPES[path.suffix])
        values.put("relative_path", f"{folder}/Hummingbird")
        resolver = self._activity.getContentResolver()
        table = self._java(f"android.provider.MediaStore${media}$Media").EXTERNAL_CONTENT_URI
        uri = resolver.insert(table, values)
        stream = resolver.openOutputStream(uri)
        try:
            stream.write(path.read_bytes())
        finally:
            stream.close()
        shown = Path(folder, "Hummingbird", path.name)
        self._uris[shown] = uri
        path.unlink()
        return shown

    def share(self, path: Path) -> bool:
        """Open the share sheet for a published file."""
        uri = self._uris.get(path)
        if uri is None:
            return False
        intents = self._java("android.content.Intent")
        intent = intents(intents.ACTION_SEND)
        intent.setType(_TYPES[path.suffix])
        intent.putExtra(intents.EXTRA_STREAM, uri)
        intent.addFlags(intents.FLAG_GRANT_READ_URI_PERMISSION)
        self._activity.startActivity(intents.createChooser(intent, None))
        return True

    def pick_file(self, copy_to: Path, chosen: Callable[[Callable[[], Path]], None]) -> bool:
        """Open the system's file picker for a zip."""
        intents = self._java("android.content.Intent")
        intent = intents(intents.ACTION_OPEN_DOCUMENT)
        intent.addCategory(intents.CATEGORY_OPENABLE)
        intent.setType("application/zip")
        activity = importlib.import_module("android.activity")

        def answer(request: int, result: int, data: Any) -> None:
            if request != _PICK:
                return
            activity.unbind(on_activity_result=answer)
            if result == -1 and data is not None:  # RESULT_OK
                uri = data.getData()
                chosen(lambda: self._copy(uri, copy_to / "picked.zip"))

        activity.bind(on_activity_result=answer)
        self._activity.startActivityForResult(intent, _PICK)
        return True

    def keep_awake(self, awake: bool) -> None:
        """Keep the screen on while a clip is drawn."""
        window = self._activity.getWindow()
        call = window.addFlags if awake else window.clearFlags
        importlib.import_module("android.runnable").run_on_ui_thread(call)(_KEEP_SCREEN_ON)

    def _copy(self, uri: Any, target: Path) -> Path:
        stream = self._activity.getContentResolver().openInputStream(uri)
        try:
            with target.open("wb") as file:
                buffer = bytearray(_COPY)
                while (count := stream.read(buffer)) > 0:
                    file.write(buffer[:count])
        finally:
            stream.close()
        return target
