"""Runs the app in a window without a display, touches it, and keeps screenshots.

Started as a child process by the tests, one scenario a process: ``python app_driver.py SCENARIO
FOLDER [WIDTHxHEIGHT] [key=value ...]``. The last line on stdout is a JSON object.
"""

from __future__ import annotations

import gc
import itertools
import json
import os
import sys
import time
import traceback
from pathlib import Path

from app_stage import Scene, Stage


def tour(stage: Stage) -> Scene:
    """Every page, with a clip drawn in between."""
    model, page = stage.model, stage.page
    yield lambda: model.drawing.state.model is not None
    yield 0.5
    stage.shot("1-idle")
    stage.touch(page.chips.children[-1])
    yield lambda: model.drawing.state.prompt
    stage.touch(page.primary)
    # on a busy machine the tiny clip may be done before the next frame is drawn
    yield (
        lambda: (
            stage.phase == "playing"
            or (stage.phase == "generating" and model.drawing.state.frames is not None)
        )
    )
    stage.shot("2-generating")
    yield lambda: stage.phase == "playing"
    yield lambda: model.drawing.state.clip is not None
    yield 0.5
    stage.shot("3-playing")
    stage.touch(page.options_row)
    yield 0.6
    stage.shot("4-options")
    stage.app.overlays.back()
    for seed in (11, 12, 13):
        model.drawing.set_seed(str(seed))
        examples = model.drawing.state.model.choices.examples
        model.drawing.set_prompt(examples[seed % len(examples)])
        model.drawing.generate()
        yield lambda: stage.phase == "playing"
        yield lambda: model.drawing.state.clip is not None
    for name in ("gallery", "models", "settings"):
        stage.touch(stage.app.root.tabs[name])
        yield 0.5
        stage.shot(f"5-{name}")
    stage.app.go("gallery")
    yield 0.3
    stage.touch(stage.find("ClipTile"))
    yield lambda: model.rest.opened is not None
    yield 0.6
    stage.shot("6-clip")
    stage.touch(stage.find("Tool", icon="delete"))
    yield 0.5
    stage.shot("7-question")
    stage.app.overlays.back()
    stage.app.overlays.back()
    stage.app.go("models")
    yield 0.3
    stage.touch(stage.find("ModelCard"))
    yield 0.5
    stage.shot("8-model")
    stage.app.overlays.back()
    stage.touch(stage.app.pages["models"].importer)
    yield 0.5
    stage.shot("9-files")
    stage.app.overlays.back()


def states(stage: Stage) -> Scene:
    """What the tour does not meet: empty, failed, short of memory, interrupted, measured, told."""
    from hummingbird_demo.orders import Interrupted
    from hummingbird_demo.worker import Ended, Short
    from hummingbird_runtime import ExecutionError

    model, app, state = stage.model, stage.app, stage.model.drawing
    yield lambda: state.state.model is not None
    app.go("gallery")
    yield 0.3
    stage.shot("1-empty")
    app.go("create")
    state.set_prompt(state.state.model.choices.examples[1])
    state.receive(Ended(0, ExecutionError("graph.failed", "unet, got a device that was lost",
                                          hint="try again")))  # fmt: skip
    yield 0.3
    stage.shot("2-failed")
    stage.touch(stage.page.secondary)
    yield lambda: stage.phase == "idle"
    state.receive(Short(0, 3400 << 20, 1210 << 20))
    yield 0.3
    stage.shot("3-memory")
    stage.touch(stage.page.secondary)
    yield lambda: stage.phase == "idle"
    state.offer(Interrupted(state._order(), 2, 4))
    yield 0.3
    stage.shot("4-interrupted")
    state.discard_interrupted()
    app.go("settings")
    yield 0.3
    stage.touch(stage.find("Row", icon="measure"))
    yield 0.3
    stage.shot("5-measure")
    stage.touch(stage.find("Action", icon="measure"))
    yield lambda: model.rest.measuring is not None and model.rest.measuring[0] > 1
    stage.shot("6-measuring")
    yield lambda: model.rest.measurement is not None
    yield 0.3
    stage.shot("7-measured")
    stage.touch(stage.find("Action", icon="save"))
    yield lambda: model.rest.toast is not None
    yield 0.4
    stage.shot("8-told")
    stage.result["saved"] = [path.name for path in (stage.folder / "saved").iterdir()]
    app.overlays.back()
    stage.touch(stage.find("Row", icon="licence"))
    yield 0.3
    stage.shot("9-licences")
    stage.touch(stage.find("Row", text="NumPy · BSD-3-Clause"))
    yield 0.3
    stage.shot("10-licence")
    while app.overlays.back():
        yield 0.0
    model._change(error=ExecutionError("output.disk_full", "clips, got no room on the disk",
                                       hint="delete a clip"))  # fmt: skip
    yield 0.4
    stage.shot("11-error")
    app.overlays.back()
    app.go("models")
    model._change(importing=(300 << 20, 900 << 20))
    yield 0.4
    stage.shot("12-importing")


