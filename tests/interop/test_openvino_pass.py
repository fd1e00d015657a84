"""The yardstick: OpenVINO's seconds for one pass, by call and by command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from hummingbird_runtime import InputError
from hummingbird_runtime.bundle import builtin_bundle

pytestmark = pytest.mark.interop

UNET = builtin_bundle() / "unet" / "model.onnx"
MODULE = "hummingbird_export.interop.openvino_pass"


def test_feeds_fit_the_graph_and_are_repeatable(openvino: ModuleType):
    from hummingbird_export.interop.openvino_pass import unet_feeds

    feeds, again = (unet_feeds(UNET, frames=3, height=8, width=16) for _ in range(2))
    assert feeds["sample"].shape == (1, 4, 3, 8, 16)
    assert feeds["timestep"].shape == ()
    assert feeds["timestep"].dtype == feeds["fps"].dtype == np.int64
    assert feeds["fps"].tolist() == [8]
    assert all(np.array_equal(feeds[name], again[name]) for name in feeds)


def test_every_pass_is_timed(openvino: ModuleType):
    from hummingbird_export.interop import openvino_seconds
    from hummingbird_export.interop.openvino_pass import unet_feeds

    feeds = unet_feeds(UNET, frames=2, height=8, width=8)
    timing = openvino_seconds(UNET, feeds, threads=2, passes=2)
    assert len(timing.seconds) == 2
    assert min(*timing.seconds, timing.compile_seconds) > 0
    if sys.platform.startswith(("linux", "darwin")):
        assert timing.peak_rss_bytes > 50e6  # Python, NumPy and OpenVINO alone


@pytest.mark.parametrize("role", ["vae_decoder", "text_encoder"])
def test_another_graph_is_refused(openvino: ModuleType, role: str):
    from hummingbird_export.interop.openvino_pass import unet_feeds

    with pytest.raises(InputError) as caught:
        unet_feeds(builtin_bundle() / role / "model.onnx", frames=1, height=8, width=8)
    assert caught.value.code == "interop.not_a_unet"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", MODULE, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_the_command_prints_seconds_and_memory(openvino: ModuleType):
    shape = ("--frames", "2", "--height", "8", "--width", "8")
    done = run(str(UNET), *shape, "--threads", "1", "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert len(figures["seconds"]) == 1
    assert {"compile_seconds", "peak_rss_bytes"} < figures.keys()


def test_the_command_fails_in_one_line(openvino: ModuleType, tmp_path: Path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"no graph")
    done = run(str(path))
    assert done.returncode == 3
    assert done.stderr.startswith("error[interop.not_a_unet]: ")
    assert done.stderr.count("\n") == 1
