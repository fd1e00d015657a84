"""Print the runtime figures of the README for this machine: cold, warm, import, peak memory.

Cold: a new process with a warm page cache, from its start to its end; the bundle is hashed in it
and the clip is written as H.264. Warm: a further call of a live pipeline, up to the frames. Import:
the package alone, as Python measures it. All are medians of RUNS after one that does not count.

python docs/measure_runtime.py
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

RUNS = 5
PROMPT = "a small red circle moving to the left on a black background"
IMPORT = (
    "import time; t = time.perf_counter(); import hummingbird_runtime; "
    "print(time.perf_counter() - t)"
)
PEAK = (
    "import resource, sys; from hummingbird_runtime.cli import main; code = main(sys.argv[1:]); "
    "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(code)"
)


def median(measure: Callable[[], float]) -> float:
    """The median of RUNS values after one that is thrown away."""
    measure()
    return statistics.median(measure() for _ in range(RUNS))


def run(*arguments: str) -> str:
    """Standard output of a Python child process that must succeed."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def cold(clip: Path) -> float:
    """Seconds of one process from prompt to file."""
    clip.unlink(missing_ok=True)
    started = time.perf_counter()
    run("-m", "hummingbird_runtime", "generate", PROMPT, "-o", str(clip), "-q")
    return time.perf_counter() - started


def peak_bytes(clip: Path) -> float:
    """Largest resident memory of the same process; the system counts in KiB, on macOS in bytes."""
    clip.unlink(missing_ok=True)
    peak = int(run("-c", PEAK, "generate", PROMPT, "-o", str(clip), "-q").split()[-1])
    return peak if sys.platform == "darwin" else peak * 1024


def main() -> None:
    """Measure and print one line per figure, then the machine."""
    import onnxruntime

    from hummingbird_runtime import TextToVideoPipeline

    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        figures = {"cold, s": median(lambda: cold(clip))}
        figures["peak memory, MB"] = median(lambda: peak_bytes(clip)) / 1e6
    figures["import, ms"] = 1e3 * median(lambda: float(run("-c", IMPORT)))
    with TextToVideoPipeline.from_pretrained() as pipe:
        figures["warm, s"] = median(lambda: pipe(PROMPT).timings["total"])
        files = pipe.bundle.manifest.files.values()
        figures["bundle, MB"] = sum(entry.bytes for entry in files) / 1e6
    for name, value in figures.items():
        print(f"{name:18}{value:.4g}")
    machine = {
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
    }
    print(json.dumps(machine))


if __name__ == "__main__":
    main()
