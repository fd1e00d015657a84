"""Processes with little address space: a clip, or exit 5 with a code; never a signal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = [
    pytest.mark.storm,
    pytest.mark.skipif(os.name == "nt", reason="RLIMIT_AS"),
]

CODES = ("memory.not_enough", "resource.memory")
CLIPS = {
    "default": [],
    "largest": ["--height", "128", "--width", "128", "--num-frames", "52"],
}


def drawn(folder: Path, megabytes: int, *words: str) -> subprocess.CompletedProcess[str]:
    import resource

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))

    command = ["generate", "a small red circle", "-o", "a.npz", "--force", "--threads", "2", "-q"]
    return subprocess.run(
        [sys.executable, "-m", "hummingbird_runtime", *command, *words],
        cwd=folder, preexec_fn=limit, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip


@pytest.mark.parametrize("clip", CLIPS)
def test_every_rung_of_address_space_gives_a_clip_or_exit_5(tmp_path: Path, clip: str) -> None:
    codes, whole = {}, None
    for megabytes in [*range(300, 900, 50), 1000, 1500, 3000]:
        done = drawn(tmp_path, megabytes, *CLIPS[clip])
        codes[megabytes] = done.returncode
        if done.returncode == 0:
            with np.load(tmp_path / "a.npz") as stored:
                frames = stored["frames"]
            whole = frames if whole is None else whole
            # another chunk may be decoded at once, which may change the last bit of a sum
            assert np.abs(frames.astype(int) - whole).max() <= 1
            (tmp_path / "a.npz").unlink()
        else:
            last = done.stderr.splitlines()[-1]
            assert done.returncode == 5, (megabytes, done.stderr)
            assert any(last.startswith(f"error[{code}]: ") for code in CODES), last
            assert "Traceback" not in done.stderr
        assert list(tmp_path.iterdir()) == []
    assert codes[300] == 5
    assert codes[3000] == 0
