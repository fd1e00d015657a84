"""The complete programs of docs/embedding.md, run as they are printed there."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import fake_graphs
import numpy as np
import pytest
from markdown_page import Page

from hummingbird_runtime import TextToVideoPipeline

ROOT = Path(__file__).parents[2]
PROGRAMS = {
    block.mark.removeprefix("program: "): block.text
    for block in Page(ROOT / "docs" / "embedding.md").blocks
    if block.mark.startswith("program: ")
}
PROMPT = "a red ball moving left"


def names_of(program: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": program}
    exec(compile(PROGRAMS[program], f"{program} of embedding.md", "exec"), names)
    return names


def test_every_program_is_there() -> None:
    assert set(PROGRAMS) == {"service", "kivy", "android", "web page", "web script"}


def asked(server: Any, query: str) -> tuple[int, str, bytes]:
    url = f"http://127.0.0.1:{server.server_port}{query}"
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read()


def test_the_service_answers_with_clips_and_typed_errors(
    tiny_bundle_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def slow(feeds: dict[str, Any]) -> Any:
        entered.set()
        assert go_on.wait(60)
        return whole(feeds)

    backend = fake_graphs.FakeBackend()
    whole = backend.functions["unet"]
    backend.functions["unet"] = slow
    with (
        TextToVideoPipeline.from_pretrained(tiny_bundle_path, backend=backend) as pipe,
        names_of("service")["make_server"](pipe, 0) as server,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        answers: list[tuple[int, str, bytes]] = []
        first = threading.Thread(
            target=lambda: answers.append(asked(server, "/clip?prompt=a+red+ball&seed=3"))
        )
        first.start()
        assert entered.wait(60)
        status, kind, body = asked(server, "/clip?prompt=a+red+ball")
        assert (status, kind) == (503, "application/json")
        assert json.loads(body)["code"] == "runtime.busy"
        go_on.set()
        first.join()
        ((status, kind, body),) = answers
        assert (status, kind) == (200, "image/apng")
        assert body.startswith(b"\x89PNG")
        assert body != asked(server, "/clip?prompt=a+red+ball&seed=4")[2]
        for query in ("/clip", "/clip?prompt=a+ball&seed=x", "/clip?prompt=a+ball&seed=-1"):
            status, kind, body = asked(server, query)
            assert (status, kind) == (400, "application/json"), query
            assert json.loads(body)["code"].startswith(("request.", "prompt."))
        assert asked(server, "/other")[0] == 404
        server.shutdown()
    assert "Traceback" not in capfd.readouterr().err


# Runs service.py of the page; the second argument is the step after which it kills itself, or 0.
SERVICE = """
import os, signal, sys
from pathlib import Path
names = {"__name__": "service"}
exec(Path(sys.argv[1], "service.py").read_text(), names)
told = names["say"]
def say(folder, **state):
    told(folder, **state)
    if state.get("step") == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
names["say"] = say
names["run"](Path(sys.argv[1]), "clip.npz")
"""


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_the_android_service_goes_on_where_it_was_killed(
    tmp_path: Path, tiny_bundle_path: Path
) -> None:
    def service(kill_after: int = 0) -> int:
        command = [sys.executable, "-c", SERVICE, str(tmp_path), str(kill_after)]
        return subprocess.run(command, check=False, timeout=120).returncode

    def state() -> dict[str, Any]:
        return json.loads((tmp_path / "state.json").read_text())

    (tmp_path / "service.py").write_text(PROGRAMS["android"])
    job = {"prompt": PROMPT, "seed": 5, "bundle": str(tiny_bundle_path)}
    (tmp_path / "job.json").write_text(json.dumps(job))
    assert service(2) == -signal.SIGKILL
    assert state() == {"state": "running", "step": 2, "steps": 4}
    assert service() == 0
    assert state() == {"state": "done"}
    assert not (tmp_path / "run.npz").exists()
    with np.load(tmp_path / "clip.npz") as stored:
        frames = stored["frames"]
    with TextToVideoPipeline.from_pretrained(tiny_bundle_path) as pipe:
        np.testing.assert_array_equal(pipe(PROMPT, seed=5).frames, frames)
    (tmp_path / "job.json").write_text(json.dumps({**job, "prompt": 7}))
    assert service() == 0
    assert (state()["state"], state()["code"]) == ("failed", "prompt.type")


# Presses the button of the page's screen, waits for the clip, then presses twice and cancels.
SCREEN = """
import json, os, sys
os.environ.update(SDL_VIDEODRIVER="offscreen", LIBGL_ALWAYS_SOFTWARE="1", KIVY_NO_ARGS="1",
                  KIVY_NO_CONSOLELOG="1", KIVY_NO_FILELOG="1")
from pathlib import Path
names = {"__name__": "screen"}
exec(Path(sys.argv[1]).read_text(), names)
from kivy.clock import Clock
class Test(names["App"]):
    def build(self):
        return names["ClipScreen"](sys.argv[2])
app, seen = Test(), {"texts": []}
def watch(_):
    screen = app.root
    seen["texts"].append(screen.status.text)
    if screen.token is None and "size" not in seen:
        if screen.shown < 3:
            return
        seen["size"], seen["said"] = list(screen.picture.texture.size), screen.status.text
        screen.press(None)
        seen["while"] = screen.button.text
        screen.press(None)
    elif screen.token is None:
        seen["after"] = screen.status.text
        app.stop()
def begin(_):
    app.root.button.dispatch("on_release")
    Clock.schedule_interval(watch, 0.05)
Clock.schedule_once(begin, 0)
Clock.schedule_once(lambda _: app.stop(), 90)
app.run()
print(json.dumps(seen))
"""


@pytest.mark.display
def test_the_screen_draws_plays_and_cancels(tmp_path: Path, tiny_bundle_path: Path) -> None:
    if importlib.util.find_spec("kivy") is None:  # importing it would write into the home folder
        pytest.skip("the extra demo is not installed")
    driver, program = tmp_path / "driver.py", tmp_path / "screen.py"
    driver.write_text(SCREEN)
    program.write_text(PROGRAMS["kivy"])
    done = subprocess.run(
        [sys.executable, str(driver), str(program), str(tiny_bundle_path)],
        capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, "KIVY_HOME": str(tmp_path / "kivy"), "HOME": str(tmp_path)},
    )  # fmt: skip
    if "Unable to find any valuable Window provider" in done.stderr + done.stdout:
        pytest.skip("no OpenGL driver, not even a software one")
    assert done.returncode == 0, done.stderr[-2000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["said"] == "done"
    assert seen["size"] == [32, 32]  # frames of the clip, not of the preview
    assert seen["while"] == "Cancel"
    assert "cancelled" in seen["after"]


@pytest.mark.parametrize(
    ("program", "file"), [("web page", "index.html"), ("web script", "embed.js")]
)
def test_the_web_page_is_the_one_that_is_tested(program: str, file: str) -> None:
    assert PROGRAMS[program] == (ROOT / "mobile_demo" / "web" / "embed" / file).read_text("utf-8")
