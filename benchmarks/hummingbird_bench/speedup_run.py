"""A speed-up plan carried out: a gate for every arm, then the rounds, then the complete runs.

Every finished sample and gate is on the disk at once: the same plan started again on the same
folder goes on where it was killed. An arm that fails is noted and left out, the others go on.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hummingbird_bench.arms.node_counts import node_counts
from hummingbird_bench.child import PROGRAMS, Child, child_environment
from hummingbird_bench.gate import form_gate
from hummingbird_bench.interleave import abba
from hummingbird_bench.run_folder import RunFolder, measurement_plan
from hummingbird_bench.sample import Phase, Sample
from hummingbird_bench.speedup_plan import Plan, PlannedArm
from hummingbird_bench.workload import Workload
from hummingbird_runtime.atomic import atomic_file
from hummingbird_runtime.errors import ExecutionError, HummingbirdError

GATED_BY_ITSELF = ("torch", "torch-compile", "torch-as-published")
"""Kinds whose own program tells how far their form is from the fair one."""

GATED_BY_PROBES = ("runtime", "openvino")

PATIENCE = 20.0
"""A run may take this many times what was predicted, and ten minutes."""

Gates = dict[str, dict[str, Any] | None]
Note = Callable[[str], None]


class NumberedChild(Child):
    """A child that is told which of its arm's samples this is, so that timesteps stay spread."""

    number = 0

    def _say(self, word: str) -> None:
        super()._say(f"run {self.number}" if word == "run" else word)


@dataclass(frozen=True)
class Measured:
    """What one set of rounds gave."""

    samples: tuple[Sample, ...]
    identities: Mapping[str, dict[str, Any]]
    failures: Mapping[str, str]


@dataclass(frozen=True)
class Outcome:
    """What a run folder holds at the end."""

    started: str
    """UTC."""
    samples: tuple[Sample, ...]
    identities: Mapping[str, dict[str, Any]]
    gates: Gates
    failures: Mapping[str, str]
    """Arm -> why it was left out."""


def run_plan(plan: Plan, folder: Path, *, note: Note) -> Outcome:
    """Measure what is left of a plan.

    Args:
        plan: arms and rounds.
        folder: of the run; made if absent, its parent exists.
        note: told what is being done.

    Raises:
        HummingbirdError: ``bench.other_measurement``, ``bench.sample``, ``bench.unreadable``.
    """
    folder.mkdir(exist_ok=True)
    path = folder / "gates.json"
    kept: dict[str, Any] = {"started": utc_now(), "gates": {}}
    if path.exists():
        kept = json.loads(path.read_text("utf-8"))
    gates: Gates = kept["gates"]
    for arm in plan.arms:
        name = arm.workload.name
        if name not in gates:
            twin = next((n for n in gates if _same_networks(plan, n, name)), None)
            if twin is None:
                note(f"gate of {name}")
            gates[name] = gates[twin] if twin else measure_gate(arm.workload, folder)
            with atomic_file(path, overwrite=True) as partial:
                partial.write_text(json.dumps(kept, indent=1), encoding="utf-8")
    rounds = [arm for arm in plan.arms if arm.part != "whole"]
    whole = [arm for arm in plan.arms if arm.part == "whole"]
    found = _measure(rounds, plan.request.rounds, folder / "rounds", note, live=plan.live)
    if whole:
        more = _measure(whole, 1, folder / "whole", note, live=False)
        later = tuple(
            dataclasses.replace(sample, ordinal=sample.ordinal + len(found.samples))
            for sample in more.samples
        )
        found = Measured(
            found.samples + later,
            {**found.identities, **more.identities},
            {**found.failures, **more.failures},
        )
    return Outcome(kept["started"], found.samples, found.identities, gates, found.failures)


def _measure(
    arms: Sequence[PlannedArm], rounds: int, folder: Path, note: Note, *, live: bool
) -> Measured:
    """Rounds in which each arm runs once, every other one in reverse order.

    Small arms stay alive, and their first run is one more. A large arm gets a fresh process for
    every sample, which is its first run: 1.4 billion weights of one side leave no room for others.
    """
    planned = {arm.workload.name: arm for arm in arms}
    plan = measurement_plan([arm.workload for arm in arms], {"rounds": rounds, "live": live})
    store, rounds_of = RunFolder(folder, plan), _Rounds(live)
    left = [
        planned[name]
        for number, order in zip(range(rounds), abba(list(planned), 0), strict=False)
        for name in order
        if rounds_of.finished(store, name) <= number
    ]
    spent, expected, total = 0.0, 0.0, sum(arm.seconds + arm.load_s for arm in left)
    failures: dict[str, str] = {}
    with rounds_of:
        for done, arm in enumerate(left):
            name = arm.workload.name
            if name in failures:
                continue
            pace = spent / expected if expected else 1.0
            rest = (total - expected) * pace / 60
            note(f"run {done + 1} of {len(left)}: {name}, about {rest:.0f} minutes left")
            began = time.monotonic()
            try:
                rounds_of.run(arm, store)
            except HummingbirdError as error:
                failures[name] = f"{error.code}: {error.message}"
                note(f"{name} is left out: {error.message}")
            spent += time.monotonic() - began
            expected += arm.seconds + arm.load_s
    return Measured(tuple(store.samples), store.identities, failures)


