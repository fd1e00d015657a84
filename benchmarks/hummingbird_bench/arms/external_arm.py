"""The arm of a foreign program: any command that turns a prompt into a clip.

``python -m hummingbird_bench.arms.external_arm WORKLOAD.json``. Every ``run`` starts the command
once, so its own start counts; ``PLACES`` and ``{output}`` in its arguments are filled in. Nothing
is known of its networks: it has no identity and no gate, and no ratio is built on it.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

from hummingbird_bench.workload import Workload, read_workload_json
from hummingbird_runtime.errors import ExecutionError, HummingbirdError, InputError

PLACES = ("prompt", "seed", "frames", "height", "width", "steps", "threads")


def fill(work: Workload, output: Path) -> list[str]:
    """The command with its places filled in.

    Args:
        work: of kind external.
        output: file that the command should write.

    Raises:
        InputError: ``bench.command`` for a place that does not exist.
    """
    values = {name: str(getattr(work, name)) for name in PLACES} | {"output": str(output)}
    filled = []
    for word in work.command:
        try:
            filled.append(word.format_map(values))
        except (KeyError, ValueError, IndexError) as error:
            raise InputError(
                "bench.command",
                f"arm {work.name}: got {word[:80]!r}, expected no places but "
                f"{', '.join('{' + name + '}' for name in values)}",
                hint="write {{ and }} for braces that are meant as such",
            ) from error
    return filled


def run_once(work: Workload) -> dict[str, Any]:
    """One run of the command, as a sample.

    Raises:
        ExecutionError: ``bench.arm_failed`` when it cannot be started, fails or writes nothing.
        InputError: ``bench.command``.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "clip.mp4")
        command = fill(work, output)
        before = os.times()
        start = time.perf_counter()
        try:
            ended = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False
            )
        except OSError as error:
            raise _failed(work, f"{command[0]!r}: {error.strerror}") from error
        wall, after = time.perf_counter() - start, os.times()
        if ended.returncode:
            raise _failed(work, f"exit status {ended.returncode}")
        wanted = any("{output}" in word for word in work.command)
        if wanted and not (output.is_file() and output.stat().st_size):
            raise _failed(work, f"it wrote nothing to {output.name}")
        outputs = {"file": hashlib.sha256(output.read_bytes()).hexdigest()} if wanted else {}
    used = after.children_user + after.children_system
    return {
        "wall_s": wall,
        "cpu_s": used - before.children_user - before.children_system,
        "stages": [{"name": "command", "index": 0, "start_s": 0.0, "seconds": wall}],
        "peak_rss_bytes": _peak_of_children(),
        "outputs": outputs,
        "providers": {},
    }


def serve(work: Workload, lines: Iterable[str], out: TextIO) -> None:
    """Answer ``run`` lines until ``exit`` or the end of the input."""
    _say(out, {"event": "ready", "identity": {}})
    for line in lines:
        word = line.split()[:1]
        if word == ["exit"]:
            return
        if word == ["run"]:
            _say(out, {"event": "sample", **run_once(work)})


def main(argv: list[str]) -> int:
    """Serve the workload of a file."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        serve(read_workload_json(Path(argv[0])), sys.stdin, out)
    except HummingbirdError as error:
        _say(out, {"event": "error", "code": error.code, "message": str(error)})
        return error.exit_code
    return 0


def _failed(work: Workload, why: str) -> ExecutionError:
    return ExecutionError(
        "bench.arm_failed", f"arm {work.name}: {why}", hint="run the command by hand first"
    )


def _peak_of_children() -> int:
    """Most bytes that a command held so far; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10


def _say(out: TextIO, event: dict[str, Any]) -> None:
    out.write(json.dumps(event) + "\n")
    out.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
