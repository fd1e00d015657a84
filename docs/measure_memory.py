"""Memory of clips: what is predicted against what is measured, and what session settings change.

    python docs/measure_memory.py predicted [BUNDLE ...]
    python docs/measure_memory.py settings [BUNDLE]

Each figure is the peak resident memory (VmHWM, Linux) of a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Any

CHILD = """
import json, sys
from hummingbird_runtime import SessionSettings, TextToVideoPipeline
path, opened, call = sys.argv[1] or None, json.loads(sys.argv[2]), json.loads(sys.argv[3])
if "session_settings" in opened:
    opened["session_settings"] = SessionSettings(**opened["session_settings"])
with TextToVideoPipeline.from_pretrained(path, preload=False, **opened) as pipe:
    plan = pipe.plan(**call)
    prompt = pipe.bundle.manifest.model.vocabulary_examples[0]
    pipe(prompt, **call)
    def status(name):
        lines = open("/proc/self/status").read().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name))
    peak, held = status("VmHWM:"), status("VmRSS:")
print(json.dumps([plan.peak_bytes, peak, held]))
"""

LARGEST = {"height": 128, "width": 128}

CALLS: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = (
    ({}, {}),
    ({}, {"num_inference_steps": 1}),
    ({}, {"num_frames": 104}),
    ({}, LARGEST),
    ({}, {**LARGEST, "num_frames": 60, "output_type": "np"}),
    ({}, {"height": 96, "width": 128, "output_type": "latent"}),
    ({"low_memory": True}, {"num_frames": 8}),
    ({"low_memory": True}, LARGEST),
    ({"low_memory": True}, {"height": 96, "width": 96, "num_inference_steps": 1}),
    ({"low_memory": True}, {"num_frames": 52, "output_type": "np"}),
)

SETTINGS: dict[str, dict[str, Any]] = {
    "as the bundle says": {},
    "patterns off": {"memory_pattern": False},
    "patterns and reuse off": {"memory_pattern": False, "memory_reuse": False},
    "the same, arena off": {
        "memory_pattern": False,
        "memory_reuse": False,
        "cpu_arena": False,
    },
    "the same, prepacking off": {
        "memory_pattern": False,
        "memory_reuse": False,
        "prepacking": False,
    },
}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("predicted", "settings"))
    parser.add_argument("bundles", nargs="*", default=[""], help="default: the built-in one")
    parser.add_argument("--threads", type=int, default=2)
    parsed = parser.parse_args()
    for bundle in parsed.bundles:
        if parsed.what == "predicted":
            predicted(bundle, parsed.threads)
        else:
            settings(bundle, parsed.threads)


def predicted(bundle: str, threads: int) -> None:
    """The planner's figure beside the measured one."""
    print("| Clip | Opened | Predicted MB | Measured MB | Ratio |\n|---|---|---|---|---|")
    for opened, call in CALLS:
        plan, peak, _ = measure(bundle, {**opened, "threads": threads}, call)
        row = f"{words(call)} | {words(opened)} | {plan / 1e6:.0f} | {peak / 1e6:.0f}"
        print(f"| {row} | {plan / peak:.2f} |", flush=True)


def settings(bundle: str, threads: int) -> None:
    """Peak, and memory held after the clip, under other session settings."""
    print("| Session | Peak MB | After MB |\n|---|---|---|")
    for name, chosen in SETTINGS.items():
        opened = {"threads": threads, "low_memory": True, "session_settings": chosen}
        call = {"height": 128, "width": 128, "num_inference_steps": 2}
        _, peak, held = measure(bundle, opened, call)
        print(f"| {name} | {peak / 1e6:.0f} | {held / 1e6:.0f} |", flush=True)


def measure(bundle: str, opened: dict[str, Any], call: dict[str, Any]) -> list[int]:
    """[predicted, peak, held after] of one process, in bytes."""
    command = [sys.executable, "-c", CHILD, bundle, json.dumps(opened), json.dumps(call)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    answer: list[int] = json.loads(done.stdout)
    return answer


def words(options: dict[str, Any]) -> str:
    """Options for people."""
    return ", ".join(f"{name} {value}" for name, value in options.items()) or "default"


if __name__ == "__main__":
    main()
