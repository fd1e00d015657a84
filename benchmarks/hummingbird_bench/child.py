"""One arm's program in a process of its own: started, spoken to by lines, killed with its group.

A child prints JSON lines: ``ready`` with its identity, then a ``sample`` for every line ``run``
that it reads. What else it says goes to a log file. A child may print ``open`` before ``ready``, as
soon as it could run: only then is its cold start measured, since telling an identity takes time.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from hummingbird_bench.energy import joules_between, read_energy
from hummingbird_bench.environment import TIMING_PREFIXES, read_load
from hummingbird_bench.sample import Phase, Sample, check_coverage
from hummingbird_bench.workload import Workload
from hummingbird_runtime.errors import ExecutionError, HummingbirdError, InputError, TimeLimitError
from hummingbird_runtime.strict_json import parse_json

PROGRAMS: Mapping[str, str] = {
    "runtime": "hummingbird_bench.arms.runtime_arm",
    "torch": "hummingbird_export.bench_arm",
    "torch-compile": "hummingbird_export.bench_arm",
    "torch-as-published": "hummingbird_export.bench_arm",
    "openvino": "hummingbird_bench.arms.openvino_arm",
    "external": "hummingbird_bench.arms.external_arm",
}
"""Kind of a workload -> module that runs it."""

THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
)  # fmt: skip

SLACK = 0.15
"""Processors above its threads that a run may have kept busy: clocks tick, Python's own threads."""

_NEW_GROUP = 0x200  # CREATE_NEW_PROCESS_GROUP of Windows
_SHORT_S = 0.5
_FAREWELL_S = 2.0
_POLL_S = 0.2
_QUIET = 50
_LONGEST_LINE = 1 << 22
_OWN = ("wall_s", "cpu_s", "stages", "peak_rss_bytes", "outputs")


