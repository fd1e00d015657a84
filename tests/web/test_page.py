"""The page in headless Chromium as a phone: the clip, the times, offline, names, sizes, errors.

Screenshots go to the folder that HUMMINGBIRD_SCREENSHOTS names, else to a temporary one.
"""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import Browser, Tab
from phone_page import BENIGN, IDLE, PHONE, PROMPT, READY, SEED, STATUS, draw, open_page

pytestmark = [pytest.mark.web, pytest.mark.slow]


def test_clip_is_drawn_within_five_seconds(
    phone: Tab, shots: Path, record_property: pytest.RecordProperty
) -> None:
    phone.screenshot(shots / "web-phone-ready.png")
    times: list[float] = []
    while len(times) < 5 and (not times or min(times) > 5.0):  # other programs may run beside it
        times.append(draw(phone))
    record_property("seconds", times)
    print(f"\nclip in headless Chromium, {phone.run(STATUS)}: {times} s")
    phone.screenshot(shots / "web-phone.png")
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if min(times) > 5.0 and load > cores + 3:  # the page's own two threads and the browser
        pytest.skip(f"{min(times)} s, with a load of {load:.1f} on {cores} cores: no measurement")
    assert min(times) <= 5.0


def test_saved_png_holds_the_frames(
    phone: Tab, browser: Browser, tmp_path: Path, expected: tuple[np.ndarray, np.ndarray]
) -> None:
    image_module = pytest.importorskip("PIL.Image")
    path = saved(phone, browser, tmp_path, "#save-png")
    assert path.name == f"{PROMPT.replace(' ', '-')}-{SEED}.png"
    image = image_module.open(io.BytesIO(path.read_bytes()))
    assert (image.n_frames, image.size, image.info["duration"]) == (26, (512, 512), 125.0)
    step = 512 // expected[1].shape[1]  # files are enlarged by a whole factor
    frames = []
    for index in range(26):
        image.seek(index)
        frames.append(np.asarray(image.convert("RGB"))[::step, ::step])
    # float32 sums in another order may fall on the other side of a rounding edge
    difference = np.abs(np.stack(frames).astype(int) - expected[1])
    assert difference.max() <= 1
    assert (difference == 0).mean() > 0.999


