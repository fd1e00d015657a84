"""The page's numbers against the Python runtime's, and what it refuses to run."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from chromium import ScriptError, Tab
from phone_page import ENCODED, PROMPT, SEED, latents_of

from hummingbird_runtime import TextToVideoPipeline
from hummingbird_runtime.noise import noise

pytestmark = [pytest.mark.web, pytest.mark.slow]


def relative(got: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(got - wanted.ravel()) / np.linalg.norm(wanted))


def test_initial_noise_is_pythons_bit_for_bit(phone: Tab) -> None:
    for seed, stream, sizes in ((7, 0, (26, 4, 8, 8)), (2**64 - 1, 3, (3, 4, 5, 6))):
        script = f"""import("/src/noise.js").then(({{ noise }}) =>
          {ENCODED}(noise("{seed}", {stream}, ...{json.dumps(sizes)})))"""
        got = base64.b64decode(phone.run(script))
        wanted = np.ascontiguousarray(noise(seed, stream, *sizes), "<f4").tobytes()
        assert hashlib.sha256(got).digest() == hashlib.sha256(wanted).digest()


def test_latents_equal_the_python_runtimes(
    phone: Tab, expected: tuple[np.ndarray, np.ndarray]
) -> None:
    error = relative(latents_of(phone, "/bundle/", PROMPT, seed=SEED), expected[0])
    print(f"\nrelative L2 difference of the latents to the Python runtime: {error:.2e}")
    assert error < 1e-3


def test_another_sampler_size_and_seed_agree_too(phone: Tab, dist: Path) -> None:
    """A float32 bundle with the consistency sampler, which takes fresh noise at every step."""
    seed = 2**64 - 3
    with TextToVideoPipeline.from_pretrained(dist / "tiny") as pipe:
        wanted = pipe("a red cat", seed=seed, num_frames=5, width=48, output_type="latent")
    got = latents_of(phone, "/tiny/", "a red cat", seed=str(seed), numFrames=5, width=48)
    assert relative(got, wanted) < 1e-6


def test_damaged_bundle_is_refused(phone: Tab) -> None:
    with pytest.raises(ScriptError, match=r"unet/model\.onnx: got SHA-256"):
        latents_of(phone, "/damaged/", "a ball")


def test_named_provider_that_cannot_run_is_an_error(phone: Tab) -> None:
    with pytest.raises(ScriptError, match="provider webgpu, got no WebGPU"):
        phone.run("""import("/src/client.js").then(({ Hummingbird }) =>
          Hummingbird.open({ bundle: "/tiny/", provider: "webgpu" }))""")


def test_measurement_is_what_the_benchmark_merges(phone: Tab, shots: Path) -> None:
    devices = pytest.importorskip("hummingbird_bench.devices")
    document = phone.run(
        """import("/src/measure.js").then(({ measureDevice }) =>
             measureDevice({ bundle: "/bundle/", provider: "wasm" }))""",
        wait_s=300,
    )
    found = devices.check_measurement(document, "page.json")
    assert [sample.phase for sample in found.samples] == ["cold", "first", *["steady"] * 3]
    assert found.device.kind == "browser"
    assert found.software.provider == "WebAssembly"
    merged = devices.merge([("page.json", "0" * 64, document)])
    assert len(merged["sources"]) == 1
    (shots / "device.json").write_text(json.dumps(document, indent=1) + "\n", "utf-8")
