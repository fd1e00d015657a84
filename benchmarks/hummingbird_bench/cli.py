"""The `hummingbird bench` verbs, each imported only when called."""

from __future__ import annotations

import importlib

from hummingbird_runtime.errors import UsageError

VERBS = {
    "vbench": (
        "hummingbird_bench.vbench.runner:main",
        "judge a folder of suite clips with the real VBench, or offline without weights",
    ),
}


def usage() -> str:
    """What `hummingbird bench --help` prints."""
    lines = [f"  {verb:9}{text}" for verb, (_, text) in VERBS.items()]
    return "\n".join(
        [
            "usage: hummingbird bench VERB [options]     (hummingbird bench VERB --help)",
            "",
            "verbs:",
            *lines,
        ]
    )


def main(argv: list[str]) -> int:
    """Run a measuring verb; returns the exit code. Typed errors pass through to the shell."""
    if argv and argv[0] in ("-h", "--help"):
        print(usage())
        return 0
    if not argv or argv[0] not in VERBS:
        got = repr(argv[0][:60]) if argv else "no verb"
        raise UsageError(
            "usage.unknown_verb",
            f"hummingbird bench: got {got}, expected one of {', '.join(VERBS)}",
            hint="see `hummingbird bench --help`",
        )
    module, _, function = VERBS[argv[0]][0].partition(":")
    code: int = getattr(importlib.import_module(module), function)(argv[1:])
    return code