def test_saved_video_plays(phone: Tab, browser: Browser, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    path = saved(phone, browser, tmp_path, "#save-video")
    assert path.suffix in (".webm", ".mp4")
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert frames[0].shape == (512, 512, 3)
    assert len(frames) >= 20  # a recorder may drop one of 26 on a busy machine
    red, green, _ = frames[len(frames) // 2].reshape(-1, 3).T.astype(int)
    assert 0.02 < ((red > 120) & (green < 90)).mean() < 0.3, "a small red circle"


def saved(tab: Tab, browser: Browser, folder: Path, button: str) -> Path:
    browser.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    if tab.run("document.querySelector('.transport.waiting') !== null"):  # no clip yet
        draw(tab)
    tab.tap(button)
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for path in folder.iterdir():
            if path.suffix in (".png", ".webm", ".mp4") and path.stat().st_size:
                return path
        time.sleep(0.1)
    raise AssertionError(f"nothing saved: {tab.run(STATUS)}")


def test_cancelling_is_answered_and_the_page_draws_again(phone: Tab) -> None:
    phone.tap("#go")
    phone.wait(f"!({IDLE})")
    time.sleep(0.3)
    begin = time.monotonic()
    phone.tap("#go")
    phone.wait(IDLE)
    assert time.monotonic() - begin < 5
    assert phone.run(STATUS) == "Cancelled"
    draw(phone)


def test_words_outside_the_vocabulary_are_named(phone: Tab, shots: Path) -> None:
    phone.run("""(() => { const field = document.querySelector("#prompt");
      field.value = "a small red cat surfing to the left";
      field.dispatchEvent(new Event("input")); })()""")
    phone.wait("document.querySelector('#hint').textContent.includes('cat, surfing')")
    phone.screenshot(shots / "web-phone-words.png")
    phone.tap("#examples button")
    phone.wait("document.querySelector('#hint').textContent === ''")
    phone.wait(IDLE, wait_s=120)


@pytest.mark.parametrize(
    ("name", "device"),
    [
        ("phone-small", {"width": 320, "height": 568, "scale": 2}),
        ("phone", {}),
        ("phone-dark", {"dark": True}),
        ("phone-landscape", {"width": 800, "height": 360}),
        ("tablet", {"width": 768, "height": 1024, "scale": 1}),
        ("desktop", {"width": 1280, "height": 800, "scale": 1, "mobile": False}),
    ],
)
def test_every_size_shows_the_clip_and_never_scrolls_sideways(
    phone: Tab, shots: Path, name: str, device: dict[str, Any]
) -> None:
    phone.emulate(**(PHONE | device))
    phone.run("scrollTo(0, 0)")
    time.sleep(0.3)
    phone.screenshot(shots / f"web-{name}.png")
    width, content, screen, button = phone.run("""(() => {
      const box = (id) => document.querySelector(id).getBoundingClientRect();
      const screen = box("#screen"), button = box("#go");
      return [innerWidth, document.scrollingElement.scrollWidth,
        [screen.left, screen.right, screen.width], [button.left, button.right, button.bottom]];
    })()""")
    assert content <= width
    assert screen[0] >= 0
    assert screen[1] <= width
    assert screen[2] >= 200
    assert button[1] <= width
    assert button[2] <= (PHONE | device)["height"] or name == "phone-small"
    phone.emulate(**PHONE)


def test_dark_and_light_follow_the_system_and_the_button(phone: Tab) -> None:
    colour = "getComputedStyle(document.documentElement).backgroundColor"
    light = phone.run(colour)
    phone.emulate(**PHONE, dark=True)
    dark = phone.run(colour)
    assert light != dark
    phone.run("document.querySelector('#theme').click()")
    assert phone.run(colour) == light
    phone.run("document.querySelector('#theme').click()")
    assert phone.run(colour) == dark
    phone.run("localStorage.clear(); delete document.documentElement.dataset.theme")
    phone.emulate(**PHONE)


def test_everything_that_can_be_used_has_a_name(phone: Tab, shots: Path) -> None:
    phone.run("document.querySelector('#settings-open').click()")
    phone.screenshot(shots / "web-phone-settings.png")
    page = phone.accessible_names()
    phone.run("document.querySelector('#settings-open').click()")
    phone.run("document.querySelector('#about-open').click()")
    phone.wait("document.querySelector('#licence').textContent.length > 1000")
    phone.screenshot(shots / "web-phone-about.png")
    dialog = phone.accessible_names()
    phone.run("document.querySelector('#about-close').click()")
    for names in (page, dialog):
        for role in ("button", "slider", "textbox", "combobox", "dialog", "image", "progressbar"):
            assert all(names.get(role, [])), (role, names.get(role))
    assert {"Draw", "Pause", "Save as video", "Another seed", "Settings"} <= set(page["button"])
    assert any(name.startswith("Clip: ") for name in page["image"])
    assert page["slider"][-3:] == ["Steps", "Guidance", "Frames"]
    assert dialog["dialog"] == ["About"]


def test_text_is_legible_on_its_background(phone: Tab) -> None:
    """Contrast of WCAG 2.2: 4.5 for text, in both colour schemes."""
    for dark in (False, True):
        phone.emulate(**PHONE, dark=dark)
        colours = phone.run("""(() => { const style = getComputedStyle(document.documentElement);
          const value = (name) => style.getPropertyValue(`--${name}`).trim();
          return [["text", "background"], ["muted", "background"], ["muted", "surface"],
            ["muted", "stage"], ["on-accent", "accent"], ["on-soft", "soft"],
            ["danger", "background"], ["accent", "surface"]].map((p) => [...p, ...p.map(value)]);
        })()""")
        for front, back, a, b in colours:
            lights = sorted((luminance(a), luminance(b)))
            assert (lights[1] + 0.05) / (lights[0] + 0.05) >= 4.5, (front, back, dark)
    phone.emulate(**PHONE)


def luminance(code: str) -> float:
    values = [int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_bad_seed_is_refused_before_anything_runs(phone: Tab) -> None:
    phone.run("document.querySelector('#seed').value = '99999999999999999999'")
    phone.tap("#go")
    phone.wait(f"{STATUS}.includes('request.seed')")
    assert phone.run(STATUS).count("give a whole number") == 1
    phone.run("document.querySelector('#seed').value = '7'")


def test_reduced_motion_shows_a_still_clip(browser: Browser, server: Any) -> None:
    tab = open_page(browser, server.url, still=True)
    draw(tab)
    assert tab.run("document.querySelector('#play').getAttribute('aria-label')") == "Play"
    tab.close()


def test_page_of_its_own_embeds_a_clip(browser: Browser, server: Any) -> None:
    tab = browser.tab(**PHONE)
    tab.open(f"{server.url}embed/")
    tab.wait(f"{STATUS}.startsWith('drawn on WebAssembly')", wait_s=120)
    assert not [text for text in tab.problems if not BENIGN.search(text)]
    tab.close()


def test_page_says_what_is_wrong_with_its_bundle(
    browser: Browser, server: Any, node: str, dist: Path, tmp_path: Path, shots: Path
) -> None:
    broken = tmp_path / "dist"
    shutil.copytree(dist, broken)
    graph = broken / "bundle" / "unet" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"\0")
    other = type(server)(node, broken)
    tab = browser.tab(**PHONE)
    tab.open(other.url)
    tab.wait(f"{STATUS}.includes('bundle.hash_mismatch')")
    assert "unet/model.onnx" in tab.run(STATUS)
    tab.screenshot(shots / "web-phone-damaged.png")
    other.stop()
    tab.close()


class PlainHost(http.server.SimpleHTTPRequestHandler):
    """A static host that sends no header of its own, as most do."""

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_plain_host_gets_threads_from_the_service_worker(browser: Browser, dist: Path) -> None:
    handler = functools.partial(PlainHost, directory=str(dist))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as host:
        threading.Thread(target=host.serve_forever, daemon=True).start()
        tab = browser.tab(**PHONE)
        tab.open(f"http://localhost:{host.server_port}/")
        tab.wait(f"{READY} && crossOriginIsolated", wait_s=120)
        cores = tab.run("navigator.hardwareConcurrency")
        if cores > 1:
            assert f"{min(cores, 8)} threads" in tab.run(STATUS)
        tab.close()
        host.shutdown()


def test_works_without_a_network_after_the_first_load(
    browser: Browser, server: Any, node: str, dist: Path
) -> None:
    own = type(server)(node, dist)
    tab = open_page(browser, own.url)
    tab.wait(f"{STATUS}.includes('works offline')", wait_s=120)
    names = tab.run("caches.keys()")
    digest = hashlib.sha256(
        tab.run("fetch('/bundle/manifest.json').then((found) => found.text())").encode()
    ).hexdigest()
    assert any(name.startswith(f"hummingbird-{digest[:16]}-") for name in names)
    own.stop()
    tab.reload()
    tab.wait(READY, wait_s=120)
    draw(tab)
    assert not [text for text in tab.problems if not BENIGN.search(text)]
    tab.close()
