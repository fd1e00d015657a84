"""The models on this device: choose, read about, import from a folder or zip, delete."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from kivy.app import App
from kivy.clock import Clock
from kivy.metrics import dp
from kivy.uix.boxlayout import BoxLayout
from kivy.uix.floatlayout import FloatLayout

from hummingbird_demo.ui.overlay import FullPage, Question
from hummingbird_demo.ui.widgets import (
    Action,
    Bar,
    Box,
    CardBox,
    Fact,
    Icon,
    Padded,
    Press,
    Row,
    Scroll,
    Text,
)

if TYPE_CHECKING:
    from hummingbird_demo.app_model import AppModel
    from hummingbird_demo.models import Model

_MB = 1 << 20


def facts_of(model: Model, words: dict[str, str]) -> str:
    """A model's sizes in one line."""
    trained = model.choices.trained
    return words["facts_line"].format(
        width=trained.width,
        height=trained.height,
        frames=trained.num_frames,
        mb=max(1, round(model.bytes / _MB)),
    )


def columns_of(grammar: str) -> list[tuple[str, str]]:
    """A text set out in columns for a terminal, as names and what stands beside them.

    Returns:
        Lines in order; the name is empty where a line is one sentence.
    """
    lines: list[tuple[str, str]] = []
    for line in grammar.splitlines():
        name, _, words = line.strip().partition("  ")
        if line.startswith(" " * 6) and lines:
            lines[-1] = (lines[-1][0], f"{lines[-1][1]} {line.strip()}")
        elif words:
            lines.append((name, words.strip()))
        elif line.strip():
            lines.append(("", line.strip()))
    return lines


class ModelCard(Press):
    """One model of the list."""

    def __init__(self, model: Model, words: dict[str, str], *, active: bool) -> None:
        super().__init__(size_hint_y=None, height=dp(88))
        self.card = CardBox(fill="soft" if active else "surface", size_hint_y=None)
        ink = "on_soft" if active else "muted"
        name = BoxLayout(size_hint_y=None, height=dp(24), spacing=dp(8))
        name.add_widget(Text(text=model.name, bold=True, lines=1,
                             role="on_soft" if active else "text"))  # fmt: skip
        if active:
            name.add_widget(Icon(name="check", role="on_soft"))
        tags = [model.choices.precision, *([words["models_built_in"]] if model.built_in else [])]
        for text in (facts_of(model, words), " · ".join(tags)):
            if not self.card.children:
                self.card.add_widget(name)
            self.card.add_widget(Text(text=text, scale="small", role=ink, lines=1))
        self.card.spacing = dp(4)
        self.add_widget(self.card)
        self.card.bind(height=self._arrange)
        self.bind(pos=self._arrange, size=self._arrange)

    def _arrange(self, *_: object) -> None:
        self.height = self.card.height
        self.card.width, self.card.pos = self.width, self.pos


