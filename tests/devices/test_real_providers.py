"""Plug-in providers on whatever they find here, against the CPU provider.

`make test-devices` installs the plug-ins and points Vulkan to a software driver where Chromium
brings one. Correctness only: a GPU in software is hundreds of times slower than the CPU.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hummingbird_runtime import TextToVideoPipeline
from hummingbird_runtime.placement import count
from hummingbird_runtime.session import CPU, machine

pytestmark = pytest.mark.devices

CALL = {"seed": 3, "num_frames": 4, "output_type": "latent"}
PROMPT = "a large green square moving to the right on a black background"
TOLERANCE = 1e-3


def needs(provider: str) -> None:
    here = machine()
    if provider in here.broken:
        pytest.skip(here.broken[provider])
    if not any(device.provider == provider for device in here.devices):
        pytest.skip(f"{provider} is not installed or found no device")


def drawn(providers: list[str]) -> tuple[np.ndarray, dict[str, int]]:
    """The final latent, and the U-Net's nodes by provider."""
    with TextToVideoPipeline.from_pretrained(providers=providers, threads=2) as pipe:
        latent = pipe(PROMPT, **CALL)
        placement = pipe.graphs.placements.get("unet", {})
        return latent, {provider: count(placement, provider) for provider in placement}


@pytest.fixture(scope="module")
def on_cpu() -> np.ndarray:
    return drawn([CPU])[0]


@pytest.mark.parametrize(
    ("provider", "share"), [("WebGpuExecutionProvider", 0.95), ("OpenVINOExecutionProvider", 1.0)]
)
def test_the_latent_is_that_of_the_cpu(on_cpu: np.ndarray, provider: str, share: float) -> None:
    needs(provider)
    latent, nodes = drawn([provider, CPU])
    assert nodes[provider] >= share * sum(nodes.values()), nodes
    error = np.linalg.norm(latent - on_cpu) / np.linalg.norm(on_cpu)
    print(f"{provider}: {nodes}, relative error {error:.2g}")
    assert 0 < error <= TOLERANCE  # not the same bits: it did not run on the CPU's kernels


@pytest.mark.parametrize(
    ("provider", "options", "tolerance"),
    [
        ("WebGpuExecutionProvider", {}, TOLERANCE),
        # Qualcomm's emulator of a phone's NPU, which computes in float16
        ("QNNExecutionProvider", {"soc_model": "57", "htp_arch": "75"}, 2e-2),
    ],
)
def test_of_fixed_sizes_no_node_is_left_to_the_cpu(
    provider: str, options: dict[str, str], tolerance: float
) -> None:
    needs(provider)
    bundle = os.environ.get("HUMMINGBIRD_FIXED_BUNDLE")
    if not bundle:
        pytest.skip("needs a bundle of 4 frames of 64 x 64; make test-devices builds one")
    call = {**CALL, "height": 64, "width": 64}
    with TextToVideoPipeline.from_pretrained(bundle, threads=2) as pipe:
        expected = pipe(PROMPT, **call)
    with TextToVideoPipeline.from_pretrained(
        bundle, provider=provider, provider_options=options
    ) as pipe:
        latent = pipe(PROMPT, **call)
        placements = pipe.graphs.placements
    assert {role: set(found) for role, found in placements.items()} == {
        role: {provider} for role in ("text_encoder", "unet", "vae_decoder")
    }
    error = np.linalg.norm(latent - expected) / np.linalg.norm(expected)
    print(f"{provider}: relative error {error:.2g}")
    assert 0 < error <= tolerance


def cli(*flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hummingbird_runtime", *flags],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=300,
        check=False,
    )


def test_webgpu_alone_is_refused_with_the_nodes_that_it_leaves(tmp_path: Path) -> None:
    needs("WebGpuExecutionProvider")
    done = cli("sample", "--providers", "WebGpuExecutionProvider", "-o", str(tmp_path / "a.png"))
    assert done.returncode == 5
    assert "error[provider.unsupported_nodes]" in done.stderr
    assert "WebGpuExecutionProvider takes" in done.stderr
    assert "Gather" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("beside", [(), (CPU,)], ids=["alone", "with the CPU"])
def test_a_broken_driver_is_an_error_even_with_the_cpu_beside(
    tmp_path: Path, beside: tuple[str, ...]
) -> None:
    needs("WebGpuExecutionProvider")
    gone = str(tmp_path / "no-such-driver.json")
    asked = ",".join(("WebGpuExecutionProvider", *beside))
    done = cli(
        "sample", "--providers", asked, "-o", str(tmp_path / "a.png"),
        VK_DRIVER_FILES=gone, VK_ICD_FILENAMES=gone,
    )  # fmt: skip
    assert done.returncode == 5, done.stderr
    assert "WebGpuExecutionProvider" in done.stderr
    assert "error[provider." in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_missing_device_is_an_error(tmp_path: Path) -> None:
    needs("WebGpuExecutionProvider")
    done = cli(
        "sample", "--providers", "WebGpuExecutionProvider", "-o", str(tmp_path / "a.png"),
        ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER="0",
    )  # fmt: skip
    if done.returncode == 5 and "provider.unsupported_nodes" in done.stderr:
        pytest.skip("this machine has a GPU of its own")
    assert "error[provider.no_device]" in done.stderr, done.stderr


def test_the_doctor_tells_what_each_device_would_run() -> None:
    done = cli("doctor", "--json")
    findings = {found["name"]: found for found in json.loads(done.stdout)}
    for device in machine().devices:
        short = device.provider.removesuffix("ExecutionProvider")
        if short in ("WebGpu", "OpenVINO"):
            assert findings[short]["status"] == "ok", findings[short]
            assert "nodes of the built-in U-Net" in findings[short]["found"]
    assert findings["auto"]["found"]
