"""The process that measures clips for a ``Worker``, one after another: JSON lines in and out.

It may be killed at any time. Its stdout belongs to the protocol, what libraries print goes nowhere.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from dataclasses import asdict
from typing import Any, TextIO

from hummingbird_train.curation.worker import typed_message

_ALARM_S = 5.0  # beyond the parent's own time limit; counts when the parent is gone


def main() -> int:
    """Serve until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    settings = json.loads(sys.stdin.readline() or "null")
    if settings is None:
        return 0
    _limit_memory(settings["memory"])
    try:
        import av  # noqa: F401 (what every clip needs fails here, not clip by clip)

        import hummingbird_train.curation.decode  # noqa: F401
        from hummingbird_train.curation.scoring import Task, load_stages, measure

        stages = {s.name: s for s in load_stages(settings["builder"], settings["stages"])}
    except Exception as error:
        _send(replies, typed_message(error))
        return 1
    _send(replies, {"ready": True})
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), 1)
        os.dup2(nothing.fileno(), 2)
    for line in sys.stdin:
        task = Task.from_json(line)
        _alarm(settings["seconds"] + _ALARM_S)
        try:
            for outcome in measure(
                task,
                stages,
                lambda name: _send(replies, {"begin": name}),
                ignore_skips=settings["ignore_skips"],
            ):
                _send(replies, asdict(outcome))
        except Exception as error:
            _send(replies, typed_message(error))
            return 1
        _alarm(0)
        _send(replies, {"end": True})
    return 0


def _send(stream: TextIO, message: dict[str, Any]) -> None:
    stream.write(json.dumps(message) + "\n")
    stream.flush()


def _limit_memory(limit: int) -> None:
    """Bound the address space where the system can; an allocation beyond it is a MemoryError."""
    if limit:
        with contextlib.suppress(ImportError, ValueError, OSError):
            import resource

            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _alarm(seconds: float) -> None:
    """Let the system end this process, even inside a library that never returns."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        sys.exit(main())
