"""The runtime stands alone: a fresh interpreter finds nothing heavy after importing it."""

from __future__ import annotations

import subprocess
import sys

import pytest

FORBIDDEN = ("torch", "onnx", "transformers", "diffusers", "PIL", "av", "scipy", "safetensors")
LIGHT = ("numpy", "onnxruntime")


def modules_after(code: str) -> set[str]:
    script = f"{code}\nimport sys\nprint('modules:', *sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    )
    return set(done.stdout.rpartition("modules:")[2].split())


@pytest.mark.parametrize(
    "code",
    [
        "import hummingbird_runtime",
        "from hummingbird_runtime.cli import main; assert main(['--help']) == 0",
        "from hummingbird_runtime.cli import main; assert main(['generate', '--help']) == 0",
    ],
)
def test_importing_and_asking_for_help_load_neither_numpy_nor_onnxruntime(code: str) -> None:
    loaded = modules_after(code)
    assert "hummingbird_runtime" in loaded
    assert not loaded & {*FORBIDDEN, *LIGHT}


def test_every_public_name_loads_without_torch_onnx_pillow_or_av() -> None:
    loaded = modules_after("from hummingbird_runtime import *; import hummingbird_runtime.writers")
    assert "numpy" in loaded
    assert not loaded & set(FORBIDDEN)


def test_importing_takes_a_third_of_a_second_at_most() -> None:
    """Measured inside the child, best of three: a busy machine only ever adds time."""
    script = (
        "import time; start = time.process_time(); import hummingbird_runtime; "
        "print(time.process_time() - start)"
    )
    seconds = [
        float(
            subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout
        )
        for _ in range(3)
    ]
    assert min(seconds) <= 0.35
