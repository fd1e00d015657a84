"""What this machine can do at most: matrix products and copies.

Float32 products and copies are NumPy's, products of 8-bit integers ONNX Runtime's, whose kernels
the graphs use.

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
    int8: float
    """operations a second of a matrix product of uint8 and constant int8 matrices"""
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
            hint="pip install 'hummingbird-edge[bench]'; some 200 MB must be free",
        )
    return Peaks(**json.loads(done.stdout))


def sgemm_rate(tries: int) -> float:
    """Operations a second of the best of ``tries`` products, one more being thrown away."""
    generator = np.random.default_rng(0)
    a, b = (generator.standard_normal((SIDE, SIDE), np.float32) for _ in range(2))
    out = np.empty_like(a)
    return 2 * SIDE**3 / _best(lambda: np.matmul(a, b, out=out), tries)


def int8_rate(threads: int, tries: int) -> float:
    """Operations a second of the best of ``tries`` 8-bit products, one more being thrown away."""
    import onnxruntime as ort
    from onnx import TensorProto, helper, numpy_helper

    generator = np.random.default_rng(0)
    a, b = (generator.integers(0, 100, (SIDE, SIDE)) for _ in range(2))
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["a", "b"], ["c"])],
        "product",
        [helper.make_tensor_value_info("a", TensorProto.UINT8, (SIDE, SIDE))],
        [helper.make_tensor_value_info("c", TensorProto.INT32, (SIDE, SIDE))],
        [numpy_helper.from_array(b.astype(np.int8), "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feeds = {"a": a.astype(np.uint8)}
    return 2 * SIDE**3 / _best(lambda: session.run(None, feeds), tries)


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
                "int8": int8_rate(_threads, _tries),
                "bandwidth": copy_rate(_threads, _tries),
                "tries": _tries,
            }
        )
    )
