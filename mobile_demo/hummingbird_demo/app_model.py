"""The app without a screen: its storage, its worker, the drawing screen's model, and the rest.

The rest is gallery, models, settings and measurement: lists that errands of the worker fill, so
that no touch waits for a disk. ``poll`` is called once per frame.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hummingbird_demo.catalogue import catalogue, resolve
from hummingbird_demo.clips import Clip, Library, Shelf
from hummingbird_demo.device import Device
from hummingbird_demo.measure import Measurement, measure, write_measurement
from hummingbird_demo.models import Damaged, Model, ModelStore
from hummingbird_demo.orders import RunFile
from hummingbird_demo.settings import BUILT_IN, Settings, SettingsFile
from hummingbird_demo.sharing import save_copy
from hummingbird_demo.view_model import KEEP, Line, ViewModel
from hummingbird_demo.worker import ErrandDone, ErrandNews, Worker, open_pipeline
from hummingbird_runtime import Cancelled, CancelToken, HummingbirdError, Video

IMPORT, MEASURE = "import", "measure"
_MB = 1 << 20


@dataclass(frozen=True)
class Rest:
    """What every screen but the drawing one shows."""

    shelf: Shelf = dataclasses.field(default_factory=lambda: Shelf((), 0))
    models: tuple[Model, ...] = ()
    damaged: tuple[Damaged, ...] = ()
    opened: tuple[Clip, Video] | None = None
    """The clip of the gallery that plays large."""
    importing: tuple[int, int] | None = None
    """Bytes done and in all."""
    measuring: tuple[int, int] | None = None
    """Run and runs."""
    measurement: Measurement | None = None
    toast: Line | None = None
    """A short word at the foot of the screen, said once."""
    toasts: int = 0
    """Counts toasts, so that the same word can be said twice."""
    error: HummingbirdError | None = None


class AppModel:
    """Everything of one running app. ``close`` ends it.

    Args:
        device: folders and what the system can do.
        data: the app's own storage; None is the device's.
        bundle: a bundle folder that takes the place of the built-in one.
        worker: tests give their own.
    """

    def __init__(
        self,
        device: Device,
        *,
        data: Path | None = None,
        bundle: Path | None = None,
        worker: Worker | None = None,
    ) -> None:
        self.device = device
        self.data = device.data_folder() if data is None else data
        self.data.mkdir(parents=True, exist_ok=True)
        self.library = Library(self.data / "clips")
        self.store = ModelStore(self.data / "models", bundle)
        self.run_file = RunFile(self.data, self.store.folder)
        backend = device.backend()
        self.worker = worker or Worker(self.run_file, lambda order: open_pipeline(order, backend))
        self.drawing = ViewModel(self.worker, self.library, threads=device.threads())
        self._settings_file = SettingsFile(self.data / "settings.json")
        self.settings = self._settings_file.read()
        self.rest = Rest()
        self._listeners: list[Callable[[], None]] = []

    def start(self) -> None:
        """Fill the lists, open the model ahead, look for a run that was interrupted."""
        self.drawing.set_prompt(self.settings.prompt)
        if self._settings_file.damaged:
            self.say("settings_damaged")
        self.worker.do("sweep", lambda news, token: self.library.sweep())
        self.worker.do("sweep", lambda news, token: self.store.sweep())
        self.worker.do("interrupted", lambda news, token: self.run_file.find())
        self.refresh_models()
        self.refresh_gallery()

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` after every change of ``rest`` or ``settings``."""
        self._listeners.append(listener)

    def text(self, line: Line | str) -> str:
        """A text in the language of the settings; fractions get one digit and its decimal mark."""
        words = self.catalogue()
        key, values = (line, {}) if isinstance(line, str) else (line.key, line.values)
        shown = {
            name: f"{value:.1f}".replace(".", words["decimal_mark"])
            if isinstance(value, float)
            else value
            for name, value in values.items()
        }
        return words[key].format(**shown)

    def catalogue(self) -> dict[str, str]:
        """Every text in the language of the settings."""
        return catalogue(resolve(self.settings.language, self.device.language()))

    def poll(self) -> None:
        """Take in what the worker did since the last frame."""
        for message in self.worker.messages():
            self.drawing.receive(message)
            if isinstance(message, ErrandDone):
                self._errand(message)
            elif isinstance(message, ErrandNews):
                key = "importing" if message.name == IMPORT else "measuring"
                self._change(**{key: (message.done, message.total)})
        self.drawing.tick()

    def change_settings(self, **values: Any) -> None:
        """Take and keep a setting."""
        self.settings = dataclasses.replace(self.settings, **values)
        self._write_settings(self.settings)
        self._change()

    def say(self, key: str, **values: object) -> None:
        """Show a short word."""
        self._change(toast=Line(key, values), toasts=self.rest.toasts + 1)

    def leave(self) -> None:
        """The app goes into the background, or ends: keep what was typed."""
        if self.settings.prompt != self.drawing.state.prompt:
            self.change_settings(prompt=self.drawing.state.prompt)

    def memory_warning(self) -> None:
        """The system is short of memory."""
        if self.drawing.memory_warning():
            self.say("memory_released")

    def close(self) -> bool:
        """Stop the worker, keep what was typed; False when the worker did not stop in time."""
        self.settings = dataclasses.replace(self.settings, prompt=self.drawing.state.prompt)
        ended = self.worker.close()
        with contextlib.suppress(HummingbirdError):  # a full disk must not keep the app open
            self._settings_file.write(self.settings)
        return ended

    # --- gallery

    def refresh_gallery(self) -> None:
        """Read the library again."""
        self.worker.do("shelf", lambda news, token: self.library.shelf())

    def open_clip(self, clip: Clip) -> None:
        """Play a clip large, once it is read."""
        self.worker.do("open", lambda news, token: (clip, self.library.open(clip)))

    def close_clip(self) -> None:
        """Back to the grid."""
        self._change(opened=None)

    def delete_clip(self, clip: Clip) -> None:
        """Remove a clip for good."""
        self.close_clip()

        def work(news: Any, token: CancelToken) -> Shelf:
            self.library.delete(clip)
            return self.library.shelf()

        self.worker.do("delete", work)

    def save_clip(self, video: Video) -> None:
        """Write a clip where the user keeps videos."""
        enlarge = self.settings.enlarge
        self.worker.do("save", lambda news, token: save_copy(video, self.device, enlarge=enlarge))

    def share_clip(self, video: Video) -> None:
        """Write a clip and hand it to the system's share sheet."""
        enlarge = self.settings.enlarge

        def work(news: Any, token: CancelToken) -> tuple[Path, bool]:
            path = save_copy(video, self.device, enlarge=enlarge)
            return path, self.device.share(path)

        self.worker.do("share", work)

    # --- models

    def refresh_models(self) -> None:
        """Read the list of models again."""
        self.worker.do("models", lambda news, token: self.store.models())

    def use_model(self, model: Model) -> None:
        """Draw with a model from now on."""
        self.drawing.use_model(model)
        self.change_settings(model=model.key)

    def import_model(self, source: Path | Callable[[], Path]) -> None:
        """Import a bundle folder or zip; progress and result show in ``rest``.

        Args:
            source: its path, or a function that makes a copy, which is removed afterwards.
        """
        self._change(importing=(0, 0))

        def work(news: Any, token: CancelToken) -> Model:
            if isinstance(source, Path):
                return self.store.add(source, news, token)
            copy = source()
            try:
                return self.store.add(copy, news, token)
            finally:
                copy.unlink()

        self.worker.do(IMPORT, work)

    def delete_model(self, model: Model) -> None:
        """Remove an imported model; the built-in one takes over where it was in use."""
        if model.key == self.settings.model:
            self.use_model(self.rest.models[0])

        def work(news: Any, token: CancelToken) -> Any:
            self.store.delete(model.key)
            return self.store.models()

        self.worker.do("models", work)

    def variants(self, model: Model) -> tuple[Model, ...]:
        """Models of the same name in other precisions, this one among them."""
        return tuple(other for other in self.rest.models if other.name == model.name)

    # --- measurement

    def measure(self) -> None:
        """Measure this device with the model in use."""
        model = self.drawing.state.model
        if model is None or self.drawing.state.busy:
            return
        self.worker.release()
        self._change(measuring=(0, 0), measurement=None)
        device, folder = self.device, model.folder

        def work(news: Any, token: CancelToken) -> Measurement:
            return measure(
                folder,
                threads=device.threads(),
                report=news,
                cancel=token,
                kind=device.kind,
                backend=device.backend(),
            )

        self.worker.do(MEASURE, work)

    def save_measurement(self) -> None:
        """Write the measurement as JSON beside saved clips."""
        found = self.rest.measurement
        if found is not None:
            self.worker.do(
                "save", lambda news, token: write_measurement(found, self.device.export_folder())
            )

    def _errand(self, message: ErrandDone) -> None:
        if message.name == IMPORT:
            self._change(importing=None)
        if message.name == MEASURE:
            self._change(measuring=None)
        if message.error is not None:
            if message.name != "settings" and not isinstance(message.error, Cancelled):
                self._change(error=message.error)
            return
        value = message.value
        match message.name:
            case "shelf":
                self._change(shelf=value)
            case "open":
                self._change(opened=value)
            case "delete":
                self._change(shelf=value)
                self.say("deleted")
            case "save":
                self.say("saved_to", path=value)
            case "share":
                if not value[1]:
                    self.say("copied", path=value[0])
            case "models":
                self._models(*value)
            case "import":
                self.refresh_models()
                self.say("imported", name=value.name)
            case "measure":
                self._change(measurement=value)
            case "interrupted" if value is not None:
                self.drawing.offer(value)
            case name if name == KEEP:
                self.refresh_gallery()

    def _models(self, models: tuple[Model, ...], damaged: tuple[Damaged, ...]) -> None:
        self._change(models=models, damaged=damaged)
        keys = [model.key for model in models]
        wanted = self.settings.model if self.settings.model in keys else BUILT_IN
        chosen = self.drawing.state.model
        if chosen is None or chosen.key not in keys:
            self.drawing.use_model(models[keys.index(wanted)])

    def dismiss_error(self) -> None:
        """Leave an error of the rest."""
        self._change(error=None)

    def _write_settings(self, settings: Settings) -> None:
        self.worker.do("settings", lambda news, token: self._settings_file.write(settings))

    def _change(self, **changes: Any) -> None:
        self.rest = dataclasses.replace(self.rest, **changes)
        for listener in self._listeners:
            listener()