class ModelsPage(FloatLayout):
    """The third page."""

    def __init__(self, model: AppModel, **options: object) -> None:
        super().__init__(**options)
        self.model = model
        self.heading = Text(scale="title", bold=True, lines=1)
        self.scroll = Scroll(size_hint=(None, None))
        self.list = Padded()
        self.scroll.add_widget(self.list)
        self.add_widget(self.scroll)
        self._shown: object = None
        self._bar, self._line = Bar(), Text(scale="small", role="muted", lines=1)
        self.importer = Action(icon="plus")
        self.importer.bind(on_release=lambda *_: self._import())
        self.bind(size=self.arrange, pos=self.arrange)
        model.subscribe(self.show)

    def translate(self) -> None:
        """Every text again, after the language changed."""
        self._shown = None
        self.show()

    def show(self) -> None:
        """Make the page look like the model."""
        rest, words = self.model.rest, self.model.catalogue()
        active = self.model.settings.model
        importing = rest.importing is not None
        state = (rest.models, rest.damaged, active, importing, words["language"])
        if rest.importing is not None:
            done, total = rest.importing
            self._bar.value = done / total if total else 0.0
            self._line.text = words["importing"].format(done=done // _MB, total=total // _MB)
        if state == self._shown:
            return
        self._shown = state
        self.list.clear_widgets()
        self.heading.text = words["tab_models"]
        self.list.add_widget(self.heading)
        for found in rest.models:
            card = ModelCard(found, words, active=found.key == active)
            card.bind(on_release=lambda _, found=found: self._open(found))
            self.list.add_widget(card)
        for broken in rest.damaged:
            text = words["models_damaged"].format(text=f"{broken.key}: {broken.text}")
            self.list.add_widget(Text(text=text, scale="small", role="danger"))
        self.importer.text = words["models_import"]
        self.importer.icon = "plus"
        self.importer.fill, self.importer.role = "accent", "on_accent"
        if importing:
            for part in (self._line, self._bar):
                self.list.add_widget(part)
            self.importer.text, self.importer.icon = words["cancel"], "stop"
            self.importer.fill, self.importer.role = "line", "text"
        self.list.add_widget(self.importer)
        self.list.add_widget(Text(text=words["models_hint"], scale="small", role="muted"))

    def arrange(self, *_: object) -> None:
        """Put everything in place for the present size."""
        width = min(self.width, dp(720))
        self.scroll.size = (width, self.height)
        self.scroll.pos = (self.center_x - width / 2, self.y)

    def _open(self, found: Model) -> None:
        App.get_running_app().overlays.show(ModelPage(self.model, found))

    def _import(self) -> None:
        if self.model.rest.importing is not None:
            self.model.worker.cancel_errand("import")
        elif not self.model.device.pick_file(
            self.model.data,
            lambda copy: Clock.schedule_once(lambda _: self.model.import_model(copy)),
        ):
            App.get_running_app().overlays.show(FilePage(self.model))


class ModelPage(FullPage):
    """One model: what it draws, its licence, and using or deleting it."""

    def __init__(self, app: AppModel, found: Model) -> None:
        words = app.catalogue()
        box = Padded(padding=(dp(16), dp(8), dp(16), dp(16)))
        precision = f"{words['precision']}: {found.choices.precision}"
        box.add_widget(Text(text=f"{facts_of(found, words)} · {precision}", role="muted"))
        lines = columns_of(found.choices.grammar) or [("", t) for t in found.choices.examples]
        if lines:
            box.add_widget(self._draws(words["draws"], lines))
        row = Row(icon="licence", text=f"{words['licence']} · {found.licence}", tail="forward")
        row.bind(on_release=lambda *_: App.get_running_app().overlays.show(
            TextPage(found.licence, found.licence_text)))  # fmt: skip
        box.add_widget(row)
        active = app.settings.model == found.key
        buttons = BoxLayout(size_hint_y=None, height=dp(56), spacing=dp(8))
        if not found.built_in:
            delete = Action(icon="delete", text=words["delete"], fill="line", role="danger")
            delete.bind(on_release=lambda *_: self._delete(app, found))
            buttons.add_widget(delete)
        use = Action(icon="check", text=words["models_active" if active else "models_use"])
        use.disabled = active or app.drawing.state.busy
        if use.disabled:
            use.fill, use.role = "soft", "on_soft"
        use.bind(on_release=lambda *_: self._use(app, found))
        buttons.add_widget(use)
        box.add_widget(buttons)
        super().__init__(found.name, box)

    @staticmethod
    def _draws(title: str, lines: list[tuple[str, str]]) -> Box:
        box = CardBox()
        box.add_widget(Text(text=title, bold=True))
        for name, text in lines:
            box.add_widget(Fact(name=name, text=text, share=0.26) if name else Text(text=text))
        return box

    def _use(self, app: AppModel, found: Model) -> None:
        app.use_model(found)
        self.close()

    def _delete(self, app: AppModel, found: Model) -> None:
        def remove() -> None:
            app.delete_model(found)
            self.close()

        text = app.text
        question = Question(
            text("delete_model"),
            text("cannot_undo"),
            icon="delete",
            yes=text("delete"),
            no=text("cancel"),
            act=remove,
        )
        App.get_running_app().overlays.show(question)


class TextPage(FullPage):
    """A long text, such as a licence."""

    def __init__(self, title: str, text: str) -> None:
        box = Padded(spacing=dp(8))
        for paragraph in text.replace("\r\n", "\n").split("\n\n"):
            lines = [line.strip() for line in paragraph.split("\n")]
            if any(lines):
                box.add_widget(Text(text=" ".join(filter(None, lines)), scale="small"))
        super().__init__(title, box)


class FilePage(FullPage):
    """Folders and zip files of this device, to choose a bundle from."""

    def __init__(self, app: AppModel, start: Path | None = None) -> None:
        self.app, self.folder = app, start or Path.home()
        self.box = Padded(spacing=dp(8))
        super().__init__(app.text("models_import"), self.box)
        self.open(self.folder)

    def open(self, folder: Path) -> None:
        """List a folder."""
        words = self.app.catalogue()
        self.folder = folder
        self.box.clear_widgets()
        self.body.scroll_y = 1
        self.box.add_widget(Text(text=str(folder), scale="small", role="muted"))
        if folder.parent != folder:
            self._row("back", words["up"], lambda: self.open(folder.parent))
        try:
            entries = sorted(folder.iterdir(), key=lambda path: path.name.casefold())
            folders = [p for p in entries if p.is_dir() and not p.name.startswith(".")]
            zips = [p for p in entries if p.suffix.lower() == ".zip" and p.is_file()]
        except OSError as error:
            self.box.add_widget(Text(text=error.strerror or str(error), role="danger"))
            return
        if (folder / "manifest.json").is_file():
            self._row("check", words["choose_here"], lambda: self._choose(folder), chosen=True)
        for path in folders:
            self._row("folder", path.name, partial(self.open, path), tail="forward")
        for path in zips:
            self._row("archive", path.name, partial(self._choose, path))
        if not folders and not zips:
            self.box.add_widget(Text(text=words["no_files"], role="muted"))

    def _row(
        self,
        icon: str,
        text: str,
        act: Callable[[], None],
        *,
        tail: str = "",
        chosen: bool = False,
    ) -> None:
        row = Row(icon=icon, text=text, tail=tail, chosen=chosen)
        row.bind(on_release=lambda *_: act())
        self.box.add_widget(row)

    def _choose(self, path: Path) -> None:
        self.close()
        self.app.import_model(path)
