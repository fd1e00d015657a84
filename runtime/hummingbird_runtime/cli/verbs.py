"""The static table of verbs: ``module:function`` strings, imported only when called.

A third party adds a verb by an entry point of group ``hummingbird.verbs``; these are looked up
only for a word that is not in the table, so a start never scans installed packages.
"""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata

from hummingbird_runtime.errors import ResourceError, UsageError

ENTRY_POINTS = "hummingbird.verbs"

VerbFunction = Callable[[list[str]], int]


@dataclass(frozen=True)
class Verb:
    """One word of the command line."""

    target: str
    """``module:function``; the function takes the words after the verb, returns the exit code."""
    summary: str
    extra: str = ""
    """The extra of the distribution that brings what the verb imports."""


VERBS = {
    "sample": Verb(
        "hummingbird_runtime.cli.sample:main", "draw an example clip, no argument needed"
    ),
    "generate": Verb("hummingbird_runtime.cli.generate:main", "draw a clip from a sentence"),
    "info": Verb("hummingbird_runtime.cli.info:main", "show what a bundle is and can draw"),
    "verify": Verb("hummingbird_runtime.cli.verify:main", "check a bundle against its manifest"),
    "doctor": Verb("hummingbird_runtime.cli.doctor:main", "check this machine and say what to fix"),
    "fetch": Verb(
        "hummingbird_export.convert.fetch:main", "download weights at a pinned revision", "fetch"
    ),
    "convert": Verb(
        "hummingbird_export.convert.cli:main",
        "turn a published checkpoint into safetensors",
        "export",
    ),
    "train": Verb("hummingbird_train.cli:main", "train the models of a recipe", "train"),
    "curate": Verb(
        "hummingbird_train.curation.cli:main",
        "turn raw clips into a dataset worth training on",
        "curate",
    ),
    "export": Verb("hummingbird_export.cli:main", "turn checkpoints into a bundle", "export"),
    "bench": Verb("hummingbird_bench.cli:main", "measure clips, and judge them by VBench", "bench"),
    "demo": Verb("hummingbird_demo.cli:main", "open the app in a window", "demo"),
}


def find_verb(word: str) -> VerbFunction:
    """The function of a verb, wrapped so that a missing extra is one line.

    Raises:
        UsageError: ``usage.unknown_verb`` with the nearest verb.
    """
    verb = VERBS.get(word)
    if verb is None:
        return _third_party(word)

    def call(arguments: list[str]) -> int:
        module, _, function = verb.target.partition(":")
        try:
            run: VerbFunction = getattr(importlib.import_module(module), function)
            return run(arguments)
        except ModuleNotFoundError as error:
            name = error.name or module
            package = name.partition(".")[0]
            if importlib.util.find_spec(package) is not None:
                raise  # the package is there, so a module missing in it is a fault, not an extra
            raise missing_extra(f"hummingbird {word}", package, verb.extra) from error

    return call


def missing_extra(what: str, module: str, extra: str) -> ResourceError:
    """The error of something that needs a package which is not installed."""
    package = f"hummingbird-edge[{extra}]" if extra else "hummingbird-edge"
    return ResourceError(
        "extra.missing",
        f"{what}: got no module {module!r}, expected it to be installed",
        hint=f"pip install '{package}'",
    )


def help_text() -> str:
    """What ``hummingbird --help`` prints."""
    width = max(map(len, VERBS))
    lines = [f"  {word:{width}}  {verb.summary}" for word, verb in VERBS.items()]
    return "\n".join(
        [
            "usage: hummingbird VERB [options]     (hummingbird VERB --help for its options)",
            "",
            "A sentence in, a short clip out, on this machine.",
            "",
            "verbs:",
            *lines,
            "",
            "options:",
            "  --version  print the version",
            "  --debug    print a traceback before the error line",
        ]
    )


def _third_party(word: str) -> VerbFunction:
    for point in metadata.entry_points(group=ENTRY_POINTS, name=word):
        loaded: VerbFunction = point.load()
        return loaded
    near = difflib.get_close_matches(word, VERBS, n=1, cutoff=0.5)
    raise UsageError(
        "usage.unknown_verb",
        f"got verb {word[:60]!r}, expected one of {', '.join(VERBS)}",
        hint=f"did you mean `hummingbird {near[0]}`?" if near else "see `hummingbird --help`",
    )
