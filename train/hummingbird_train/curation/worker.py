"""A clip's own process: a crash, a hang or a flood of memory costs one stage of one clip.

A worker keeps one child process and starts another whenever that one ended or was killed. The
stage that was running then is ``failed``; the stages after it are tried in the next child.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from hummingbird_runtime import errors
from hummingbird_runtime.cli.verbs import missing_extra
from hummingbird_runtime.errors import Cancelled, ExecutionError, HummingbirdError
from hummingbird_train.curation.row import FAILED, OK
from hummingbird_train.curation.scoring import BUILDER, CHANGED, MEMORY, Task
from hummingbird_train.curation.stage import Outcome

_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class WorkerConfig:
    """What a child process is started with."""

    stages: Mapping[str, Mapping[str, object]]
    """the ``[stages.NAME]`` tables."""
    builder: str = BUILDER
    """``module:function`` that makes the stages of them."""
    seconds: float = 120.0
    """time limit of one clip."""
    memory: int = 4 << 30
    """bytes of address space, where the system can bound it; 0: no bound."""
    ignore_skips: bool = False
    """whether rejected clips are measured to the end."""
    path: tuple[str, ...] = field(default_factory=lambda: tuple(sys.path))
    """where the child looks for modules."""


class Worker:
    """Measures clips one at a time. ``score`` belongs to one thread, ``kill`` to any."""

    def __init__(self, config: WorkerConfig) -> None:
        self._config = config
        self._child: subprocess.Popen[str] | None = None
        self._killed = False
        self._late = False

    def score(self, task: Task) -> list[Outcome]:
        """Every stage of the task, ``ok``, ``failed`` or ``skipped``.

        Raises:
            Cancelled: ``kill`` was called.
            HummingbirdError: no clip can be measured: ``extra.missing``, ``curation.worker``.
        """
        outcomes: list[Outcome] = []
        earlier, failed, left = dict(task.earlier), list(task.failed), list(task.stages)
        while left:
            attempt = Task(task.clip, tuple(left), dict(earlier), tuple(failed))
            fresh = self._child is None
            got, begun, fault = self._attempt(attempt)
            if fault and not begun and not fresh:
                continue  # it died while idle, of no fault of this clip's
            if fault is None and begun == CHANGED:
                text = "the file is not the one that was listed"
                return [
                    Outcome(n, FAILED, {}, "curation.source_changed", text) for n in task.stages
                ]
            ran = {outcome.stage for outcome in got}
            if fault:
                lost = [begun] if begun in left else [name for name in left if name not in ran]
                got += [Outcome(name, FAILED, {}, *fault) for name in lost]
                ran.update(lost)
            outcomes += got
            earlier |= {outcome.stage: outcome.scores for outcome in got if outcome.status == OK}
            failed += [outcome.stage for outcome in got if outcome.status != OK]
            left = [name for name in left if name not in ran]
            if fault is None and left:
                raise ExecutionError(
                    "curation.worker",
                    f"clip {task.clip.id}: got no outcome of {left}, expected one a stage",
                    hint="this is a fault of ours; please report it",
                )
        if any(outcome.error_code == MEMORY for outcome in outcomes):
            self._stop()  # a heap that overflowed once is not trusted with the next clip
        return outcomes

    def kill(self) -> None:
        """End the child at once; a running ``score`` raises Cancelled."""
        self._killed = True
        child = self._child
        if child is not None:
            child.kill()

    def close(self) -> None:
        """Let the child end."""
        self._stop()

    def _attempt(self, task: Task) -> tuple[list[Outcome], str, tuple[str, str] | None]:
        """(outcomes, what had begun last, (code, text) of a child that ended in the middle)."""
        child = self._child if self._child is not None else self._start()
        got: list[Outcome] = []
        begun, ended = "", False
        self._late = False
        timer = threading.Timer(self._config.seconds, self._time_out, (child,))
        timer.daemon = True
        timer.start()
        try:
            child.stdin.write(task.to_json() + "\n")
            child.stdin.flush()
            for line in child.stdout:
                message = json.loads(line)
                if "fatal" in message:
                    raise typed_error(message)
                if "end" in message:
                    ended = True
                    break
                if "begin" in message:
                    begun = message["begin"]
                else:
                    got.append(Outcome(**message))
        except (OSError, ValueError):
            pass  # the pipe broke, or its last line did: the child is gone
        finally:
            timer.cancel()
            timer.join()
        if ended:
            if self._late:  # killed in the moment after its last word
                self._stop()
            return got, begun, None
        fault = self._fault(child, begun)
        self._stop()
        return got, begun, fault

    def _fault(self, child: subprocess.Popen[str], begun: str) -> tuple[str, str]:
        place = begun or "its start"
        if self._killed:
            raise Cancelled
        if self._late:
            return (
                "curation.time_limit",
                f"no result within {self._config.seconds:g} s, in {place}",
            )
        child.kill()
        code = child.wait()
        how = f"with exit code {code}"
        if code < 0:
            with contextlib.suppress(ValueError):
                how = f"by {signal.Signals(-code).name}"
        return "curation.crashed", f"the process ended {how}, in {place}"

    def _time_out(self, child: subprocess.Popen[str]) -> None:
        self._late = True
        child.kill()

    def _start(self) -> subprocess.Popen[str]:
        settings = asdict(self._config)
        single = dict.fromkeys(_ONE_THREAD, "1") | {"OPENCV_FOR_THREADS_NUM": "1"}
        with tempfile.TemporaryFile("w+", errors="replace") as talk:
            child = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "hummingbird_train.curation.child"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=talk, encoding="utf-8",
                env={**os.environ, **single, "PYTHONPATH": os.pathsep.join(self._config.path)},
            )  # fmt: skip
            self._child = child
            line = ""
            with contextlib.suppress(OSError):
                child.stdin.write(json.dumps(settings) + "\n")
                child.stdin.flush()
                line = child.stdout.readline()
            if self._killed:
                self._stop()
                raise Cancelled
            message: dict[str, Any] = json.loads(line) if line else {}
            if message.get("ready"):
                return child
            self._stop()
            if message:
                raise typed_error(message)
            talk.seek(0)
            last = (talk.read().strip().splitlines() or ["no word of why"])[-1]
            raise ExecutionError(
                "curation.worker",
                f"a scoring process did not start: got {last[:200]!r}, expected it to answer",
                hint="raise --memory if it is the bound that it met",
            )

    def _stop(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        with contextlib.suppress(OSError):
            child.stdin.close()
        child.kill()
        child.wait()
        child.stdout.close()


def typed_message(error: Exception) -> dict[str, str]:
    """An error that ends the run, as it goes over a process's boundary."""
    if isinstance(error, HummingbirdError):
        kind, code, text, hint = type(error).__name__, error.code, error.message, error.hint
    else:
        kind, code, text, hint = "", type(error).__name__, str(error), getattr(error, "name", "")
    return {"fatal": kind, "code": code, "message": text, "hint": hint or ""}


def typed_error(message: Mapping[str, str]) -> Exception:
    """The error of a ``typed_message``, on the other side."""
    if message["fatal"] == "Cancelled":
        return Cancelled(message["message"])
    if message["fatal"]:
        kind = getattr(errors, message["fatal"])
        return kind(message["code"], message["message"], hint=message["hint"])
    if message["code"] == "ModuleNotFoundError":
        return missing_extra("hummingbird curate", message["hint"], "curate")
    return ExecutionError(
        "curation.worker",
        f"a scoring process failed: {message['code']}: {message['message']}",
        hint="raise --memory if it is the bound that it met, or run again with --debug",
    )