class _Rounds(ExitStack):
    """Children of a measurement; leaving closes those that are alive."""

    def __init__(self, live: bool) -> None:
        super().__init__()
        self.live = live
        self.phase: Phase = "steady" if live else "first"
        self.alive: dict[str, NumberedChild] = {}
        self.providers: dict[str, dict[str, int]] = {}

    def finished(self, store: RunFolder, name: str) -> int:
        """Samples of an arm that count."""
        return sum(s.arm == name and s.phase == self.phase for s in store.samples)

    def run(self, arm: PlannedArm, store: RunFolder) -> None:
        """One sample that counts."""
        work = arm.workload
        child = self.alive.get(work.name)
        if child is None:
            child = self._open(arm, store)
            self._sample(child, store, "first")
        if self.live:
            self.alive[work.name] = child
            self._sample(child, store, "steady")
        else:
            child.close()

    def _open(self, arm: PlannedArm, store: RunFolder) -> NumberedChild:
        work = arm.workload
        if work.name not in self.providers:
            self.providers[work.name] = node_counts(work) if work.kind == "runtime" else {}
        limit = PATIENCE * (arm.seconds + arm.load_s) + 600.0
        label = f"{work.name}-{len(store.samples):03d}"
        child = NumberedChild(work, store.logs, label, limit_s=limit)
        self.callback(child.close)
        child.providers = self.providers[work.name]
        child.open()
        store.identify(work.name, child.identity)
        return child

    def _sample(self, child: NumberedChild, store: RunFolder, phase: Phase) -> None:
        child.number = sum(s.arm == child.work.name for s in store.samples)
        store.append(child.run(len(store.samples), phase))


def _same_networks(plan: Plan, one: str, other: str) -> bool:
    """Whether two arms run the same networks in the same way, whatever clip they draw."""
    works = {arm.workload.name: arm.workload for arm in plan.arms}
    if one not in works:
        return False
    a, b = (
        dataclasses.replace(
            works[name], name="any", frames=1, unet_passes=None, decode_frames=None, steps=1
        )
        for name in (one, other)
    )
    return a == b


def measure_gate(work: Workload, folder: Path) -> dict[str, Any] | None:
    """Gate one arm in a process of its own; None for programs that show no networks.

    An arm that cannot be gated gets a gate that it did not pass, with the reason.
    """
    if work.kind not in GATED_BY_ITSELF + GATED_BY_PROBES:
        return None
    request = folder / f"{work.name}-gate.json"
    request.write_text(json.dumps(work.to_json()), encoding="utf-8")
    own = work.kind in GATED_BY_ITSELF
    module = PROGRAMS[work.kind] if own else "hummingbird_bench.arms.gate_arm"
    with (folder / f"{work.name}-gate.log").open("ab") as log:
        ended = subprocess.run(
            [sys.executable, "-m", module, str(request), *(["--gate"] if own else [])],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            env=child_environment(work.threads),
            check=False,
            encoding="utf-8",
        )
    lines = ended.stdout.strip().splitlines()
    told: Mapping[str, Any] = json.loads(lines[-1]) if lines and lines[-1][:1] == "{" else {}
    if told.get("event") != "gate":
        why = told.get("message") or f"exit status {ended.returncode}, see {work.name}-gate.log"
        return {"passed": False, "reason": f"no gate: {why}"}
    if own:
        return form_gate(told).to_json()
    return {key: value for key, value in told.items() if key != "event"}


def build_bundle(model: str, precision: str, out: Path) -> Path:
    """Have the exporter make a bundle of random weights, unless it is there already.

    Args:
        model: of ``hummingbird_export.bench_models``.
        precision: of its U-Net.
        out: the folder to make.

    Raises:
        ExecutionError: ``bench.arm_failed``.
    """
    if (out / "manifest.json").exists():
        return out
    module = "hummingbird_export.bench_models"
    ended = subprocess.run(
        [sys.executable, "-m", module, model, "--precision", precision, "-o", str(out)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        encoding="utf-8",
        errors="replace",
    )
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise ExecutionError(
            "bench.arm_failed",
            f"bundle of {model}, {precision}: exit status {ended.returncode}, {last[:300]}",
            hint="install the extra: pip install 'hummingbird-edge[export]'",
        )
    return out


def utc_now() -> str:
    """The time as reports write it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
