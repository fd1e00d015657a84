"""Appearance, language, saving, licences, and the way to the measurement of this device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kivy.app import App
from kivy.metrics import dp
from kivy.uix.boxlayout import BoxLayout
from kivy.uix.floatlayout import FloatLayout

from hummingbird_demo.catalogue import LANGUAGES, catalogue
from hummingbird_demo.licences import LICENCES, Licence
from hummingbird_demo.settings import THEMES
from hummingbird_demo.ui.measure_page import MeasurePage
from hummingbird_demo.ui.models_page import TextPage
from hummingbird_demo.ui.overlay import FullPage
from hummingbird_demo.ui.widgets import (
    Box,
    CardBox,
    Chip,
    Chips,
    Padded,
    Row,
    Scroll,
    Text,
    Toggle,
)
from hummingbird_runtime import __version__

if TYPE_CHECKING:
    from hummingbird_demo.app_model import AppModel


class SettingsPage(FloatLayout):
    """The fourth page."""

    def __init__(self, model: AppModel, **options: object) -> None:
        super().__init__(**options)
        self.model = model
        self.scroll = Scroll(size_hint=(None, None))
        self.list = Padded()
        self.scroll.add_widget(self.list)
        self.add_widget(self.scroll)
        self.measuring: MeasurePage | None = None
        self._shown: object = None
        self.bind(size=self.arrange, pos=self.arrange)
        model.subscribe(self.show)

    def translate(self) -> None:
        """Every text again, after the language changed."""
        self._shown = None
        self.show()

    def show(self) -> None:
        """Make the page look like the model."""
        settings, words = self.model.settings, self.model.catalogue()
        if self.measuring is not None:
            self.measuring.show()
        state = (settings.theme, settings.language, settings.enlarge, words["language"])
        if state == self._shown:
            return
        self._shown = state
        self.list.clear_widgets()
        self.list.add_widget(Text(text=words["tab_settings"], scale="title", bold=True))
        themes = [(words[theme], theme) for theme in THEMES]
        self._choice("theme", themes, settings.theme)
        named = [(catalogue(code)["language"], code) for code in LANGUAGES]
        languages = [(words["system"], "system"), *named]
        self._choice("language_title", languages, settings.language, field="language")
        self.list.add_widget(self._enlarge(words["enlarge"], settings.enlarge))
        measure = Row(icon="measure", text=words["measure"], tail="forward")
        measure.bind(on_release=lambda *_: self._open_measurement())
        self.list.add_widget(measure)
        licences = Row(icon="licence", text=words["licences"], tail="forward")
        licences.bind(on_release=lambda *_: App.get_running_app().overlays.show(
            LicencesPage(words["licences"])))  # fmt: skip
        self.list.add_widget(licences)
        version = words["version"].format(version=__version__)
        self.list.add_widget(Text(text=f"Hummingbird · {version}", scale="small", role="muted",
                                  halign="center"))  # fmt: skip

    def arrange(self, *_: object) -> None:
        """Put everything in place for the present size."""
        width = min(self.width, dp(720))
        self.scroll.size = (width, self.height)
        self.scroll.pos = (self.center_x - width / 2, self.y)

    def _choice(
        self, key: str, values: Sequence[tuple[str, str]], present: str, field: str = ""
    ) -> None:
        card, chips = CardBox(), Chips()
        card.add_widget(Text(text=self.model.text(key), scale="small", role="muted"))
        for word, value in values:
            chip = Chip(text=word, value=value, chosen=value == present)
            chip.bind(on_release=lambda chip: self.model.change_settings(
                **{field or key: chip.value}))  # fmt: skip
            chips.add_widget(chip)
        card.add_widget(chips)
        self.list.add_widget(card)

    def _enlarge(self, text: str, active: bool) -> Box:
        card = CardBox(padding=(dp(16), dp(12)))
        line = BoxLayout(size_hint_y=None, height=dp(40), spacing=dp(16))
        label, switch = Text(text=text, pos_hint={"center_y": 0.5}), Toggle(active=active)
        switch.pos_hint = {"center_y": 0.5}
        switch.bind(on_release=lambda *_: self.model.change_settings(enlarge=not active))
        line.add_widget(label)
        line.add_widget(switch)
        card.add_widget(line)
        return card

    def _open_measurement(self) -> None:
        self.measuring = MeasurePage(self.model, self._measurement_closed)
        App.get_running_app().overlays.show(self.measuring)

    def _measurement_closed(self) -> None:
        self.measuring = None


class LicencesPage(FullPage):
    """What the app is made of, and on which terms."""

    def __init__(self, title: str) -> None:
        box = Padded(spacing=dp(8))
        for licence in LICENCES:
            row = Row(icon="licence", text=f"{licence.name} · {licence.terms}", tail="forward")
            row.bind(on_release=lambda _, licence=licence: self._open(licence))
            box.add_widget(row)
        super().__init__(title, box)

    def _open(self, licence: Licence) -> None:
        page = TextPage(licence.name, licence.text())
        App.get_running_app().overlays.show(page)
