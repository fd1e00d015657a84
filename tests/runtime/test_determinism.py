"""Same bundle, prompt, seed and threads: the same bytes in every process."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import hashlib, sys
from hummingbird_runtime import TextToVideoPipeline
with TextToVideoPipeline.from_pretrained(sys.argv[1] or None, threads=2) as pipe:
    frames = pipe("a red ball moving to the left", seed=7).frames
print(hashlib.sha256(frames.tobytes()).hexdigest())
"""


def digests(bundle: str) -> set[str]:
    return {
        subprocess.run(
            [sys.executable, "-c", PROGRAM, bundle],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            capture_output=True,
            check=True,
            text=True,
        ).stdout.strip()
        for seed in range(5)
    }


def test_five_processes_with_five_hash_seeds_agree(tiny_bundle_path: Path) -> None:
    found = digests(str(tiny_bundle_path))
    assert len(found) == 1
    assert len(found.pop()) == hashlib.sha256().digest_size * 2


@pytest.mark.slow
def test_five_processes_agree_on_the_built_in_bundle() -> None:
    assert len(digests("")) == 1
