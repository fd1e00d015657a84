"""The app: four pages with a bar of tabs, what lies above them, themes, rotation, pause.

Every frame takes in what the worker did; no touch waits for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kivy.app import App
from kivy.clock import Clock
from kivy.core.text import LabelBase
from kivy.core.window import Window
from kivy.lang import Builder
from kivy.metrics import dp
from kivy.properties import BooleanProperty, ObjectProperty, StringProperty
from kivy.uix.floatlayout import FloatLayout
from kivy.utils import get_color_from_hex

from hummingbird_demo.fonts import HAN, HAN_FILE
from hummingbird_demo.theme import Palette, palette, rgba
from hummingbird_demo.ui.create_page import CreatePage
from hummingbird_demo.ui.gallery_page import GalleryPage
from hummingbird_demo.ui.models_page import ModelsPage
from hummingbird_demo.ui.overlay import Overlays, Sheet, Toast
from hummingbird_demo.ui.settings_page import SettingsPage
from hummingbird_demo.ui.widgets import Action, Card, Ground, Mark, Padded, Press, Text

if TYPE_CHECKING:
    from hummingbird_demo.app_model import AppModel
    from hummingbird_demo.view_model import State

PAGES: dict[str, Any] = {
    "create": CreatePage,
    "gallery": GalleryPage,
    "models": ModelsPage,
    "settings": SettingsPage,
}
BAR, RAIL = 64, 96
"""Height of the bar of tabs, width of the rail that takes its place, density-independent pixels."""
_BACK = 27

LabelBase.register(name=HAN, fn_regular=str(HAN_FILE))
Builder.load_file(str(Path(__file__).parent / "style.kv"))


def colours(chosen: Palette) -> dict[str, Any]:
    """The palette as numbers by role, with the veil behind sheets."""
    found: dict[str, Any] = {name: rgba(code) for name, code in vars(chosen).items()}
    found["scrim"] = (0.0, 0.0, 0.0, 0.48)
    return found


class Tab(Press):
    """One tab: an icon on a pill when it is open, and its name."""

    name = StringProperty("")
    text = StringProperty("")
    chosen = BooleanProperty(False)


class Root(FloatLayout):
    """The pages, the tabs at the foot or at the side, overlays and the toast."""

    def __init__(self, model: AppModel, overlays: Overlays, toast: Toast) -> None:
        super().__init__()
        self.ground = Ground(fill="background")
        self.strip = Card(fill="surface", edge="line", radius=0, border=1, size_hint=(None, None))
        self.mark = Mark(size=(dp(40), dp(40)))
        self.pages: dict[str, Any] = {
            name: page(model, size_hint=(None, None)) for name, page in PAGES.items()
        }
        self.tabs: dict[str, Tab] = {}
        self.add_widget(self.ground)
        self.holder = FloatLayout()
        for part in (self.holder, self.strip, self.mark):
            self.add_widget(part)
        for name in PAGES:
            tab = Tab(size_hint=(None, None), name=name)
            tab.bind(on_release=lambda tab: self.go(tab.name))
            self.tabs[name] = tab
            self.add_widget(tab)
        self.overlays, self.toast = overlays, toast
        self.add_widget(overlays)
        self.add_widget(toast)
        self.open = ""
        self.go("create")
        self.bind(size=self.arrange)

    def translate(self, words: dict[str, str]) -> None:
        """Every text again, after the language changed."""
        for name, tab in self.tabs.items():
            tab.text = words[f"tab_{name}"]
        for page in self.pages.values():
            page.translate()

    def go(self, name: str) -> None:
        """Show a page."""
        if name == self.open:
            return
        self.open = name
        self.holder.clear_widgets()
        self.holder.add_widget(self.pages[name])
        for key, tab in self.tabs.items():
            tab.chosen = key == name
        self.arrange()

    def arrange(self, *_: object) -> None:
        """Tabs at the foot of a tall window, at the side of a wide one."""
        wide = self.width > self.height and self.width >= dp(560)
        page = self.pages[self.open]
        if wide:
            self.strip.size, self.strip.pos = (dp(RAIL), self.height + 2), (-1, -1)
            page.pos, page.size = (dp(RAIL), 0), (self.width - dp(RAIL), self.height)
            room = self.height - dp(80)
            step = min(dp(72), room / len(self.tabs))
            for i, tab in enumerate(self.tabs.values()):
                tab.size = (dp(RAIL), min(step, dp(64)))
                tab.pos = (0, self.height - dp(72) - step * (i + 1))
            self.mark.size = (dp(40), dp(40))
            self.mark.pos = (dp(RAIL - 40) / 2, self.height - dp(56))
            self.mark.opacity = 1
        else:
            self.strip.size, self.strip.pos = (self.width + 2, dp(BAR) + 1), (-1, -1)
            page.pos, page.size = (0, dp(BAR)), (self.width, self.height - dp(BAR))
            step = self.width / len(self.tabs)
            for i, tab in enumerate(self.tabs.values()):
                tab.size = (step, dp(BAR))
                tab.pos = (i * step, 0)
            self.mark.opacity = 0
        self.toast.foot = dp(16) if wide else dp(BAR + 16)


class HummingbirdApp(App):
    """Ties a view-model to the window.

    Args:
        model: the app behind it; closed when the window closes.
    """

    theme = ObjectProperty(None)

    def __init__(self, model: AppModel, **options: object) -> None:
        self.model = model
        self._settings: tuple[str, str] | None = None
        self._toasts = 0
        self._awake = False
        self.title = "Hummingbird"
        super().__init__(**options)

    def build(self) -> Root:
        """Make the widgets and start the worker's clock."""
        self._restyle()
        self.overlays, self.toast = Overlays(), Toast()
        root = Root(self.model, self.overlays, self.toast)
        self.pages = root.pages
        Window.softinput_mode = "below_target"
        Window.bind(on_keyboard=self._key)
        Window.bind(on_memorywarning=lambda *_: self.model.memory_warning())
        self.model.subscribe(self._changed)
        self.model.drawing.subscribe(self._keep_awake)
        self._translate(root)
        Clock.schedule_interval(lambda _: self.model.poll(), 0)
        self.model.start()
        return root

    def go(self, name: str) -> None:
        """Show a page."""
        self.root.go(name)

    def on_pause(self) -> bool:
        """The app leaves the screen: drawing goes on, and its checkpoint outlives a kill."""
        self.model.leave()
        return True

    def on_resume(self) -> None:
        """The app is back: the worker's messages are taken in with the next frame."""
        self.model.poll()

    def on_stop(self) -> None:
        """The window closes."""
        self.model.close()

    def _keep_awake(self, state: State) -> None:
        if state.busy != self._awake:
            self._awake = state.busy
            self.model.device.keep_awake(state.busy)

    def _changed(self) -> None:
        settings = (self.model.settings.theme, self.model.settings.language)
        if settings != self._settings:
            self._restyle()
            self._translate(self.root)
        rest = self.model.rest
        if rest.toasts != self._toasts and rest.toast is not None:
            self._toasts = rest.toasts
            self.toast.say(self.model.text(rest.toast))
            if rest.toast.key == "copied":
                from kivy.core.clipboard import Clipboard  # starts programs: only when used

                Clipboard.copy(str(rest.toast.values["path"]))
        if rest.error is not None:
            error = rest.error
            self.model.dismiss_error()
            self._tell(str(error))

    def _tell(self, text: str) -> None:
        box = Padded(padding=(dp(24), dp(24), dp(24), 0))
        box.add_widget(Text(text=self.model.text("failed_title"), scale="title", bold=True))
        box.add_widget(Text(text=text))
        close = Action(icon="check", text=self.model.text("close"))
        sheet = Sheet(box, close)
        close.bind(on_release=lambda *_: sheet.close())
        self.overlays.show(sheet)

    def _restyle(self) -> None:
        chosen = palette(self.model.settings.theme, system_dark=self.model.device.dark())
        self.theme = colours(chosen)
        Window.clearcolor = get_color_from_hex(chosen.background)

    def _translate(self, root: Root | None) -> None:
        self._settings = (self.model.settings.theme, self.model.settings.language)
        if root is not None:
            root.translate(self.model.catalogue())

    def _key(self, _: object, key: int, *more: object) -> bool:
        """Escape, or Android's back: close what is on top, then the page, then the app."""
        if key != _BACK:
            return False
        if self.overlays.back():
            return True
        if self.root.open != "create":
            self.go("create")
            return True
        return False
