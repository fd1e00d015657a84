"""Verbs below a verb."""

from __future__ import annotations

import sys
import types

import pytest

from hummingbird_runtime.cli.nested import NestedVerbs
from hummingbird_runtime.errors import UsageError

VERBS = NestedVerbs(
    "outer",
    {
        "one": ("verb_for_this_test:one", "does one thing"),
        "another": ("no_such_module:main", "fails"),
    },
    about=("Some words.",),
)


def one(arguments: list[str]) -> int:
    print(arguments)
    return 7


def test_help_lists_every_verb_with_its_summary(capsys: pytest.CaptureFixture[str]):
    assert VERBS.run(["--help"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "usage: hummingbird outer VERB [options]     (hummingbird outer VERB --help)",
        "",
        "Some words.",
        "",
        "verbs:",
        "  one      does one thing",
        "  another  fails",
    ]


def test_a_verb_is_imported_when_it_is_called_and_gets_the_words_after_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    module = types.ModuleType("verb_for_this_test")
    module.one = one  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert VERBS.run(["one", "-x", "2"]) == 7
    assert capsys.readouterr().out == "['-x', '2']\n"
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        VERBS.run(["another"])


@pytest.mark.parametrize("words", [[], ["oen"]])
def test_an_unknown_verb_is_a_usage_error_that_lists_the_verbs(words: list[str]):
    with pytest.raises(UsageError, match=r"expected one of one, another") as caught:
        VERBS.run(words)
    assert caught.value.code == "usage.unknown_verb"
