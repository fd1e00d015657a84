"""The app without a screen, end to end: clips, interrupted runs, models, settings, measurement."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_bundle
from scripted_pipeline import order

from hummingbird_demo.app_model import AppModel
from hummingbird_demo.device import Device
from hummingbird_demo.measure import measure
from hummingbird_demo.orders import RunFile
from hummingbird_demo.settings import Settings, SettingsFile
from hummingbird_demo.view_model import Phase
from hummingbird_runtime import CancelToken, TextToVideoPipeline


class Desk(Device):
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def data_folder(self) -> Path:
        return self.folder / "data"

    def export_folder(self) -> Path:
        (self.folder / "out").mkdir(exist_ok=True)
        return self.folder / "out"

    def language(self) -> str:
        return "de_DE"

    def suffix(self) -> str:
        return ".png"


@pytest.fixture
def start(tmp_path, tiny_bundle_path):
    apps = []

    def run(folder: Path = tmp_path) -> AppModel:
        apps.append(AppModel(Desk(folder), bundle=tiny_bundle_path))
        apps[-1].start()
        return apps[-1]

    yield run
    for app in apps:
        assert app.close()


def until(app: AppModel, true, timeout: float = 20.0) -> None:
    end = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < end, (app.drawing.state.phase, app.rest.error)
        app.poll()
        time.sleep(0.002)


def draw(app: AppModel, prompt: str = "a red ball moving left") -> None:
    until(app, lambda: app.drawing.state.model is not None)
    app.drawing.set_prompt(prompt)
    app.drawing.generate()
    until(app, lambda: app.drawing.state.clip is not None)


def test_a_prompt_becomes_a_clip_in_the_gallery(start):
    app = start()
    draw(app)
    until(app, lambda: app.rest.shelf.clips)
    clip = app.rest.shelf.clips[0]
    app.open_clip(clip)
    until(app, lambda: app.rest.opened is not None)
    assert np.array_equal(app.rest.opened[1].frames, app.drawing.state.video.frames)
    app.delete_clip(clip)
    until(app, lambda: not app.rest.shelf.clips)
    assert app.rest.opened is None
    assert app.rest.toast.key == "deleted"


def test_the_clip_is_the_one_that_the_runtime_draws(start, tiny_bundle_path):
    app = start()
    until(app, lambda: app.drawing.state.model is not None)
    app.drawing.set_seed("11")
    draw(app)
    with TextToVideoPipeline.from_pretrained(tiny_bundle_path) as pipe:
        expected = pipe("a red ball moving left", seed=11)
    assert np.array_equal(app.drawing.state.video.frames, expected.frames)


def test_unknown_words_are_told(start):
    app = start()
    draw(app, "a zebra")
    assert "zebra" in " ".join(app.drawing.state.notices)


def test_saving_and_sharing_write_a_file_and_say_where(start, tmp_path):
    app = start()
    draw(app)
    app.save_clip(app.drawing.state.video)
    until(app, lambda: app.rest.toast is not None)
    saved = Path(str(app.rest.toast.values["path"]))
    assert saved.parent == tmp_path / "out"
    assert str(saved) in app.text(app.rest.toast)
    app.share_clip(app.drawing.state.video)
    until(app, lambda: app.rest.toast.key == "copied")


def test_a_failed_errand_is_an_error_to_show_and_can_be_left(start, tmp_path):
    app = start()
    app.import_model(tmp_path / "nothing.zip")
    assert app.rest.importing is not None
    until(app, lambda: app.rest.error is not None)
    assert app.rest.error.code == "import.not_a_bundle"
    assert app.rest.importing is None
    app.dismiss_error()
    assert app.rest.error is None


def test_an_imported_model_is_used_remembered_and_given_up_when_deleted(start, tmp_path):
    source = tiny_bundle.write(tmp_path / "source")
    app = start()
    until(app, lambda: app.rest.models)
    app.import_model(source)
    until(app, lambda: len(app.rest.models) == 2)
    model = app.rest.models[1]
    app.use_model(model)
    until(app, lambda: (tmp_path / "data" / "settings.json").is_file())
    assert app.variants(model) == app.rest.models  # both are called tiny
    assert app.close()
    again = start()
    until(again, lambda: again.drawing.state.model is not None)
    assert again.drawing.state.model.key == model.key
    again.delete_model(model)
    until(again, lambda: len(again.rest.models) == 1)
    assert again.drawing.state.model.built_in
    draw(again)


def test_an_app_that_was_closed_while_drawing_goes_on_with_the_clip(start, tmp_path):
    app = start()
    until(app, lambda: app.drawing.state.model is not None)
    app.drawing.choose(num_inference_steps=50, num_frames=12)
    app.drawing.set_prompt("a blue square moving up")
    app.drawing.set_seed("3")
    app.drawing.generate()
    until(app, lambda: app.drawing.state.frames is not None)
    assert app.close()
    again = start()
    until(again, lambda: again.drawing.state.phase is Phase.INTERRUPTED)
    found = again.drawing.state.interrupted
    assert 1 <= found.steps_done < 50 == found.steps
    again.drawing.go_on()
    until(again, lambda: again.drawing.state.clip is not None)
    bundle = again.drawing.state.model.folder
    with TextToVideoPipeline.from_pretrained(bundle) as pipe:
        whole = pipe("a blue square moving up", seed=3, num_inference_steps=50, num_frames=12)
    assert np.array_equal(again.drawing.state.video.frames, whole.frames)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"model": "x"}', '{"prompt": 1}'])
def test_a_damaged_trace_is_dropped(tmp_path, text):
    run_file = RunFile(tmp_path, lambda key: tmp_path)
    (tmp_path / "run.json").write_text(text)
    (tmp_path / "run.npz").write_bytes(b"x")
    assert run_file.find() is None
    assert list(tmp_path.iterdir()) == []


def test_a_trace_without_a_finished_step_is_dropped(tmp_path):
    run_file = RunFile(tmp_path, lambda key: tmp_path)
    run_file.begin(order())
    assert run_file.find() is None


def test_texts_come_in_the_language_of_the_device_or_the_setting(start):
    app = start()
    assert app.text("generate") == "Erzeugen"
    app.change_settings(language="ru")
    assert app.text("cancel") == "Отмена"


def test_what_was_typed_is_there_at_the_next_start(start):
    app = start()
    app.drawing.set_prompt("half a sentence")
    assert app.close()
    assert start().drawing.state.prompt == "half a sentence"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"theme": "pink"}', '{"language": 1}', '{"more": 1}', "[" * 99999]
)
def test_damaged_settings_are_moved_aside_and_told(tmp_path, text):
    path = tmp_path / "settings.json"
    path.write_text(text)
    file = SettingsFile(path)
    assert file.read() == Settings()
    assert file.damaged
    assert path.with_suffix(".damaged").read_text() == text
    file.write(replace(Settings(), theme="dark"))
    assert file.read().theme == "dark"
    assert not file.damaged


def test_a_memory_warning_closes_an_idle_model_and_the_next_clip_draws(start):
    app = start()
    draw(app)
    app.memory_warning()
    assert app.rest.toast.key == "memory_released"
    draw(app)


def test_the_measurement_is_what_bench_devices_merges(tiny_bundle_path, tmp_path):
    devices = pytest.importorskip("hummingbird_bench.devices")
    told = []
    found = measure(
        tiny_bundle_path, report=lambda i, n: told.append((i, n)), cancel=CancelToken(), steady=1
    )
    text = json.loads(json.dumps(found.document, allow_nan=False))
    checked = devices.check_measurement(text, "measurement")
    assert [sample.phase for sample in checked.samples] == ["cold", "first", "steady"]
    assert checked.clip.steps == 4
    assert checked.latents_sha256 is not None
    assert found.clip_s > 0
    assert told[-1] == (3, 3)


def test_the_app_measures_and_writes_the_file(start, tmp_path):
    app = start()
    until(app, lambda: app.drawing.state.model is not None)
    app.measure()
    until(app, lambda: app.rest.measurement is not None)
    assert app.rest.measuring is None
    app.save_measurement()
    until(app, lambda: app.rest.toast is not None and app.rest.toast.key == "saved_to")
    document = json.loads(Path(str(app.rest.toast.values["path"])).read_text(encoding="utf-8"))
    assert document["schema"] == "hummingbird-device/1"


def test_everything_but_the_screens_is_free_of_kivy():
    script = (
        "import pkgutil, importlib, sys, hummingbird_demo\n"
        "for found in pkgutil.iter_modules(hummingbird_demo.__path__):\n"
        "    if found.name not in ('ui', 'android'):\n"
        "        importlib.import_module('hummingbird_demo.' + found.name)\n"
        "print(sorted(m for m in sys.modules if m.split('.')[0] in ('kivy', 'PIL', 'av', 'torch')))"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
