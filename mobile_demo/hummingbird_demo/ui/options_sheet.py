"""The sheet of choices: seed, size, frames, steps, style, precision, decoder, enlarging.

Only what the bundle offers more than one value of is shown; every value is the bundle's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from kivy.metrics import dp
from kivy.uix.floatlayout import FloatLayout

from hummingbird_demo.ui.overlay import Sheet
from hummingbird_demo.ui.widgets import (
    Action,
    Box,
    Card,
    Chip,
    Chips,
    Field,
    IconButton,
    Padded,
    Text,
)

if TYPE_CHECKING:
    from hummingbird_demo.app_model import AppModel


class SeedField(FloatLayout):
    """The seed as a number that can be typed, and a button for another."""

    def __init__(self, model: AppModel, **options: object) -> None:
        super().__init__(size_hint_y=None, height=dp(48), **options)
        self.model = model
        self.paper = Card(fill="background", edge="line")
        self.field = Field(text=str(model.drawing.state.seed), multiline=False, input_filter="int")
        self.shuffle = IconButton(icon="shuffle", role="accent")
        for part in (self.paper, self.field, self.shuffle):
            self.add_widget(part)
        self.field.size_hint = (None, 1)
        self.shuffle.bind(on_release=self._shuffle)
        self.field.bind(text=self._typed)
        self.bind(size=self._arrange, pos=self._arrange)

    def _shuffle(self, *_: object) -> None:
        self.model.drawing.shuffle_seed()
        self.field.text = str(self.model.drawing.state.seed)

    def _typed(self, _: object, text: str) -> None:
        if text and not self.model.drawing.set_seed(text):
            self.field.text = str(self.model.drawing.state.seed)

    def _arrange(self, *_: object) -> None:
        self.field.width = self.width - dp(56)
        self.field.pos = self.paper.pos = self.pos
        self.shuffle.pos = (self.right - dp(48), self.y)


class OptionsSheet(Sheet):
    """Choices for the next clip; every touch counts at once."""

    def __init__(self, model: AppModel) -> None:
        self.model = model
        self.box = Padded(padding=(dp(24), dp(24), dp(24), 0))
        done = Action(icon="check", text=model.text("done"))
        done.bind(on_release=lambda *_: self.close())
        super().__init__(self.box, done)
        self.fill()

    def fill(self) -> None:
        """Build the choices of the present model."""
        model, text, state = self.model, self.model.text, self.model.drawing.state
        assert state.model is not None
        assert state.request is not None
        offer, request, choose = state.model.choices, state.request, model.drawing.choose
        self.box.clear_widgets()
        self.box.add_widget(Text(text=text("options"), scale="title", bold=True))
        self._part("seed", SeedField(model))
        sizes = [(f"{w} × {h}", (h, w)) for h, w in offer.sizes]
        self._chips(
            "size", sizes, (request.height, request.width),
            lambda value: choose(height=value[0], width=value[1]),
        )  # fmt: skip
        frames = [(str(n), n) for n in offer.frames]
        self._chips("frames", frames, request.num_frames, lambda v: choose(num_frames=v))
        steps = [(str(n), n) for n in offer.steps]
        self._chips(
            "steps", steps, request.num_inference_steps, lambda v: choose(num_inference_steps=v)
        )
        styles = [(text("style_none"), ""), *((name, name) for name in offer.styles)]
        self._chips("style", styles, request.style, lambda v: choose(style=v))
        variants = [(m.choices.precision, m.key) for m in model.variants(state.model)]
        self._chips("precision", variants, state.model.key, self._use, always=True)
        decoders = [(text(f"decoder_{name}"), name) for name in offer.decoders]
        self._chips("decoder", decoders, request.decoder, lambda v: choose(decoder=v))
        if offer.upscaler:
            values = [(text("on"), True), (text("off"), False)]
            self._chips("upscale", values, request.upscale, lambda v: choose(upscale=v))

    def _use(self, key: str) -> None:
        models = {model.key: model for model in self.model.rest.models}
        self.model.use_model(models[key])
        self.fill()

    def _chips(
        self,
        key: str,
        values: Sequence[tuple[str, Any]],
        present: Any,
        choose: Callable[[Any], None],
        *,
        always: bool = False,
    ) -> None:
        if len(values) < 2 and not always:
            return
        chips = Chips()

        def touched(chip: Chip) -> None:
            choose(chip.value)
            for other in chips.children:
                other.chosen = other is chip

        for word, value in values:
            chip = Chip(text=word, value=value, chosen=value == present)
            chip.bind(on_release=touched)
            chips.add_widget(chip)
        self._part(key, chips)

    def _part(self, key: str, widget: Any) -> None:
        part = Box()
        part.add_widget(Text(text=self.model.text(key), scale="small", role="muted"))
        part.add_widget(widget)
        self.box.add_widget(part)
