"""An import that is killed at any moment leaves the whole model or nothing to be listed."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny_bundle

from hummingbird_demo.models import ModelStore
from hummingbird_runtime import Bundle

SCRIPT = """
import sys, pathlib
from hummingbird_demo.models import ModelStore
from hummingbird_runtime import CancelToken
store = ModelStore(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
print("ready", flush=True)
sys.stdin.readline()
store.add(pathlib.Path(sys.argv[2]), lambda done, total: None, CancelToken())
print("done", flush=True)
"""


def import_and_kill(store: Path, source: Path, delay: float) -> bool:
    """Whether the import was done before the kill."""
    child = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(store), str(source)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        assert child.stdout.readline() == "ready\n"
        child.stdin.write("\n")
        child.stdin.flush()
        time.sleep(delay)
        child.send_signal(signal.SIGKILL)
        return child.stdout.read() == "done\n"


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
@pytest.mark.parametrize("count", [6, pytest.param(100, marks=pytest.mark.storm)])
def test_a_killed_import_is_whole_or_not_there(tmp_path, tiny_bundle_path, count):
    source = tiny_bundle.write(tmp_path / "source")
    draw = random.Random(7)
    for i in range(count):
        root = tmp_path / f"models-{i}"
        done = import_and_kill(root, source, draw.uniform(0, 0.06))
        store = ModelStore(root, tiny_bundle_path)
        store.sweep()
        models, damaged = store.models()
        assert damaged == ()
        assert len(models) == 2 or not done
        assert len(list(root.iterdir())) == len(models) - 1
        for model in models:
            Bundle.open(model.folder)
