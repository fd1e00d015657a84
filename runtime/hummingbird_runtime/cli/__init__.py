"""The ``hummingbird`` command: finds the verb, runs it, and turns every failure into an exit code.

stdout is data, stderr is talk. The last stderr line of a failure is ``error[code]: message``; a
traceback comes only with ``--debug``. Exit codes are those of errors.py, and 141 for a closed pipe.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Sequence

from hummingbird_runtime.cli.verbs import find_verb, help_text
from hummingbird_runtime.errors import (
    Cancelled,
    ExecutionError,
    HummingbirdError,
    ResourceError,
    UsageError,
)

BROKEN_PIPE = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; ``--debug`` may stand anywhere before ``--``.

    Args:
        argv: the words after the program's name; None takes those of the process.
    """
    arguments, debug = _take_debug(sys.argv[1:] if argv is None else list(argv))
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # None when closed, or replaced by the caller
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        code = _dispatch(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except SystemExit as stop:  # argparse after --help
        return stop.code if isinstance(stop.code, int) else 0
    except BrokenPipeError:
        _silence_stdout()
        return BROKEN_PIPE
    except BaseException as error:
        if debug:
            traceback.print_exc()
        return report(as_typed(error))


def as_typed(error: BaseException) -> HummingbirdError:
    """The typed error for anything that reached the top."""
    if isinstance(error, HummingbirdError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return Cancelled("interrupted")
    if isinstance(error, MemoryError):
        return ResourceError(
            "resource.memory", "out of memory", hint="ask for fewer frames or a smaller size"
        )
    if isinstance(error, OSError):
        return ResourceError("resource.system", f"{error}", hint="check the path and the disk")
    return ExecutionError(
        "internal.bug",
        f"{type(error).__name__}: {error}",
        hint="this is a fault of ours; run again with --debug and report it",
    )


def report(error: HummingbirdError) -> int:
    """Write the one line of a failure to stderr and return its exit code."""
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(error))
    with contextlib.suppress(OSError, ValueError):  # stderr is closed: the code still tells
        print(f"error[{error.code}]: {text}", file=sys.stderr, flush=True)
    return error.exit_code


def _dispatch(arguments: list[str]) -> int:
    if not arguments:
        print(help_text(), file=sys.stderr)
        raise UsageError("usage.no_verb", "got no verb, expected one", hint="hummingbird sample")
    verb, *rest = arguments
    if verb in ("-h", "--help"):
        print(help_text())
        return 0
    if verb == "--version":
        from hummingbird_runtime import __version__

        print(f"hummingbird {__version__}")
        return 0
    return find_verb(verb)(rest)


def _take_debug(arguments: list[str]) -> tuple[list[str], bool]:
    end = arguments.index("--") if "--" in arguments else len(arguments)
    kept = [word for word in arguments[:end] if word != "--debug"]
    return kept + arguments[end:], len(kept) != end


def _silence_stdout() -> None:
    """Point stdout at nothing, so that the interpreter's own last flush cannot fail again."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
