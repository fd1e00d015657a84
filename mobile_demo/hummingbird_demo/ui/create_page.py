"""The drawing page: picture, progress, prompt, examples, options, and the one large button.

It shows the view-model's ``State`` and hands touches back; what it shows in which phase is in
``show``, where things lie in ``_portrait`` and ``_landscape``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from kivy.app import App
from kivy.metrics import dp
from kivy.uix.floatlayout import FloatLayout
from kivy.uix.scrollview import ScrollView

from hummingbird_demo.ui.options_sheet import OptionsSheet
from hummingbird_demo.ui.player import Player
from hummingbird_demo.ui.widgets import (
    Action,
    Bar,
    Box,
    Card,
    Chip,
    Chips,
    Field,
    Icon,
    IconButton,
    Mark,
    Row,
    Text,
)
from hummingbird_demo.view_model import Line, Phase, State

if TYPE_CHECKING:
    from hummingbird_demo.app_model import AppModel
    from hummingbird_runtime import Video

EXAMPLE_LENGTH = 32
"""Characters of an example that its chip shows."""
_PAD, _GAP = 16, 8


class CreatePage(FloatLayout):
    """The first page.

    Args:
        model: the app behind it.
    """

    def __init__(self, model: AppModel, **options: object) -> None:
        super().__init__(**options)
        self.model = model
        self.stage = Card(fill="stage", edge="stage", radius=24, size_hint=(None, None))
        self.player = Player(size_hint=(None, None))
        self.empty = Box(size_hint=(None, None), spacing=dp(8))
        self.mark = Mark(size=(dp(96), dp(96)), pos_hint={"center_x": 0.5})
        self.sign = Icon(size=(dp(48), dp(48)), role="danger", pos_hint={"center_x": 0.5})
        self.title = Text(scale="title", bold=True, halign="center")
        self.body = Text(role="muted", halign="center")
        self.status = Text(scale="small", role="muted", lines=1, size_hint_x=None)
        self.bar = Bar(size_hint_x=None)
        self.save = IconButton(icon="save", role="accent")
        self.share = IconButton(icon="share", role="accent")
        self.paper = Card(size_hint=(None, None))
        self.field = Field(size_hint=(None, None))
        self.clear = IconButton(icon="close")
        self.examples = ScrollView(size_hint=(None, None), bar_width=0, do_scroll_y=False)
        self.chips = Chips(size_hint_x=None)
        self.examples.add_widget(self.chips)
        self.options_row = Row(icon="tune", tail="forward", size_hint=(None, None))
        self.primary = Action(size_hint=(None, None))
        self.secondary = Action(size_hint=(None, None), fill="line", role="text")
        for part in (
            self.stage, self.player, self.empty, self.status, self.bar, self.save, self.share,
            self.paper, self.field, self.clear, self.examples, self.options_row, self.primary,
            self.secondary,
        ):  # fmt: skip
            self.add_widget(part)
        self._shown_model: str | None = None
        self._notices = 0
        self.bind(size=self.arrange, pos=self.arrange)
        self.empty.bind(height=self.arrange)
        self._connect()
        model.drawing.subscribe(self.show)

    def _connect(self) -> None:
        drawing = self.model.drawing
        self.field.bind(text=lambda _, text: drawing.set_prompt(text))
        self.clear.bind(on_release=lambda *_: setattr(self.field, "text", ""))
        self.primary.bind(on_release=lambda *_: self._primary())
        self.secondary.bind(on_release=lambda *_: self._secondary())
        self.options_row.bind(on_release=lambda *_: self.open_options())
        self.save.bind(on_release=lambda *_: self._hand_out(self.model.save_clip))
        self.share.bind(on_release=lambda *_: self._hand_out(self.model.share_clip))

    def _hand_out(self, act: Callable[[Video], None]) -> None:
        video = self.model.drawing.state.video
        if video is not None:
            act(video)

    def open_options(self) -> None:
        """Show what can be chosen besides the prompt."""
        if self.model.drawing.state.model is not None and not self.model.drawing.state.busy:
            App.get_running_app().overlays.show(OptionsSheet(self.model))

    def translate(self) -> None:
        """Every text again, after the language changed."""
        self.field.hint_text = self.model.text("prompt_hint")
        self.show(self.model.drawing.state)

    def show(self, state: State) -> None:
        """Make the page look like a state."""
        if self.field.text != state.prompt:
            self.field.text = state.prompt
        self._examples(state)
        shape = state.request
        if state.video is not None:
            self.player.shape = list(state.video.frames.shape[1:3])
        elif shape is not None:
            scale = 4 if shape.upscale else 1
            self.player.shape = [shape.height * scale, shape.width * scale]
        self.player.fps = state.fps
        self.player.frames = state.frames
        self.status.text = self._status(state)
        self.bar.value = state.progress.fraction
        self.bar.opacity = 1 if state.busy else 0
        self.field.disabled = state.busy
        self.options_row.text = self._summary(state)
        self._middle(state)
        self._buttons(state)
        if len(state.notices) > self._notices:
            App.get_running_app().toast.say(state.notices[-1])
        self._notices = len(state.notices)
        playing = state.phase is Phase.PLAYING
        for button in (self.save, self.share):
            button.opacity, button.disabled = (1, False) if playing else (0, True)
        self.clear.opacity = 1 if state.prompt and not state.busy else 0
        self.clear.disabled = not self.clear.opacity
        self.arrange()

    def _status(self, state: State) -> str:
        parts = [self.model.text(line) for line in state.status]
        left = state.progress.seconds_left
        if state.phase is Phase.GENERATING and left is not None and left >= 0.5:
            minutes = left >= 90
            key = "left_min" if minutes else "left_s"
            values = {"min": round(left / 60)} if minutes else {"s": max(round(left), 1)}
            parts.append(self.model.catalogue()[key].format(**values))
        return " · ".join(parts)

    def _summary(self, state: State) -> str:
        request, text = state.request, self.model.text
        if request is None:
            return text("opening")
        fps = state.model.choices.fps if state.model is not None else state.fps
        parts = [
            f"{request.width} × {request.height}",
            text(Line("seconds", {"s": request.num_frames / fps})),
            f"{text('seed')} {state.seed}",
        ]
        return " · ".join(([request.style] if request.style else []) + parts)

    def _examples(self, state: State) -> None:
        if state.model is None or state.model.key == self._shown_model:
            return
        self._shown_model = state.model.key
        self.chips.clear_widgets()
        for example in state.model.choices.examples:
            short = example
            if len(example) > EXAMPLE_LENGTH:
                short = example[:EXAMPLE_LENGTH].rpartition(" ")[0] + "…"
            chip = Chip(text=short, value=example)
            chip.bind(on_release=lambda chip: self._use_example(chip.value))
            chip.bind(width=self.arrange)
            self.chips.add_widget(chip)

    def _use_example(self, example: str) -> None:
        if not self.model.drawing.state.busy:
            self.field.text = example

    def _middle(self, state: State) -> None:
        """What stands in the picture's place while there is no picture."""
        text, phase = self.model.text, state.phase
        self.empty.clear_widgets()
        if state.frames is not None:
            return
        sign, title, body = "", text("idle_title"), text("idle_body")
        if phase is Phase.FAILED and state.error is not None:
            sign, title, body = "warning", text("failed_title"), str(state.error)
        elif phase is Phase.LOW_MEMORY:
            sign, title = "warning", text("memory_title")
            body = self.model.catalogue()["memory_body"].format(
                needed=state.needed >> 20, free=state.free >> 20
            )
            if state.error is not None:
                body = state.error.message
        elif phase is Phase.INTERRUPTED and state.interrupted is not None:
            found = state.interrupted
            title = text("interrupted_title")
            body = self.model.catalogue()["interrupted_body"].format(
                prompt=found.order.prompt, i=found.steps_done, n=found.steps
            )
        elif state.busy:
            title = body = ""
        self.sign.name, self.title.text, self.body.text = sign, title, body
        roomy = self.stage.height >= dp(240)
        for part in (self.sign if sign else self.mark if roomy else None, self.title, self.body):
            if part is not None and (part not in (self.title, self.body) or part.text):
                self.empty.add_widget(part)

    def _buttons(self, state: State) -> None:
        text, phase = self.model.text, state.phase
        icon, word, fill, role = "create", "generate", "accent", "on_accent"
        second = ""
        if state.busy:
            icon, word, fill, role = "stop", "cancel", "line", "text"
        elif phase is Phase.FAILED:
            word, second = "retry", "close"
        elif phase is Phase.LOW_MEMORY:
            icon, word, second = "", "memory_smaller", "close"
        elif phase is Phase.INTERRUPTED:
            icon, word, second = "play", "continue", "discard"
        primary = self.primary
        primary.icon, primary.text, primary.fill, primary.role = icon, text(word), fill, role
        ready = bool(state.prompt.strip()) or phase in (Phase.INTERRUPTED, Phase.LOW_MEMORY)
        primary.disabled = phase is Phase.CANCELLING or not (state.busy or ready)
        if primary.disabled:
            primary.fill, primary.role = "line", "muted"
        self.secondary.text = text(second) if second else ""
        self.secondary.opacity, self.secondary.disabled = (1, False) if second else (0, True)

    def _primary(self) -> None:
        drawing = self.model.drawing
        self.field.focus = False
        if drawing.state.busy:
            drawing.cancel()
        elif drawing.state.phase is Phase.LOW_MEMORY:
            drawing.smaller()
        elif drawing.state.phase is Phase.INTERRUPTED:
            drawing.go_on()
        else:
            drawing.generate()

    def _secondary(self) -> None:
        drawing = self.model.drawing
        if drawing.state.phase is Phase.INTERRUPTED:
            drawing.discard_interrupted()
        else:
            drawing.dismiss()

    # --- where things lie

    def arrange(self, *_: object) -> None:
        """Put everything in place for the present size."""
        if self.width > self.height and self.width >= dp(560):
            self._landscape()
        else:
            self._portrait()
        side = min(self.stage.width, self.stage.height) - dp(2 * _GAP)
        self.player.size = (self.stage.width - dp(2 * _GAP), self.stage.height - dp(2 * _GAP))
        self.player.center = self.stage.center
        self.empty.width = min(side - dp(_PAD), dp(360))
        self.empty.center = self.stage.center

    def _portrait(self) -> None:
        width = self.width - dp(2 * _PAD)
        left = self.x + dp(_PAD)
        fixed = dp(_PAD + 56 + _GAP + 56 + _GAP + 40 + _GAP + 88 + _GAP + 48 + _PAD)
        rest = max(self.height - fixed, dp(96))
        side = min(width, rest)
        spare = rest - side
        prompt = dp(88) + min(spare, dp(72))
        spare -= prompt - dp(88)
        foot = self.y + dp(_PAD) + min(spare / 2, dp(32))
        foot = self._controls(left, foot, width, prompt, self._flow(width, 1))
        self._status_row(left, foot, width)
        y = foot + dp(48)
        self.stage.size = (width, side)
        self.stage.pos = (left, y)

    def _landscape(self) -> None:
        column = max(dp(320), min(self.width * 0.42, dp(480)))
        high = self.height - dp(2 * _PAD + 48)
        wide = self.width - column - dp(3 * _PAD)
        side = min(wide, high)
        left = self.x + dp(_PAD)
        column = min(self.width - side - dp(3 * _PAD), dp(560))
        start = left + (self.width - dp(3 * _PAD) - side - column) / 2
        foot = self.y + (self.height - side - dp(48)) / 2
        self._status_row(start, foot, side)
        self.stage.size = (side, side)
        self.stage.pos = (start, foot + dp(48))
        fixed = dp(56 + _GAP + 56 + _GAP + _GAP)
        room = self.stage.top - self.y - dp(_PAD) - fixed
        flow = self._flow(column, max(1, int((room - dp(160)) // dp(40 + _GAP))))
        prompt = min(room - flow, dp(160))
        foot = self.stage.top - prompt - flow - fixed
        self._controls(start + side + dp(_PAD), foot, column, prompt, flow)

    def _flow(self, width: float, rows: int) -> float:
        """Break the examples into lines where ``rows`` are enough, else keep one that scrolls.

        Returns:
            Their height, pixels.
        """
        widths = [chip.width for chip in reversed(self.chips.children)]
        lines, used = 1, 0.0
        for chip in widths:
            if used and used + chip > width:
                lines, used = lines + 1, 0.0
            used += chip + dp(_GAP)
        if lines > rows:
            lines, width = 1, sum(widths) + dp(_GAP) * len(widths)
        self.chips.width = width
        return float(dp(40 * lines + _GAP * (lines - 1)))

    def _controls(
        self, left: float, foot: float, width: float, prompt: float, flow: float
    ) -> float:
        """Button, options, examples and prompt from the foot upwards; returns where they end."""
        pair = bool(self.secondary.text)
        first = (width - dp(_GAP)) / 2 if pair else width
        self.primary.size = (first, dp(56))
        self.secondary.size = (first, dp(56)) if pair else (0, 0)
        self.secondary.pos = (left, foot)
        self.primary.pos = (left + (width - first), foot)
        y = foot + dp(56 + _GAP)
        self.options_row.size = (width, dp(56))
        self.options_row.pos = (left, y)
        y += dp(56 + _GAP)
        self.examples.size, self.examples.pos = (width, flow), (left, y)
        y += flow + dp(_GAP)
        self.paper.size, self.paper.pos = (width, prompt), (left, y)
        self.field.size, self.field.pos = (width - dp(48), prompt), (left, y)
        self.clear.pos = (left + width - dp(48), y + prompt - dp(48))
        return float(y + prompt + dp(_GAP))

    def _status_row(self, left: float, foot: float, width: float) -> None:
        tools = dp(96) if not self.save.disabled else 0
        self.status.width = width - tools
        self.status.pos = (left, foot + dp(14))
        self.bar.width, self.bar.pos = width, (left, foot + dp(4))
        self.share.pos = (left + width - dp(48), foot)
        self.save.pos = (left + width - dp(96), foot)
