"""The page built once, its server, and a browser; skipped with a reason where one is absent."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny_bundle
from chromium import Browser, Tab, chromium, find_chromium
from phone_page import BENIGN, PROMPT, SEED, open_page

from hummingbird_runtime import TextToVideoPipeline

WEB = Path(__file__).parents[2] / "mobile_demo" / "web"


@pytest.fixture(scope="session")
def node() -> str:
    """The program, at least version 20."""
    program = shutil.which("node")
    if program is None:
        pytest.skip("no node on this machine")
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    if int(version.stdout.lstrip("v").split(".")[0]) < 20:
        pytest.skip(f"node {version.stdout.strip()}, the page's tools need 20")
    return program


@pytest.fixture(scope="session")
def packages(node: str) -> Path:
    """node_modules of the page."""
    folder = WEB / "node_modules"
    if not (folder / "onnxruntime-web").is_dir():
        pytest.skip("onnxruntime-web is not installed: npm ci in mobile_demo/web")
    return folder


@pytest.fixture(scope="session")
def dist(node: str, packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built page, with a bundle of another sampler and a damaged one beside its own."""
    out = tmp_path_factory.mktemp("web") / "dist"
    subprocess.run([node, str(WEB / "build.js"), "--out", str(out)], check=True)
    tiny_bundle.write(out / "tiny")
    shutil.copytree(out / "tiny", out / "damaged")
    graph = out / "damaged" / "unet" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"\0")
    return out


class Server:
    """The page's own server on a free port; it can be taken away."""

    def __init__(self, node: str, folder: Path) -> None:
        command = [node, str(WEB / "serve.js"), "--port", "0", "--dir", str(folder)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout
        self.url = self._process.stdout.readline().strip()

    def stop(self) -> None:
        """Nothing answers from now on; twice is fine."""
        self._process.terminate()
        self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()


@pytest.fixture(scope="session")
def server(node: str, dist: Path) -> Iterator[Server]:
    running = Server(node, dist)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if find_chromium() is None:
        pytest.skip("no chromium on this machine")
    with chromium(tmp_path_factory.mktemp("profile")) as running:
        yield running


@pytest.fixture(scope="module")
def phone(browser: Browser, server: Server) -> Tab:
    """The page, opened on a phone."""
    return open_page(browser, server.url)


@pytest.fixture(autouse=True)
def no_errors(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever a test does, the page and its workers log no error and no warning."""
    yield
    if "phone" in request.fixturenames:
        problems = request.getfixturevalue("phone").problems
        assert not [text for text in problems if not BENIGN.search(text)]


@pytest.fixture(scope="session")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots go: the folder that HUMMINGBIRD_SCREENSHOTS names, else a temporary one."""
    named = os.environ.get("HUMMINGBIRD_SCREENSHOTS")
    folder = Path(named) if named else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def expected() -> tuple[np.ndarray, np.ndarray]:
    """The Python runtime's latents and frames of the same request."""
    with TextToVideoPipeline.from_pretrained() as pipe:
        latents = pipe(PROMPT, seed=SEED, output_type="latent")
        return latents, pipe(PROMPT, seed=SEED).frames
