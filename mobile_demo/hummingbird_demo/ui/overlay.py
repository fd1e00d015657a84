"""What lies above the pages: sheets with choices, questions, full pages, and short words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kivy.animation import Animation
from kivy.app import App
from kivy.clock import Clock
from kivy.metrics import dp
from kivy.uix.boxlayout import BoxLayout
from kivy.uix.floatlayout import FloatLayout
from kivy.uix.widget import Widget

from hummingbird_demo.ui.widgets import Action, Card, Ground, IconButton, Padded, Scroll, Text

SHEET_WIDTH = 560
"""Widest sheet, density-independent pixels; narrower windows are filled."""
_SECONDS = 0.16
_PAD = 24


class Overlay(FloatLayout):
    """Something that the back key, or a touch beside it, closes."""

    def close(self) -> None:
        """Take it away."""
        App.get_running_app().overlays.remove(self)

    def on_touch_down(self, touch: object) -> bool:
        """Take every touch, so that nothing below reacts."""
        super().on_touch_down(touch)
        return True


class Sheet(Overlay):
    """Content on a card that rises from the foot, or stands in the middle of a wide window.

    Args:
        content: scrolls where it is too high.
        foot: stays in sight below it, such as the button that closes the sheet.
    """

    def __init__(self, content: Widget, foot: Widget, **options: object) -> None:
        super().__init__(**options)
        self.scrim = Ground(fill="scrim")
        self.card = Card(fill="raised", edge="raised", radius=24, size_hint=(None, None))
        self.scroll = Scroll(size_hint=(None, None))
        self.content, self.foot = content, foot
        foot.size_hint = (None, None)
        self.scroll.add_widget(content)
        for part in (self.scrim, self.card, self.scroll, foot):
            self.add_widget(part)
        self.bind(size=self._arrange, pos=self._arrange)
        content.bind(height=self._arrange)
        self.opacity = 0
        Animation(opacity=1, d=_SECONDS).start(self)

    def _arrange(self, *_: object) -> None:
        width = min(self.width, dp(SHEET_WIDTH))
        middle = self.width > dp(SHEET_WIDTH) + dp(48)
        below = self.foot.height + dp(2 * _PAD)
        height = min(self.content.height + below, self.height - dp(48))
        y = self.y + (self.height - height) / 2 if middle else self.y
        left = self.center_x - width / 2
        self.foot.width, self.foot.pos = width - dp(2 * _PAD), (left + dp(_PAD), y + dp(_PAD))
        self.scroll.size, self.scroll.pos = (width, height - below), (left, y + below)
        hidden = 0 if middle else dp(24)  # the lower corners lie outside of the window
        self.card.size = (width, height + hidden)
        self.card.pos = (left, y - hidden)

    def on_touch_down(self, touch: Any) -> bool:
        """Close for a touch beside the card."""
        if not self.card.collide_point(*touch.pos):
            self.close()
            return True
        return super().on_touch_down(touch)


class Question(Sheet):
    """A question with one answer that does something and one that does not."""

    def __init__(
        self, title: str, body: str, *, icon: str, yes: str, no: str, act: Callable[[], None]
    ) -> None:
        box = Padded(padding=(dp(_PAD), dp(_PAD), dp(_PAD), 0))
        box.add_widget(Text(text=title, scale="title", bold=True))
        box.add_widget(Text(text=body, role="muted"))
        buttons = BoxLayout(size_hint_y=None, height=dp(56), spacing=dp(8))
        self.no = Action(text=no, fill="line", role="text")
        self.yes = Action(icon=icon, text=yes, fill="danger", role="on_danger")
        self.no.bind(on_release=lambda *_: self.close())
        self.yes.bind(on_release=lambda *_: self._answer(act))
        buttons.add_widget(self.no)
        buttons.add_widget(self.yes)
        super().__init__(box, buttons)

    def _answer(self, act: Callable[[], None]) -> None:
        self.close()
        act()


class FullPage(Overlay):
    """A page with a title and a way back, above everything but the words at the foot."""

    def __init__(self, title: str, content: Widget | None = None, **options: object) -> None:
        super().__init__(**options)
        self.ground = Ground(fill="background")
        self.back = IconButton(icon="back", role="text")
        self.title = Text(text=title, scale="title", bold=True, lines=1)
        self.back.bind(on_release=lambda *_: self.close())
        self.body = Scroll(size_hint=(None, None))
        for part in (self.ground, self.body, self.back, self.title):
            self.add_widget(part)
        if content is not None:
            self.body.add_widget(content)
        self.title.size_hint_x = None
        self.back.pos_hint, self.title.pos_hint = {}, {}
        self.bind(size=self.arrange, pos=self.arrange)

    def arrange(self, *_: object) -> None:
        """Put title and content in place."""
        width = min(self.width, dp(720))
        self._head(self.center_x - width / 2)
        self.body.size = (width, self.height - dp(64))
        self.body.pos = (self.center_x - width / 2, self.y)

    def _head(self, left: float) -> None:
        """The way back and the title, above a content that begins at ``left``."""
        self.back.pos = (left + dp(4), self.top - dp(56))
        self.title.width = self.width - dp(80)
        self.title.pos = (left + dp(56), self.top - dp(56) + (dp(48) - self.title.height) / 2)


class Overlays(FloatLayout):
    """Holds what lies above the pages, the latest on top."""

    def show(self, overlay: Overlay) -> None:
        """Put one on top."""
        self.add_widget(overlay)

    def remove(self, overlay: Overlay) -> None:
        """Take one away."""
        self.remove_widget(overlay)

    def back(self) -> bool:
        """Close the topmost; False where there is none."""
        if not self.children:
            return False
        self.children[0].close()
        return True


class Toast(FloatLayout):
    """A short word at the foot; goes by itself."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        self.card = Card(fill="text", edge="text", radius=12, size_hint=(None, None))
        self.label = Text(role="background", scale="small", size_hint_x=None)
        self.add_widget(self.card)
        self.add_widget(self.label)
        self.opacity = 0
        self.foot = dp(80)
        self.bind(size=self._arrange)
        self.label.bind(texture_size=self._arrange)
        self._gone = Clock.create_trigger(self._hide, 4)

    def say(self, text: str) -> None:
        """Show a text for some seconds."""
        self.label.text = text
        Animation.cancel_all(self)
        Animation(opacity=1, d=_SECONDS).start(self)
        self._gone.cancel()
        self._gone()

    def _hide(self, *_: object) -> None:
        Animation(opacity=0, d=_SECONDS).start(self)

    def _arrange(self, *_: object) -> None:
        width = min(self.width - dp(32), dp(480))
        self.label.width = width - dp(32)
        height = self.label.texture_size[1] + dp(24)
        self.card.size = (width, height)
        self.card.pos = (self.center_x - width / 2, self.y + self.foot)
        self.label.pos = (self.card.x + dp(16), self.card.y + dp(12))

    def on_touch_down(self, touch: object) -> bool:
        """Let every touch through."""
        return False
