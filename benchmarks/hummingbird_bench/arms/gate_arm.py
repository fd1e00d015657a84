"""Gates one arm that runs graphs of a bundle, and ends: one JSON line on stdout.

``python -m hummingbird_bench.arms.gate_arm WORKLOAD.json``, for kinds runtime and openvino.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hummingbird_bench.gate import Run, probe_gate
from hummingbird_bench.workload import Workload, read_workload_json
from hummingbird_runtime.bundle import Bundle
from hummingbird_runtime.cancel import CancelToken
from hummingbird_runtime.errors import HummingbirdError
from hummingbird_runtime.open_graph import Graph
from hummingbird_runtime.providers import session_options_from
from hummingbird_runtime.session import OnnxRuntimeBackend


def runtime_run(work: Workload, bundle: Bundle) -> Run:
    """Graphs by our own runtime, each opened for one run as a clip would open it."""
    options = session_options_from(providers=[work.provider], threads=work.threads)

    def run(role: str, feeds: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        session = OnnxRuntimeBackend().open(
            bundle.path(role), options.for_graph(bundle.graph(role).session)
        )
        try:
            return Graph(role, session, CancelToken())(role, feeds)
        finally:
            session.close()

    return run


def main(argv: list[str]) -> int:
    """Gate the arm of a workload; exit code of its error otherwise."""
    try:
        work = read_workload_json(Path(argv[0]))
        bundle = Bundle.open(work.bundle)
        if work.kind == "openvino":
            from hummingbird_bench.arms.openvino_arm import openvino_run

            run = openvino_run(work, bundle)
        else:
            run = runtime_run(work, bundle)
        gate = probe_gate(bundle, run, decoder=work.decoder)
    except HummingbirdError as error:
        print(json.dumps({"event": "error", "code": error.code, "message": str(error)}))
        return error.exit_code
    print(json.dumps({"event": "gate", **gate.to_json()}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