def child_environment(threads: int, base: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The caller's environment without what changes timings, and with the number of threads.

    Args:
        threads: of one run.
        base: the environment to start from.
    """
    kept = {name: text for name, text in base.items() if not name.startswith(TIMING_PREFIXES)}
    return {**kept, **dict.fromkeys(THREAD_VARIABLES, str(threads)), "PYTHONHASHSEED": "0"}


class Child:
    """One live arm. Use as a context manager; leaving kills what is left of its process group.

    Args:
        work: what it runs.
        folder: for its request and its log, both named by ``label``.
        label: file name without suffix.
        limit_s: seconds that starting, or one run, may take.
        program: arguments after the interpreter; None is the program of the workload's kind.
    """

    def __init__(
        self,
        work: Workload,
        folder: Path,
        label: str,
        *,
        limit_s: float,
        program: tuple[str, ...] | None = None,
    ) -> None:
        self.work = work
        self.identity: dict[str, Any] = {}
        self.peak_pss: int | None = None
        self.providers: dict[str, int] = {}
        self._limit_s = limit_s
        self._log_path = folder / f"{label}.log"
        request = folder / f"{label}.json"
        request.write_text(json.dumps(work.to_json()), encoding="utf-8")
        self._lines: queue.Queue[tuple[float, str]] = queue.Queue()
        self._log: IO[bytes] = self._log_path.open("ab")
        self._spawned = time.perf_counter()
        self._opened_at: float | None = None
        group: dict[str, Any] = (
            {"creationflags": _NEW_GROUP}
            if sys.platform == "win32"
            else {"start_new_session": True}
        )
        self._process = subprocess.Popen(
            [sys.executable, *(program or ("-m", PROGRAMS[work.kind])), str(request)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=child_environment(work.threads),
            text=True,
            encoding="utf-8",
            **group,
        )
        threading.Thread(target=self._read, name=f"read {label}", daemon=True).start()

    def open(self) -> Child:
        """Wait until the arm is ready and take its identity.

        Raises:
            HummingbirdError: ``bench.arm_failed``, ``bench.arm_protocol``,
                ``bench.arm_time_limit``; ``bench.threads`` and ``bench.precision`` where the arm
                says that it runs something else than asked.
        """
        _, ready = self._event("ready")
        self.identity = dict(ready.get("identity") or {})
        check_identity(self.work, self.identity)
        return self

    def run(self, ordinal: int, phase: Phase) -> Sample:
        """One run, measured.

        Args:
            ordinal: its place among all runs.
            phase: ``first`` or ``steady``.

        Raises:
            HummingbirdError: as ``open``; ``bench.sample``, ``bench.uncovered_time``,
                ``bench.threads``, ``bench.provider_fallback``.
        """
        before, energy = read_load(), read_energy()
        with self._watch_pss(phase != "steady"):
            self._say("run")
            _, told = self._event("sample")
        after, spent = read_load(), joules_between(energy, read_energy())
        sample = Sample.from_json(
            {
                "arm": self.work.name,
                "ordinal": ordinal,
                "phase": phase,
                **{name: told[name] for name in _OWN if name in told},
                "providers": self.providers or told.get("providers", {}),
                "peak_pss_bytes": self.peak_pss,
                "load_before": before.average,
                "load_after": after.average,
                "steal_ticks_before": before.steal_ticks,
                "steal_ticks_after": after.steal_ticks,
                "energy_j": spent,
            },
            f"arm {self.work.name}, run {ordinal}",
        )
        check_sample(self.work, sample)
        return sample

    def cold(self, first: Sample, ordinal: int) -> Sample | None:
        """The cold start whose second part was ``first``; None where the arm never said ``open``.

        Args:
            first: sample of this child's first run.
            ordinal: place of the new sample.
        """
        if self._opened_at is None:
            return None
        start = self._opened_at - self._spawned
        values = first.to_json()
        moved = [{**stage, "start_s": start + stage["start_s"]} for stage in values["stages"]]
        own = {"name": "start", "index": 0, "start_s": 0.0, "seconds": start}
        changes = {
            "ordinal": ordinal,
            "phase": "cold",
            "wall_s": start + first.wall_s,
            "stages": [own, *moved],
            "energy_j": None,
        }
        return Sample.from_json({**values, **changes})

    def close(self) -> None:
        """Ask the arm to end, and kill its whole group if it does not, or left something behind."""
        with contextlib.suppress(HummingbirdError, subprocess.TimeoutExpired):
            if self._process.poll() is None:
                self._say("exit")
                self._process.wait(_FAREWELL_S)
        kill_group(self._process)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        self._log.close()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _say(self, word: str) -> None:
        assert self._process.stdin is not None, "started with a pipe"
        try:
            self._process.stdin.write(word + "\n")
            self._process.stdin.flush()
        except (OSError, ValueError) as error:  # ValueError: the pipe is closed already
            raise self._failed() from error

    def _read(self) -> None:
        assert self._process.stdout is not None, "started with a pipe"
        with contextlib.suppress(OSError, ValueError):
            while line := self._process.stdout.readline(_LONGEST_LINE):
                self._lines.put((time.perf_counter(), line))
        self._lines.put((time.perf_counter(), ""))

    def _event(self, wanted: str) -> tuple[float, dict[str, Any]]:
        """The next event of a kind and when it came."""
        end = time.monotonic() + self._limit_s
        while True:
            try:
                arrived, line = self._lines.get(timeout=max(end - time.monotonic(), 0.0))
            except queue.Empty as error:
                kill_group(self._process)
                raise TimeLimitError(
                    "bench.arm_time_limit",
                    f"arm {self.work.name}: got no {wanted} within {self._limit_s:g} s; "
                    f"its log is {self._log_path}",
                    hint="raise --limit, or ask for less work",
                ) from error
            if not line:
                raise self._failed()
            event = self._parsed(line)
            if event["event"] == "open":
                self._opened_at = arrived
            elif event["event"] == "error":
                raise _arm_failed(
                    self.work.name, f"{event.get('code')}: {event.get('message')}", self._log_path
                )
            elif event["event"] == wanted:
                return arrived, event

    def _parsed(self, line: str) -> dict[str, Any]:
        try:
            event = parse_json(line.encode(), what="line", limit=_LONGEST_LINE)
        except InputError as error:
            raise self._protocol(line) from error
        if not isinstance(event, dict) or not isinstance(event.get("event"), str):
            raise self._protocol(line)
        return event

    def _protocol(self, line: str) -> ExecutionError:
        kill_group(self._process)
        return ExecutionError(
            "bench.arm_protocol",
            f"arm {self.work.name}: got {line.strip()[:80]!r}, expected a JSON line with an event",
            hint=f"an arm's stdout is for events alone, all else belongs on stderr; "
            f"its log is {self._log_path}",
        )

    def _failed(self) -> ExecutionError:
        kill_group(self._process)
        code = self._process.wait()
        self._log.flush()
        lines = self._log_path.read_text("utf-8", "replace").strip().splitlines()
        last = lines[-1][:300] if lines else "it said nothing"
        return _arm_failed(self.work.name, f"exit status {code}, {last}", self._log_path)

    @contextlib.contextmanager
    def _watch_pss(self, wanted: bool) -> Any:
        """Sample the child's shared-out memory, so rarely that it costs the run 2 % of one core."""
        stop = threading.Event()

        def watch() -> None:
            pause = 0.0
            while not stop.wait(pause):
                began = time.perf_counter()
                found = read_pss(self._process.pid)
                if found is None:
                    return
                self.peak_pss = max(found, self.peak_pss or 0)
                pause = max(_POLL_S, _QUIET * (time.perf_counter() - began))

        thread = threading.Thread(target=watch, name="pss", daemon=True)
        if wanted:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            if wanted:
                thread.join()


def read_pss(pid: int) -> int | None:
    """Proportional set size of a process in bytes; None where the system does not tell."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines()
    except (OSError, ValueError):
        return None
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:")), None)


def kill_group(process: subprocess.Popen[str]) -> None:
    """End a child and everything that it started."""
    if sys.platform == "win32":
        process.kill()
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def check_identity(work: Workload, identity: Mapping[str, Any]) -> None:
    """Refuse an arm that says it runs something else than it was asked to.

    Raises:
        InputError: ``bench.threads``, ``bench.precision``, ``bench.other_work``.
    """
    told = identity.get("precision")
    precision = told.get("unet") if isinstance(told, Mapping) else told
    _must_equal("bench.threads", work, "threads", identity.get("threads"), work.threads)
    _must_equal("bench.precision", work, "precision of the U-Net", precision, work.precision)
    for what in ("frames", "height", "width", "steps", "decoder", "sampler", "eta"):
        _must_equal("bench.other_work", work, what, identity.get(what), getattr(work, what))


def _must_equal(code: str, work: Workload, what: str, got: object, asked: object) -> None:
    if got is not None and got != asked:
        raise InputError(
            code,
            f"arm {work.name}: {what}, got {got!r}, expected {asked!r} as the workload says",
            hint="correct the workload, or the program of the arm",
        )


def check_sample(work: Workload, sample: Sample) -> None:
    """Refuse a run whose own figures contradict the workload.

    Raises:
        InputError: ``bench.threads``, ``bench.provider_fallback``, ``bench.uncovered_time``.
    """
    busy = sample.cpu_s / sample.wall_s
    if sample.wall_s >= _SHORT_S and busy > work.threads + SLACK:
        raise InputError(
            "bench.threads",
            f"arm {work.name}: kept {busy:.2f} processors busy, expected at most {work.threads}, "
            "its threads",
            hint="the engine ignored the number of threads",
        )
    elsewhere = sorted(sample.providers.keys() - {work.provider})
    if work.kind == "runtime" and elsewhere:
        raise InputError(
            "bench.provider_fallback",
            f"arm {work.name}: got nodes on {', '.join(elsewhere)}, expected all on "
            f"{work.provider}",
            hint="choose a provider that runs every node, or name another in the workload",
        )
    check_coverage(sample)


def _arm_failed(arm: str, why: str, log: Path) -> ExecutionError:
    return ExecutionError(
        "bench.arm_failed",
        f"arm {arm}: {why}",
        hint=f"its log is {log}",
    )


Starter = Callable[[Workload, Path, str], Child]
"""Starts the child of a workload: workload, folder, label."""
