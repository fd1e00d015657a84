"""Headless Chromium driven through the DevTools protocol over a pipe: no driver package, no port.

``Browser`` starts it and reads its messages; ``Tab`` is one page on an emulated device. Everything
that a page or a worker of it logs as an error is collected in ``Tab.problems``.
"""

from __future__ import annotations

import base64
import json
import os
import queue
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--remote-debugging-pipe",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--mute-audio",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
    "--enable-precise-memory-info",
)


def find_chromium() -> str | None:
    """Path of a Chromium or Chrome on this machine."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((found for name in names if (found := shutil.which(name))), None)


class ScriptError(AssertionError):
    """JavaScript in the page threw, or the browser refused a command."""


class Browser:
    """One process with a fresh profile."""

    def __init__(self, profile: Path, *flags: str) -> None:
        program = find_chromium()
        assert program, "look for chromium first"
        to_read, self._to_write = os.pipe()
        self._from_read, to_answer = os.pipe()

        # the browser reads commands from descriptor 3 and answers on 4
        command = f'exec "$@" 3<&{to_read} 4>&{to_answer}'
        self.process = subprocess.Popen(
            ["bash", "-c", command, "bash", program, *FLAGS, f"--user-data-dir={profile}", *flags],
            pass_fds=(to_read, to_answer),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(to_answer)
        self._answers: dict[int, queue.Queue[dict[str, Any]]] = {}
        self._next = 0
        self.tabs: dict[str, Tab] = {}
        threading.Thread(target=self._read, daemon=True).start()

    def send(self, method: str, *, session: str = "", wait_s: float = 60, **params: Any) -> Any:
        """One command and its result."""
        self._next += 1
        number, answer = self._next, queue.Queue[dict[str, Any]]()
        self._answers[number] = answer
        message = {"id": number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self._to_write, json.dumps(message).encode() + b"\0")
        found = answer.get(timeout=wait_s)
        if "error" in found:
            raise ScriptError(f"{method}: {found['error']}")
        return found["result"]

    def post(self, method: str, *, session: str, **params: Any) -> None:
        """One command whose result nobody waits for; may be called from the reading thread."""
        self._next += 1
        message = {"id": self._next, "method": method, "params": params, "sessionId": session}
        os.write(self._to_write, json.dumps(message).encode() + b"\0")

    def tab(self, **device: Any) -> Tab:
        """A new page; see ``Tab.emulate`` for the device."""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        tab = Tab(self, target, session)
        self.tabs[session] = tab
        for method in ("Page.enable", "Runtime.enable", "Log.enable", "Network.enable"):
            tab.send(method)
        follow = {"autoAttach": True, "waitForDebuggerOnStart": False, "flatten": True}
        tab.send("Target.setAutoAttach", **follow)
        tab.emulate(**device)
        return tab

    def close(self) -> None:
        """End the process."""
        os.close(self._to_write)
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _read(self) -> None:
        rest = b""
        while data := os.read(self._from_read, 1 << 16):
            *messages, rest = (rest + data).split(b"\0")
            for text in messages:
                message = json.loads(text)
                if "id" in message:
                    if answer := self._answers.pop(message["id"], None):
                        answer.put(message)
                elif tab := self.tabs.get(message.get("sessionId", "")):
                    tab.hear(message["method"], message["params"])
        os.close(self._from_read)


class Tab:
    """One page, with the workers that belong to it."""

    def __init__(self, browser: Browser, target: str, session: str) -> None:
        self._browser, self._target, self._session = browser, target, session
        self.problems: list[str] = []
        self.requests: list[str] = []
        self._workers: list[str] = []

    def send(self, method: str, *, wait_s: float = 60, **params: Any) -> Any:
        """One command for this page."""
        return self._browser.send(method, session=self._session, wait_s=wait_s, **params)

    def emulate(
        self,
        *,
        width: int = 1280,
        height: int = 800,
        scale: float = 1,
        mobile: bool = False,
        dark: bool = False,
        still: bool = False,
    ) -> None:
        """Be another device: size in CSS pixels, device pixels each, touch, colours, motion."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=mobile,
        )
        self.send("Emulation.setTouchEmulationEnabled", enabled=mobile)
        features = {
            "prefers-color-scheme": "dark" if dark else "light",
            "prefers-reduced-motion": "reduce" if still else "no-preference",
        }
        self.send(
            "Emulation.setEmulatedMedia",
            features=[{"name": name, "value": value} for name, value in features.items()],
        )

    def open(self, url: str) -> None:
        """Go to an address and wait until the document is there."""
        found = self.send("Page.navigate", url=url)
        if "errorText" in found:
            raise ScriptError(f"{url}: {found['errorText']}")
        self.wait("document.readyState === 'complete'")

    def reload(self) -> None:
        """Load again, cache allowed."""
        self.run("window.leaving = true")
        self.send("Page.reload")
        self.wait("!window.leaving && document.readyState === 'complete'")

    def run(self, script: str, *, wait_s: float = 60) -> Any:
        """Value of an expression; promises are awaited; plain JSON values only."""
        found = self.send(
            "Runtime.evaluate",
            wait_s=wait_s,
            expression=script,
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,
        )
        if "exceptionDetails" in found:
            details = found["exceptionDetails"]
            raise ScriptError(details.get("exception", {}).get("description", details["text"]))
        return found["result"].get("value")

    def wait(self, condition: str, *, wait_s: float = 60) -> None:
        """Poll until an expression is true."""
        end = time.monotonic() + wait_s
        last: object = None
        while time.monotonic() < end:
            try:
                last = self.run(condition)
            except ScriptError as error:  # between two documents
                last = error
            if last is True:
                return
            time.sleep(0.05)
        raise ScriptError(f"after {wait_s} s: {condition} is {last}")

    def tap(self, selector: str) -> None:
        """Touch the middle of an element, scrolled into view."""
        x, y = self.run(
            f"""(() => {{ const e = document.querySelector({json.dumps(selector)});
            e.scrollIntoView({{block: "nearest", inline: "nearest"}});
            const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2];
            }})()"""
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def offline(self, on: bool) -> None:
        """Cut the page and its workers, the service worker too, off the network."""
        state = {
            "offline": on,
            "latency": 0,
            "downloadThroughput": -1,
            "uploadThroughput": -1,
        }
        self.send("Network.emulateNetworkConditions", **state)

    def screenshot(self, path: Path) -> Path:
        """What the page shows, as PNG."""
        found = self.send("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(found["data"]))
        return path

    def accessible_names(self) -> dict[str, list[str]]:
        """Names by role, without spaces at their ends, of all that the accessibility tree shows."""
        nodes = self.send("Accessibility.getFullAXTree")["nodes"]
        names: dict[str, list[str]] = {}
        for node in nodes:
            if not node.get("ignored"):
                role = node.get("role", {}).get("value", "")
                names.setdefault(role, []).append(node.get("name", {}).get("value", "").strip())
        return names

    def close(self) -> None:
        """Close the page."""
        self._browser.send("Target.closeTarget", targetId=self._target)

    def hear(self, method: str, params: dict[str, Any]) -> None:
        """Collect what went wrong; called on the reading thread."""
        loud = ("error", "warning", "assert")
        if method == "Runtime.consoleAPICalled" and params["type"] in loud:
            words = [str(a.get("value", a.get("description"))) for a in params["args"]]
            self.problems.append(f"console.{params['type']}: {' '.join(words)}")
        elif method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            text = details.get("exception", {}).get("description", details["text"])
            self.problems.append(f"uncaught: {text}")
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            entry = params["entry"]
            self.problems.append(f"log: {entry['text']} {entry.get('url', '')}")
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Target.attachedToTarget":
            worker = params["sessionId"]
            self._workers.append(worker)
            self._browser.tabs[worker] = self  # its messages are this page's
            for command in ("Runtime.enable", "Log.enable", "Network.enable"):
                self._browser.post(command, session=worker)


@contextmanager
def chromium(profile: Path, *flags: str) -> Iterator[Browser]:
    """A browser that is ended at the end of the block."""
    browser = Browser(profile, *flags)
    try:
        yield browser
    finally:
        browser.close()
