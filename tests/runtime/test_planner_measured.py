"""Predicted peaks against the peak resident memory of processes that really draw the clip."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hummingbird_runtime import builtin_bundle

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not Path("/proc/self/status").exists(), reason="reads VmHWM, which Linux has"
    ),
]

TOLERANCE = 0.2

CHILD = """
import json, sys
from hummingbird_runtime import TextToVideoPipeline
path, opened, call = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
with TextToVideoPipeline.from_pretrained(path, threads=1, preload=False, **opened) as pipe:
    predicted = pipe.plan(**call).peak_bytes
    pipe("a small red circle", **call)
    lines = open("/proc/self/status").read().splitlines()
    peak = next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))
print(json.dumps([predicted, peak]))
"""

SETTINGS = {
    "built-in, default": ({}, {}),
    "built-in, one step": ({}, {"num_inference_steps": 1}),
    "built-in, 104 frames": ({}, {"num_frames": 104}),
    "built-in, largest": ({}, {"height": 128, "width": 128}),
    "built-in, largest, 60 frames, floats": (
        {},
        {"height": 128, "width": 128, "num_frames": 60, "output_type": "np"},
    ),
    "built-in, staged": ({"low_memory": True}, {"num_frames": 8}),
    "built-in, staged, largest": ({"low_memory": True}, {"height": 128, "width": 128}),
}
RANDOM = {
    "random, fused": ({}, {"num_inference_steps": 1}),
    "random, fused, largest": ({}, {"height": 128, "width": 128, "num_inference_steps": 2}),
    "random, fused, staged": (
        {"low_memory": True},
        {"height": 128, "width": 128, "num_frames": 52, "num_inference_steps": 1},
    ),
}


def check(bundle: Path, opened: dict, call: dict) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(bundle), json.dumps(opened), json.dumps(call)],
        capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    predicted, measured = json.loads(done.stdout)
    assert predicted == pytest.approx(measured, rel=TOLERANCE), f"{predicted / measured:.3f}"


@pytest.mark.parametrize("name", SETTINGS)
def test_the_built_in_bundle_is_predicted(name: str) -> None:
    check(builtin_bundle(), *SETTINGS[name])


@pytest.fixture(scope="module")
def random_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in the built-in model's shape, written for the target ``cpu``."""
    pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    import quick_export

    from hummingbird_export.random_models import preset, random_networks
    from hummingbird_train.world.tokenizer_files import write_tokenizer

    folder = tmp_path_factory.mktemp("random")
    facts = {
        "frames": {"trained": 26, "default": 26, "allowed": [1, 104]},
        "height": {"trained": 64, "default": 64, "allowed": [32, 128]},
        "width": {"trained": 64, "default": 64, "allowed": [32, 128]},
        "decode_chunk": 26,
    }
    import micro_models

    parts = random_networks(preset("tiny"))
    unet, vae, _ = parts
    return quick_export.export(
        folder / "bundle",
        write_tokenizer(folder / "tokenizer"),
        parts=parts,
        facts=micro_models.facts(unet, vae, **facts),
        target="cpu",
        precision="fp32",
    )


@pytest.mark.parametrize("name", RANDOM)
def test_a_random_bundle_is_predicted(random_bundle: Path, name: str) -> None:
    check(random_bundle, *RANDOM[name])
