"""The page on WebGPU, on the software driver that comes with Chromium: numbers, not times."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from chromium import Browser, ScriptError, Tab, chromium, find_chromium

from hummingbird_runtime import TextToVideoPipeline

pytestmark = [pytest.mark.web, pytest.mark.slow]

FLAGS = (
    "--enable-unsafe-webgpu",
    "--use-webgpu-adapter=swiftshader",
    "--enable-features=Vulkan",
)


@pytest.fixture(scope="module")
def gpu_browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if find_chromium() is None:
        pytest.skip("no chromium on this machine")
    with chromium(tmp_path_factory.mktemp("profile"), *FLAGS) as running:
        yield running


@pytest.fixture(scope="module")
def tab(gpu_browser: Browser, server: Any) -> Tab:
    tab = gpu_browser.tab()
    tab.open(f"{server.url}bundle/manifest.json")
    if not tab.run("navigator.gpu?.requestAdapter().then(Boolean)"):
        pytest.skip("this chromium has no software WebGPU adapter")
    return tab


def run(tab: Tab, bundle: str, provider: str, **options: Any) -> dict[str, Any]:
    """Latents and engine of one run through the page's module."""
    script = f"""(async () => {{
      const {{ Hummingbird }} = await import("/src/client.js");
      const bird = await Hummingbird.open({{
        bundle: {json.dumps(bundle)}, provider: {json.dumps(provider)} }});
      let latents;
      const options = {{ outputType: "latent", ...{json.dumps(options)} }};
      for await (const event of bird.stream("a red ball", options)) {{
        if (event.type === "done") latents = event.latents;
      }}
      bird.close();
      return {{ latents: [...latents], engine: bird.info.engine }};
    }})()"""
    found: dict[str, Any] = tab.run(script, wait_s=400)
    return found


def test_automatic_choice_passes_a_software_adapter_by_and_says_so(tab: Tab) -> None:
    engine = run(tab, "/tiny/", "auto", numFrames=2)["engine"]
    assert engine["provider"] == "wasm"
    assert "is a software adapter" in engine["reason"]


def test_one_pass_of_the_built_in_network_agrees_with_python(tab: Tab) -> None:
    sizes = {"num_frames": 2, "height": 32, "width": 32, "num_inference_steps": 1}
    with TextToVideoPipeline.from_pretrained() as pipe:
        wanted = pipe("a red ball", seed=5, output_type="latent", **sizes)
    found = run(
        tab, "/bundle/", "webgpu", seed=5, numFrames=2, height=32, width=32, numInferenceSteps=1
    )
    print(f"\n{found['engine']['label']}: {found['engine']['nodes']}")
    got = np.array(found["latents"], np.float32)
    error = np.linalg.norm(got - wanted.ravel()) / np.linalg.norm(wanted)
    print(f"relative L2 difference of the latents to the Python runtime: {error:.2e}")
    assert error < 1e-3
    assert found["engine"]["provider"] == "webgpu"
    for role, nodes in found["engine"]["nodes"].items():
        others = sum(nodes.values()) - nodes["WebGpuExecutionProvider"]
        # sizes and indices are computed on the processor; the arithmetic is not
        assert others <= 0.1 * nodes["WebGpuExecutionProvider"], role


def test_page_says_what_runs_and_keeps_its_files(gpu_browser: Browser, server: Any) -> None:
    page = gpu_browser.tab()
    page.open(server.url)
    status = "document.querySelector('#status').textContent"
    page.wait(f"{status}.includes('works offline')", wait_s=120)
    page.run("""(() => { const choice = document.querySelector("#provider");
      choice.value = "webgpu"; choice.dispatchEvent(new Event("change")); })()""")
    page.wait(f"/^WebGPU, .*works offline$/.test({status})", wait_s=200)
    page.run("document.querySelector('#about-open').click()")
    page.wait("/unet\\d+ nodes.*WebGpu/.test(document.querySelector('#facts').textContent)")
    binary = "/vendor/ort-wasm-simd-threaded.asyncify.wasm"
    assert page.run(f"caches.match('{binary}').then(Boolean)")
    assert not page.problems
    page.close()


def test_threads_that_the_page_cannot_have_are_refused(tab: Tab) -> None:
    with pytest.raises(ScriptError, match="threads, got 99"):
        tab.run("""import("/src/client.js").then(({ Hummingbird }) =>
          Hummingbird.open({ bundle: "/tiny/", provider: "wasm", threads: 99 }))""")


def test_nothing_was_logged_as_an_error(tab: Tab) -> None:
    assert not [text for text in tab.problems if "favicon" not in text]