def touches(stage: Stage) -> Scene:
    """What a user does first: an example, a clip, cancel, another seed, a typed prompt."""
    model, page, state = stage.model, stage.page, stage.model.drawing
    yield lambda: state.state.model is not None
    yield 0.2
    seen = stage.result
    stage.touch(page.primary)
    yield 0.2
    seen["phase_without_prompt"] = stage.phase
    stage.touch(page.chips.children[-1])
    yield lambda: state.state.prompt
    seen["prompt"] = state.state.prompt
    stage.touch(page.primary)
    yield lambda: stage.phase in ("opening", "generating")
    yield lambda: page.primary.icon == "stop"
    stage.touch(page.primary)
    yield lambda: stage.phase == "idle"
    seen["after_cancel"] = page.status.text
    stage.touch(page.options_row)
    yield 0.4
    before = state.state.seed
    stage.touch(stage.find("SeedField").shuffle)
    yield lambda: state.state.seed != before
    frames = state.state.model.choices.frames[0]  # the fewest
    stage.touch(stage.find("Chip", value=frames, text=str(frames)))
    yield lambda: state.state.request.num_frames == frames
    stage.touch(stage.find("Action", icon="check"))
    yield lambda: not stage.app.overlays.children
    stage.touch(page.clear)
    yield lambda: not state.state.prompt
    page.field.insert_text("a zebra")
    yield lambda: state.state.prompt == "a zebra"
    stage.touch(page.primary)
    yield lambda: state.state.clip is not None
    seen["frames"] = len(state.state.video.frames)
    seen["toast"] = stage.app.toast.label.text
    seen["picture"] = page.player.picture
    place = page.player._place
    yield lambda: page.player._place != place
    stage.touch(page.save)
    yield lambda: model.rest.toast is not None
    seen["saved"] = [path.name for path in (stage.folder / "saved").iterdir()]
    seen["shown"] = page.player.texture.size


def rotate(stage: Stage) -> Scene:
    """Turn the window while a clip is drawn; pause and come back; the back key."""
    from kivy.core.window import Window

    model, page, seen = stage.model, stage.page, stage.result
    yield lambda: model.drawing.state.model is not None
    model.drawing.set_prompt("a red ball")
    model.drawing.generate()
    yield lambda: model.drawing.state.busy
    strip = stage.app.root.strip
    upright = (page.stage.y > page.paper.y, strip.width > strip.height)
    Window.system_size = (Window.height, Window.width)
    yield 0.5
    lying = (page.stage.x < page.paper.x, strip.width < strip.height)
    seen["upright"], seen["lying"] = upright, lying
    seen["paused"] = stage.app.on_pause()
    yield lambda: model.drawing.state.clip is not None
    stage.app.on_resume()
    stage.shot("lying")
    Window.system_size = (Window.height, Window.width)
    yield 0.5
    stage.shot("upright")
    seen["inside"] = all(
        page.x <= part.x and part.right <= page.right + 1 and page.y <= part.y <= page.top
        for part in (page.stage, page.paper, page.examples, page.options_row, page.primary)
    )
    stage.app.go("gallery")
    yield lambda: model.rest.shelf.clips
    yield 0.3
    stage.touch(stage.find("ClipTile"))
    yield lambda: model.rest.opened is not None
    for step in ("clip", "gallery", "create"):
        seen[f"back_from_{step}"] = stage.app._key(None, 27)
        yield 0.2
    seen["open_page"] = stage.app.root.open


