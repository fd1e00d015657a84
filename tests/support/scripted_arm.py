"""A program that speaks an arm's protocol and behaves as its workload's prompt says, in JSON.

Keys: ``seconds`` of a run (or a list, taken in turn), ``covered`` share of it that stages explain,
``busy`` processors, ``identity`` entries to change, ``say`` a line before ready, ``die`` an exit
status on the first run, ``hang`` seconds to sleep in a run, ``spawn`` a file that takes the process
id of a grandchild.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

if __name__ != "__main__":  # the program runs without site packages
    from hummingbird_bench.child import Child
    from hummingbird_bench.workload import Workload

PROGRAM = ("-S", str(Path(__file__).resolve()))


def workload(name: str = "arm", **behaviour: object) -> Workload:
    """An arm of kind runtime whose program is this file."""
    return Workload(
        name=name, kind="runtime", bundle=None, model="tiny", steps=4, guidance=None,
        passes_per_step=1, sampler="ddim", eta=0.0, frames=26, height=64, width=64,
        precision="fp32", provider="CPUExecutionProvider", threads=2, decoder="full",
        prompt=json.dumps(behaviour), seed=7,
    )  # fmt: skip


def start(work: Workload, folder: Path, label: str, limit_s: float = 30.0) -> Child:
    """A child process of it."""
    return Child(work, folder, label, limit_s=limit_s, program=PROGRAM)


def _say(**event: object) -> None:
    print(json.dumps(event), flush=True)


def _main(path: str) -> int:
    request = json.loads(Path(path).read_text("utf-8"))
    told = json.loads(request["prompt"])
    if "spawn" in told:
        child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
        Path(told["spawn"]).write_text(str(child.pid))
    if "say" in told:
        print(told["say"], flush=True)
    names = ("frames", "height", "width", "steps", "decoder", "sampler", "eta", "threads")
    identity = {name: request[name] for name in names} | {"precision": {"unet": "fp32"}}
    _say(event="open")
    _say(event="ready", identity=identity | told.get("identity", {}))
    seconds = told.get("seconds", 1.0)
    times = seconds if isinstance(seconds, list) else [seconds]
    for number, line in enumerate(sys.stdin):
        if line.strip() == "exit":
            return 0
        if "die" in told:
            print("out of luck", file=sys.stderr)
            return int(told["die"])
        time.sleep(told.get("hang", 0.0))
        wall = times[number % len(times)]
        stage = {
            "name": "step",
            "index": 0,
            "start_s": 0.0,
            "seconds": wall * told.get("covered", 1),
        }
        _say(
            event="sample", wall_s=wall, cpu_s=wall * told.get("busy", 1.0), stages=[stage],
            peak_rss_bytes=1 << 20, outputs={"frames": "0" * 64},
            providers=told.get("providers", {}),
        )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[-1]))
