"""The gallery: a grid of posters, and one clip playing large with what can be done with it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from kivy.app import App
from kivy.core.image import Image as CoreImage
from kivy.metrics import dp
from kivy.properties import ObjectProperty
from kivy.uix.boxlayout import BoxLayout
from kivy.uix.floatlayout import FloatLayout
from kivy.uix.recycleview import RecycleView

from hummingbird_demo.ui.overlay import FullPage, Question
from hummingbird_demo.ui.player import SMALL, Player
from hummingbird_demo.ui.widgets import Box, Card, Icon, Padded, Press, Text, Tool
from hummingbird_demo.view_model import Line

if TYPE_CHECKING:
    from hummingbird_demo.app_model import AppModel
    from hummingbird_demo.clips import Clip
    from hummingbird_runtime import Video

TILE = 160
"""Least width of a tile, density-independent pixels."""


class ClipTile(Press):
    """One clip of the grid: its poster and its prompt."""

    clip = ObjectProperty(None, allownone=True)
    texture = ObjectProperty(None, allownone=True)
    radius = 16

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        self.caption = Text(scale="small", role="muted", lines=1, size_hint_x=None)
        self.add_widget(self.caption)
        self.bind(pos=self._arrange, size=self._arrange, clip=self._load)

    def _load(self, *_: object) -> None:
        if self.clip is None:
            return
        self.caption.text = self.clip.prompt
        path = App.get_running_app().model.library.poster(self.clip)
        try:
            self.texture = CoreImage(str(path), nocache=True).texture
        except Exception:  # a poster that cannot be read leaves an empty tile; the clip may be fine
            self.texture = None
            return
        if max(self.texture.size) <= SMALL:
            self.texture.mag_filter = "nearest"

    def _arrange(self, *_: object) -> None:
        self.caption.width = self.width - dp(8)
        self.caption.pos = (self.x + dp(4), self.y + dp(4))

    def on_release(self) -> None:
        """Play it large."""
        App.get_running_app().model.open_clip(self.clip)


class ClipGrid(RecycleView):
    """As many tiles as are in sight."""


class GalleryPage(FloatLayout):
    """The second page."""

    def __init__(self, model: AppModel, **options: object) -> None:
        super().__init__(**options)
        self.model = model
        self.heading = Text(scale="title", bold=True, lines=1, size_hint_x=None)
        self.note = Text(scale="small", role="muted", lines=1, size_hint_x=None)
        self.grid = ClipGrid(size_hint=(None, None))
        self.empty = Box(size_hint=(None, None), spacing=dp(8))
        self.sign = Icon(name="gallery", size=(dp(48), dp(48)), role="muted",
                         pos_hint={"center_x": 0.5})  # fmt: skip
        self.title = Text(scale="title", bold=True, halign="center")
        self.body = Text(role="muted", halign="center")
        for part in (self.sign, self.title, self.body):
            self.empty.add_widget(part)
        for part in (self.heading, self.note, self.grid, self.empty):
            self.add_widget(part)
        self._shown: tuple[Clip, ...] | None = None
        self._viewer: ClipPage | None = None
        self.bind(size=self.arrange, pos=self.arrange)
        self.empty.bind(height=self.arrange)
        model.subscribe(self.show)

    def translate(self) -> None:
        """Every text again, after the language changed."""
        self.heading.text = self.model.text("tab_gallery")
        self.title.text = self.model.text("gallery_empty_title")
        self.body.text = self.model.text("gallery_empty_body")
        self.show()

    def show(self) -> None:
        """Make the page look like the model."""
        rest = self.model.rest
        if rest.shelf.clips != self._shown:
            self._shown = rest.shelf.clips
            self.grid.data = [{"clip": clip} for clip in rest.shelf.clips]
        self.empty.opacity = 0 if rest.shelf.clips else 1
        damaged = rest.shelf.damaged
        line = self.model.catalogue()["gallery_damaged"].format(n=damaged)
        self.note.text = line if damaged else ""
        overlays = App.get_running_app().overlays
        if rest.opened is not None and self._viewer is None:
            self._viewer = ClipPage(self.model, *rest.opened)
            overlays.show(self._viewer)
        elif rest.opened is None and self._viewer is not None:
            viewer, self._viewer = self._viewer, None
            viewer.player.frames = None
            overlays.remove(viewer)

    def arrange(self, *_: object) -> None:
        """Put everything in place for the present size."""
        columns = max(2, int((self.width - dp(16)) // dp(TILE + 16)))
        side = (self.width - dp(16) * (columns + 1)) / columns
        self.grid.layout_manager.cols = columns
        self.grid.layout_manager.default_size = (side, side + dp(28))
        self.heading.width = self.note.width = self.width - dp(32)
        self.heading.pos = (self.x + dp(16), self.top - dp(16) - self.heading.height)
        self.note.pos = (self.x + dp(16), self.heading.y - dp(20))
        self.grid.size = (self.width, self.height - dp(64))
        self.grid.pos = self.pos
        self.empty.width = min(self.width - dp(64), dp(360))
        self.empty.center = self.center


class ClipPage(FullPage):
    """One clip, playing, with its facts and tools."""

    def __init__(self, model: AppModel, clip: Clip, video: Video, **options: object) -> None:
        super().__init__(model.text("tab_gallery"), **options)
        self.model, self.clip, self.video = model, clip, video
        text = model.text
        self.stage = Card(fill="stage", edge="stage", radius=24, size_hint=(None, None))
        self.player = Player(size_hint=(None, None), fps=video.fps)
        self.player.shape = list(video.frames.shape[1:3])
        self.player.frames = video.frames
        self.prompt = Text(text=clip.prompt)
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(clip.created))
        length = text(Line("seconds", {"s": clip.frames / clip.fps}))
        size = f"{clip.width} × {clip.height} · {length} · {text('seed')} {clip.seed}"
        drawn = text(Line("drawn_in", {"s": float(clip.seconds)}))
        self.facts = Text(text=f"{size}\n{clip.model} · {drawn} · {when}", scale="small",
                          role="muted")  # fmt: skip
        self.tools = BoxLayout(size_hint_y=None, height=dp(72), spacing=dp(8))
        for icon, key, act, role in (
            ("save", "save", lambda: model.save_clip(video), "accent"),
            ("share", "share", lambda: model.share_clip(video), "accent"),
            ("edit", "reuse", self._reuse, "accent"),
            ("delete", "delete", self._delete, "danger"),
        ):
            tool = Tool(icon=icon, text=text(key), role=role)
            tool.bind(on_release=lambda _, act=act: act())
            self.tools.add_widget(tool)
        self.about = Padded(padding=(0, 0), spacing=dp(8), size_hint=(None, None))
        for part in (self.prompt, self.facts, self.tools):
            self.about.add_widget(part)
        for part in (self.stage, self.player, self.about):
            self.add_widget(part)
        self.about.bind(height=self.arrange)

    def close(self) -> None:
        """Back to the grid."""
        self.model.close_clip()

    def arrange(self, *_: object) -> None:
        """Picture above the words, or beside them in a wide window."""
        super().arrange()
        if not hasattr(self, "about"):
            return
        pad, top = dp(16), self.top - dp(64)
        if self.width > self.height and self.width >= dp(560):
            side = min(self.height - dp(64) - pad, self.width * 0.6)
            column = min(self.width - side - 3 * pad, dp(480))
            start = self.x + (self.width - side - column - pad) / 2
            self._head(start)
            self.stage.size, self.stage.pos = (side, side), (start, top - side)
            self.about.width = column
            self.about.pos = (start + side + pad, top - self.about.height)
        else:
            side = min(self.width - 2 * pad, self.height - dp(64) - self.about.height - 2 * pad)
            self.stage.size = (self.width - 2 * pad, side)
            self.stage.pos = (self.x + pad, top - side)
            self.about.width = self.width - 2 * pad
            self.about.pos = (self.x + pad, self.stage.y - pad - self.about.height)
        self.player.size = (self.stage.width - dp(16), self.stage.height - dp(16))
        self.player.center = self.stage.center

    def _reuse(self) -> None:
        self.model.drawing.reuse(self.clip)
        self.close()
        App.get_running_app().go("create")

    def _delete(self) -> None:
        text = self.model.text
        question = Question(
            text("delete_clip"),
            text("cannot_undo"),
            icon="delete",
            yes=text("delete"),
            no=text("cancel"),
            act=lambda: self.model.delete_clip(self.clip),
        )
        App.get_running_app().overlays.show(question)
