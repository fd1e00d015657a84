"""The `hummingbird bench` verbs, each imported only when called."""

from __future__ import annotations

from hummingbird_runtime.cli.nested import NestedVerbs
from hummingbird_runtime.cli.worker import signals_raise

VERBS = NestedVerbs(
    "bench",
    {
        "run": (
            "hummingbird_bench.run_verb:main",
            "measure the arms of a workload: cold start, first and steady runs, stages, memory",
        ),
        "compare": (
            "hummingbird_bench.compare_verb:main",
            "two arms by interleaved pairs, with an A/A run beside them",
        ),
        "speedup": (
            "hummingbird_bench.speedup:main",
            "the whole report: how much faster than VideoCrafter2's recipe, and why",
        ),
        "verify": (
            "hummingbird_bench.verify_verb:main",
            "compute every figure of a report again and check its hashes",
        ),
        "devices": (
            "hummingbird_bench.devices_verb:main",
            "one index out of the reports of several machines",
        ),
        "scaling": (
            "hummingbird_bench.scaling_verb:main",
            "time and memory against frames, size, steps and threads",
        ),
        "vbench": (
            "hummingbird_bench.vbench.runner:main",
            "judge a folder of suite clips with the real VBench, or offline without weights",
        ),
    },
    about=("Measurements that can be derived again from their raw samples.",),
)


def main(argv: list[str]) -> int:
    """Run a measuring verb; returns the exit code. Typed errors pass through to the shell.

    A signal is such an error too, so the processes of arms end with the verb.
    """
    with signals_raise():
        return VERBS.run(argv)
