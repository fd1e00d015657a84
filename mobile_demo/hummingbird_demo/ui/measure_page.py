"""Measure this device: what it does, how far it is, and what came of it."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import TYPE_CHECKING

from kivy.uix.widget import Widget

from hummingbird_demo.ui.overlay import FullPage
from hummingbird_demo.ui.widgets import Action, Bar, CardBox, Fact, Padded, Text
from hummingbird_demo.view_model import Line

if TYPE_CHECKING:
    from hummingbird_demo.app_model import AppModel
    from hummingbird_demo.measure import Measurement


class MeasurePage(FullPage):
    """One measurement; it goes on when the page is left.

    Args:
        model: the app behind it.
        closed: called when the page is left.
    """

    def __init__(self, model: AppModel, closed: Callable[[], None]) -> None:
        self.model, self._closed = model, closed
        self.box, self.bar = Padded(), Bar()
        self.line = Text(scale="small", role="muted")
        self._shown: object = None
        super().__init__(model.text("measure"), self.box)
        self.show()

    def close(self) -> None:
        """Back to the settings."""
        self._closed()
        super().close()

    def show(self) -> None:
        """Make the page look like the model."""
        rest, text = self.model.rest, self.model.text
        if rest.measuring is not None:
            run, runs = rest.measuring
            self.bar.value = (run - 1) / runs if runs else 0.0
            self.line.text = text(Line("measuring", {"i": run, "n": runs})) if runs else ""
        state = (rest.measuring is not None, rest.measurement, self.model.drawing.state.busy)
        if state == self._shown:
            return
        self._shown = state
        self.box.clear_widgets()
        self.box.add_widget(Text(text=text("measure_body"), role="muted"))
        if rest.measuring is not None:
            card = CardBox()
            card.add_widget(self.line)
            card.add_widget(self.bar)
            self.box.add_widget(card)
            stop = Action(icon="stop", text=text("cancel"), fill="line", role="text")
            stop.bind(on_release=lambda *_: self.model.worker.cancel_errand("measure"))
            self.box.add_widget(stop)
            return
        if rest.measurement is not None:
            self._results(rest.measurement)
            self._button("save", "measure_save", self.model.save_measurement)
            self._button("measure", "measure_again", self.model.measure, soft=True)
        else:
            self._button("measure", "measure_start", self.model.measure)

    def _button(self, icon: str, key: str, act: Callable[[], None], *, soft: bool = False) -> None:
        button = Action(icon=icon, text=self.model.text(key))
        if soft:
            button.fill, button.role = "soft", "on_soft"
        button.bind(on_release=lambda *_: act())
        self.box.add_widget(button)

    def _results(self, found: Measurement) -> None:
        text, document = self.model.text, found.document
        samples = document["samples"]
        steady = [sample for sample in samples if sample["phase"] == "steady"]

        def seconds(*values: float) -> str:
            digits = f"{statistics.median(values):.2f}".replace(".", text("decimal_mark"))
            return text(Line("seconds", {"s": digits}))

        card: Widget = CardBox()
        card.add_widget(Text(text=seconds(found.clip_s), scale="title", bold=True, role="accent"))
        card.add_widget(
            Text(text=text(Line("measured", {"n": len(steady)})), scale="small", role="muted")
        )
        peak = found.peak_bytes
        clip, device = document["clip"], document["device"]
        facts = [
            ("measure_cold", seconds(samples[0]["wall_s"])),
            ("measure_first", seconds(samples[1]["wall_s"])),
            ("measure_step", seconds(*(s for sample in steady for s in sample["steps_s"]))),
            ("measure_decode", seconds(*(sample["decode_s"] for sample in steady))),
            ("measure_memory", text(Line("megabytes", {"mb": peak >> 20})) if peak else "–"),
            ("size", f"{clip['width']} × {clip['height']} × {clip['frames']}"),
            ("measure_processor", device["processor"]),
            ("measure_engine", document["software"]["engine"]),
        ]
        for key, value in facts:
            card.add_widget(Fact(name=text(key), text=value, share=0.46))
        self.box.add_widget(card)
