"""How many nodes of a bundle's graphs each execution provider ran, from ONNX Runtime's profile.

Counted in a process of its own that is never timed, with the smallest clip that the bundle draws:
where a node runs is decided when its graph is opened. ``python -m ... WORKLOAD.json``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from hummingbird_bench.child import child_environment
from hummingbird_bench.graph_profiles import ProfilingBackend
from hummingbird_bench.workload import Workload, read_workload_json
from hummingbird_runtime.errors import ExecutionError, HummingbirdError, TimeLimitError
from hummingbird_runtime.pipeline import TextToVideoPipeline

LIMIT_S = 900.0


def node_counts(work: Workload, *, limit_s: float = LIMIT_S) -> dict[str, int]:
    """Provider -> nodes that it ran in one clip of one step, counted by a child process.

    Args:
        work: of kind runtime.
        limit_s: seconds that the child may take.

    Raises:
        ExecutionError: ``bench.arm_failed``.
        TimeLimitError: ``bench.arm_time_limit``.
    """
    with tempfile.TemporaryDirectory(prefix="hummingbird-nodes-") as folder:
        request = Path(folder, "workload.json")
        request.write_text(json.dumps(work.to_json()), encoding="utf-8")
        try:
            ended = subprocess.run(
                [sys.executable, "-m", "hummingbird_bench.arms.node_counts", str(request)],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                cwd=folder,
                env=child_environment(work.threads),
                timeout=limit_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise TimeLimitError(
                "bench.arm_time_limit",
                f"arm {work.name}: got no node counts within {limit_s:g} s",
                hint="measure a smaller bundle",
            ) from error
    if ended.returncode:
        said = ended.stderr.decode("utf-8", "replace").strip().splitlines() or ["nothing"]
        raise ExecutionError(
            "bench.arm_failed",
            f"arm {work.name}: its profiled run ended with {ended.returncode}: {said[-1][:300]}",
            hint="correct the workload",
        )
    found: dict[str, int] = json.loads(ended.stdout)
    return found


def profiled_counts(work: Workload, folder: Path) -> dict[str, int]:
    """Draw the smallest clip with profilers on and count, in this process.

    Args:
        work: of kind runtime.
        folder: for the profiles.

    Raises:
        HummingbirdError: as ``TextToVideoPipeline``.
    """
    with TextToVideoPipeline.from_pretrained(
        work.bundle,
        providers=[work.provider],
        threads=work.threads,
        backend=ProfilingBackend(folder),
    ) as pipe:
        facts = pipe.bundle.manifest.model
        pipe(
            work.prompt,
            num_frames=facts.frames.allowed[0],
            height=facts.height.allowed[0],
            width=facts.width.allowed[0],
            num_inference_steps=1,
            decoder="tiny" if work.decoder == "tiny" else "full",
            upscale=False,
            output_type="np",
        )
    counts: Counter[str] = Counter()
    for path in folder.glob("*.json"):
        nodes = {
            event["name"]: event["args"]["provider"]
            for event in json.loads(path.read_text("utf-8"))
            if event.get("cat") == "Node" and event.get("args", {}).get("provider")
        }
        counts.update(nodes.values())
    return dict(counts)


def main(argv: list[str]) -> int:
    """Print the counts of a workload as one JSON object."""
    try:
        with tempfile.TemporaryDirectory(prefix="hummingbird-nodes-") as folder:
            print(json.dumps(profiled_counts(read_workload_json(Path(argv[0])), Path(folder))))
    except HummingbirdError as error:
        print(f"error[{error.code}]: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
