"""The app's own widgets: text, icons, buttons, chips, cards. How they look is in style.kv."""

from __future__ import annotations

import functools

from kivy.graphics.texture import Texture
from kivy.properties import (
    BooleanProperty,
    NumericProperty,
    ObjectProperty,
    OptionProperty,
    StringProperty,
)
from kivy.uix.behaviors import ButtonBehavior
from kivy.uix.boxlayout import BoxLayout
from kivy.uix.label import Label
from kivy.uix.scrollview import ScrollView
from kivy.uix.stacklayout import StackLayout
from kivy.uix.textinput import TextInput
from kivy.uix.widget import Widget

from hummingbird_demo.fonts import font_of
from hummingbird_demo.icons import rasterize, rasterize_mark
from hummingbird_demo.theme import TYPE


@functools.cache
def icon_texture(name: str, size: int) -> Texture:
    """White with the icon's coverage as alpha; a colour instruction tints it."""
    alpha = rasterize(name, size)
    pixels = alpha[::-1, :, None].repeat(4, axis=2)
    pixels[..., :3] = 255
    return _texture(size, pixels.tobytes())


@functools.cache
def mark_texture(size: int) -> Texture:
    """The app's mark in its own colours."""
    return _texture(size, rasterize_mark(size)[::-1].tobytes())


def _texture(size: int, pixels: bytes) -> Texture:
    texture = Texture.create(size=(size, size), colorfmt="rgba")
    texture.blit_buffer(pixels, colorfmt="rgba", bufferfmt="ubyte")
    return texture


class Text(Label):
    """A text in one of the three sizes and one of the theme's colours."""

    scale = OptionProperty("body", options=tuple(TYPE))
    role = StringProperty("text")
    lines = NumericProperty(0)
    """How many lines are kept free and cut to; 0 is as many as the text needs."""
    free = BooleanProperty(False)
    """Whether the text is never wrapped and its own width counts."""

    def on_text(self, _: Widget, text: str) -> None:
        """Choose the font that can draw it."""
        self.font_name = font_of(text)


class Icon(Widget):
    """One of the icons, sharp at its own size."""

    name = StringProperty("")
    role = StringProperty("text")
    texture = ObjectProperty(None, allownone=True)

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        self.bind(name=self._redraw, size=self._redraw)
        self._redraw()

    def _redraw(self, *_: object) -> None:
        size = round(self.width)
        self.opacity = 1 if self.name else 0
        self.texture = icon_texture(self.name, size) if self.name and size > 0 else None


class Mark(Widget):
    """The app's bird."""

    texture = ObjectProperty(None, allownone=True)

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        self.bind(size=self._redraw)
        self._redraw()

    def _redraw(self, *_: object) -> None:
        self.texture = mark_texture(max(round(self.width), 1))


class Card(Widget):
    """A rounded field behind others."""

    fill = StringProperty("surface")
    edge = StringProperty("line")
    radius = NumericProperty(16)
    border = NumericProperty(1)


class Ground(Widget):
    """One colour over everything behind it, without the soft edges of a card."""

    fill = StringProperty("background")


class Press(ButtonBehavior, Widget):
    """Anything that can be touched; darkens under the finger."""

    radius = NumericProperty(16)


class IconButton(Press):
    """An icon with room for a finger."""

    icon = StringProperty("")
    role = StringProperty("muted")


class Action(Press):
    """A large button: an icon and a word."""

    icon = StringProperty("")
    text = StringProperty("")
    fill = StringProperty("accent")
    role = StringProperty("on_accent")


class Tool(Press):
    """An icon above a word."""

    icon = StringProperty("")
    text = StringProperty("")
    role = StringProperty("text")


class Chip(Press):
    """One of several values."""

    text = StringProperty("")
    chosen = BooleanProperty(False)
    value = ObjectProperty(None, allownone=True)


class Chips(StackLayout):
    """Chips that wrap."""


class Row(Press):
    """A line of a list: icon, text, and what a touch leads to."""

    icon = StringProperty("")
    text = StringProperty("")
    tail = StringProperty("")
    chosen = BooleanProperty(False)


class Box(BoxLayout):
    """Things below each other, as high as they need."""


class Padded(Box):
    """The same with a margin."""


class Fact(BoxLayout):
    """A name at the left and its value beside it, as high as the longer one."""

    name = StringProperty("")
    text = StringProperty("")
    share = NumericProperty(0.4)
    """Of the width, for the name."""


class CardBox(Card, Box):
    """The same on a card."""

    def __init__(self, **options: object) -> None:
        options.setdefault("padding", "16dp")
        super().__init__(**options)


class Scroll(ScrollView):
    """Scrolls up and down."""


class Field(TextInput):
    """A box to type in, without a look of its own."""

    def on_text(self, _: Widget, text: str) -> None:
        """Choose the font that can draw it."""
        self.font_name = font_of(text or self.hint_text)

    def on_hint_text(self, _: Widget, text: str) -> None:
        """Choose the font that can draw it."""
        self.font_name = font_of(self.text or text)


class Bar(Widget):
    """A progress bar."""

    value = NumericProperty(0.0)
    """0..1."""


class Toggle(ButtonBehavior, Widget):
    """On or off."""

    active = BooleanProperty(False)
