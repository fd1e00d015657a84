"""What this machine can do at most: float32 matrix products and copies, measured with NumPy.

Run as a child (``python -m hummingbird_bench.peaks``), because a BLAS library takes its number of
threads from the environment when it is loaded.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from hummingbird_runtime.errors import ExecutionError

_BLAS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
SIDE = 1536
"""Rows and columns of the matrices: 27 MB together, beyond most caches, a tenth of a second."""
COPIED = 64 << 20
"""Bytes of one copied array, beyond the caches."""


@dataclass(frozen=True)
class Peaks:
    """Best of several tries, as a limit should be."""

    threads: int
    sgemm: float
    """float32 operations a second of a matrix product; a multiply-add is two"""
    bandwidth: float
    """bytes a second that copying reads and writes together"""
    tries: int
    """how often each was tried"""


def measure_peaks(threads: int, *, tries: int = 7) -> Peaks:
    """Measure in a fresh process that has this many threads.

    Raises:
        ExecutionError: ``bench.peaks_failed``.
    """
    environment = {**os.environ, **dict.fromkeys(_BLAS, str(threads))}
    command = [sys.executable, "-m", __name__, str(threads), str(tries)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ExecutionError(
            "bench.peaks_failed",
            f"measuring the machine's peaks ended with {done.returncode}: "
            f"{done.stderr.strip()[-200:]}",
            hint="NumPy must work, and some 200 MB be free",
        )
    return Peaks(**json.loads(done.stdout))


def sgemm_rate(tries: int) -> float:
    """Operations a second of the best of ``tries`` products, one more being thrown away."""
    generator = np.random.default_rng(0)
    a, b = (generator.standard_normal((SIDE, SIDE), np.float32) for _ in range(2))
    out = np.empty_like(a)
    return 2 * SIDE**3 / _best(lambda: np.matmul(a, b, out=out), tries)


def copy_rate(threads: int, tries: int) -> float:
    """Bytes read plus bytes written a second, with an array of its own for every thread."""
    arrays = [(np.ones(COPIED, np.uint8), np.empty(COPIED, np.uint8)) for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:

        def copy_all() -> object:
            return list(pool.map(lambda pair: np.copyto(pair[1], pair[0]), arrays))

        return 2 * COPIED * threads / _best(copy_all, tries)


def _best(work: Callable[[], object], tries: int) -> float:
    seconds = []
    for _ in range(tries + 1):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


if __name__ == "__main__":
    _threads, _tries = (int(word) for word in sys.argv[1:])
    print(
        json.dumps(
            {
                "threads": _threads,
                "sgemm": sgemm_rate(_tries),
                "bandwidth": copy_rate(_threads, _tries),
                "tries": _tries,
            }
        )
    )