def importing(stage: Stage) -> Scene:
    """Import the bundle named ``source`` through the file page, use it, read it, delete it."""
    model, app = stage.model, stage.app
    yield lambda: model.rest.models
    app.go("models")
    yield 0.3
    stage.touch(app.pages["models"].importer)
    yield 0.3
    stage.find("FilePage").open(Path(stage.options["source"]).parent)
    yield 0.3
    name = Path(stage.options["source"]).name
    row = stage.find("Row", text=name)
    stage.touch(row)
    if row.icon == "folder":
        yield lambda: stage.find("FilePage").folder.name == name
        yield 0.3
        stage.touch(stage.find("Row", icon="check"))
    yield lambda: len(model.rest.models) == 2 or app.overlays.children[:1]
    yield 0.5
    stage.shot("imported")
    stage.result["models"] = [found.key for found in model.rest.models]
    stage.result["shown"] = [
        widget.text for layer in app.overlays.children for widget in layer.walk()
        if type(widget).__name__ == "Text"
    ]  # fmt: skip
    if len(model.rest.models) < 2:
        return
    cards = [w for w in app.pages["models"].list.children if type(w).__name__ == "ModelCard"]
    stage.touch(cards[0])  # children are listed from the last
    yield 0.3
    stage.touch(stage.find("Action", icon="check"))
    yield lambda: model.settings.model != "built-in"
    yield 0.3
    cards = [w for w in app.pages["models"].list.children if type(w).__name__ == "ModelCard"]
    stage.touch(cards[0])
    yield 0.3
    stage.touch(stage.find("Action", icon="delete"))
    yield 0.4
    stage.touch(stage.find("Question").yes)
    yield lambda: len(model.rest.models) == 1
    stage.result["left"] = [found.key for found in model.rest.models]


def resident() -> int:
    """Bytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def cycles(stage: Stage) -> Scene:
    """Draw and cancel ``count`` times by touch; frame gaps, cancel answers, memory."""
    model, page = stage.model, stage.page
    count, clips = int(stage.options["count"]), int(stage.options["clips"])
    yield lambda: model.drawing.state.model is not None
    model.drawing.set_prompt(model.drawing.state.model.choices.examples[0])
    yield 1.0
    gaps: list[float] = []
    for _ in range(clips):
        stage.touch(page.primary)
        yield lambda: stage.phase == "generating"
        first = len(stage.frame_times)
        yield lambda: stage.phase == "playing"
        times = stage.frame_times[first:]
        gaps += [b - a for a, b in itertools.pairwise(times)]
    answers: list[float] = []
    held: list[int] = []
    for i in range(count + 10):  # the first ten fill caches
        stage.touch(page.primary)
        yield lambda: stage.phase == "generating"
        yield 0.05 * (i % 4) / 4
        if stage.phase != "generating":
            continue
        touched = time.perf_counter()
        stage.touch(page.primary)
        yield lambda: stage.phase in ("idle", "playing")
        answers.append(time.perf_counter() - touched)
        held.append(resident())
    gc.collect()
    stage.result |= {"gaps": gaps, "answers": answers, "held": held}


SCENES = {
    "tour": tour,
    "states": states,
    "touches": touches,
    "rotate": rotate,
    "importing": importing,
    "cycles": cycles,
}


def main(arguments: list[str]) -> None:
    name, folder, size, *pairs = arguments
    width, _, height = size.partition("x")
    options = dict(pair.split("=", 1) for pair in pairs)
    stage = Stage(Path(folder), (int(width), int(height)), options)
    print(json.dumps(stage.play(SCENES[name])), flush=True)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)  # Kivy's log has taken sys.stderr
        raise
