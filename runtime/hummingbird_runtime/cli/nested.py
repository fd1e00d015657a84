"""Verbs below a verb, such as `hummingbird train vae`: one static table, imported when called."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hummingbird_runtime.errors import UsageError


@dataclass(frozen=True)
class NestedVerbs:
    """The words after one word of the command line."""

    outer: str
    """The word before them."""
    table: Mapping[str, tuple[str, str]]
    """Word -> ``module:function``, which takes what follows and returns the exit code; summary."""
    about: tuple[str, ...] = ()
    """Lines of the help above the table."""

    def usage(self) -> str:
        """What `hummingbird OUTER --help` prints."""
        width = max(map(len, self.table)) + 2
        head = f"usage: hummingbird {self.outer} VERB [options]"
        about = ["", *self.about] if self.about else []
        lines = [f"  {word:{width}}{summary}" for word, (_, summary) in self.table.items()]
        more = f"     (hummingbird {self.outer} VERB --help)"
        return "\n".join([head + more, *about, "", "verbs:", *lines])

    def run(self, argv: list[str]) -> int:
        """Run the verb that the first word names; typed errors pass through to the shell.

        Raises:
            UsageError: ``usage.unknown_verb``.
        """
        if argv and argv[0] in ("-h", "--help"):
            print(self.usage())
            return 0
        if not argv or argv[0] not in self.table:
            got = repr(argv[0][:60]) if argv else "no verb"
            raise UsageError(
                "usage.unknown_verb",
                f"hummingbird {self.outer}: got {got}, expected one of {', '.join(self.table)}",
                hint=f"see `hummingbird {self.outer} --help`",
            )
        module, _, function = self.table[argv[0]][0].partition(":")
        verb: Callable[[list[str]], int] = getattr(importlib.import_module(module), function)
        return verb(argv[1:])
